//! `Infer`: the message that a model takes, and its answer.

use actix::Message;

use crate::{
    error::ServeError,
    ids::BackendName,
    oip::{OutputSelection, RequestedOutput},
    tensor::Tensor,
};

/// Run the model on these tensors.
///
/// ```
/// use greenroom::{Infer, Tensor};
/// let pixels = Tensor::new("input", [1, 64], vec![0.0_f32; 64])?;
/// let infer = Infer::new([pixels]).outputs(["label"]);
/// assert_eq!(infer.selection.outputs[0].name, "label");
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Infer {
    /// One tensor for each input of the model, in any order.
    pub inputs: Vec<Tensor>,
    /// Which outputs are wanted, and how they travel if they do; by default all of them.
    pub selection: OutputSelection,
    /// The caller's name for this request, repeated in the answer.
    pub id: Option<String>,
}

impl Infer {
    /// Every output of the model, run on these tensors.
    pub fn new(inputs: impl IntoIterator<Item = Tensor>) -> Self {
        Self { inputs: inputs.into_iter().collect(), ..Self::default() }
    }

    /// Only these outputs, in this order.
    #[must_use]
    pub fn outputs<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        let named = |name: T| RequestedOutput { name: name.into(), form: None };
        self.selection.outputs = names.into_iter().map(named).collect();
        self
    }
}

impl Message for Infer {
    type Result = Result<Inferred, ServeError>;
}

/// What came out of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The backend that answered.
    pub model: BackendName,
    /// The outputs that were asked for.
    pub outputs: Vec<Tensor>,
    /// How they were asked for.
    pub selection: OutputSelection,
    /// The caller's name for the request.
    pub id: Option<String>,
}

impl Inferred {
    /// The output of this name, if it was asked for.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| output.name() == name)
    }
}
