//! The `parameters` objects of the protocol: what we act on is read, the rest is accepted and left.

use serde::{Deserialize, de::IgnoredAny};

/// `parameters` of a tensor that came in.
#[derive(Default, Deserialize)]
pub(super) struct TensorParameters {
    #[serde(default)]
    pub binary_data_size: Option<usize>,
    #[serde(default)]
    pub shared_memory_region: Option<IgnoredAny>,
}

/// `parameters` of an output that is asked for.
#[derive(Default, Deserialize)]
pub(super) struct OutputParameters {
    #[serde(default)]
    pub binary_data: Option<bool>,
    #[serde(default)]
    pub classification: Option<IgnoredAny>,
    #[serde(default)]
    pub shared_memory_region: Option<IgnoredAny>,
}

/// `parameters` of a whole request.
#[derive(Default, Deserialize)]
pub(super) struct RequestParameters {
    #[serde(default)]
    pub binary_data_output: Option<bool>,
}
