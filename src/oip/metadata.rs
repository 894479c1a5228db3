//! What the protocol tells about a server and its models.

use serde::Serialize;

use crate::tensor::Datatype;

/// The answer to `GET /v2`.
///
/// ```
/// use greenroom::oip::ServerMetadata;
/// assert_eq!(ServerMetadata::default().name, "greenroom");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    /// Name of the server.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Extensions of the protocol that it knows.
    pub extensions: Vec<String>,
}

impl Default for ServerMetadata {
    /// This server.
    fn default() -> Self {
        Self {
            name: "greenroom".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["binary_tensor_data".into()],
        }
    }
}

/// The answer to `GET /v2/models/{name}`.
///
/// ```
/// use greenroom::{Datatype, oip::{ModelMetadata, TensorMetadata}};
/// let pixels = TensorMetadata { name: "pixels".into(), datatype: Datatype::Fp32, shape: vec![-1, 64] };
/// let model = ModelMetadata { name: "digits".into(), inputs: vec![pixels], ..Default::default() };
/// let json = serde_json::to_value(&model)?;
/// assert_eq!(json["inputs"][0]["datatype"], "FP32");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    /// Name of the model.
    pub name: String,
    /// Its versions, if it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// What runs it, and its format.
    pub platform: String,
    /// What goes in.
    pub inputs: Vec<TensorMetadata>,
    /// What comes out.
    pub outputs: Vec<TensorMetadata>,
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Elements along each axis; -1 where the request decides.
    pub shape: Vec<i64>,
}
