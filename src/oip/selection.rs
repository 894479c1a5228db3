//! Which outputs a request asks for, and in what form.

use serde::Deserialize;

use super::{Form, TENSORS_MAX, parameters::OutputParameters};
use crate::{error::ServeError, tensor::Tensor};

/// One output that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// The form asked for; none: the default of the request.
    pub form: Option<Form>,
}

/// The outputs that a request asks for.
///
/// ```
/// use greenroom::{Tensor, oip::{Form, OutputSelection, RequestedOutput}};
/// let label = RequestedOutput { name: "label".into(), form: Some(Form::Binary) };
/// let selection = OutputSelection { outputs: vec![label], default: Form::Json };
/// assert_eq!(selection.form("label"), Form::Binary);
/// let answer = vec![Tensor::new("label", [1], vec![7_i64])?, Tensor::new("score", [1], vec![0.9_f32])?];
/// assert_eq!(selection.select(answer)?.len(), 1);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputSelection {
    /// The outputs named, in the order asked for; empty: all there are.
    pub outputs: Vec<RequestedOutput>,
    /// Form of those that do not say.
    pub default: Form,
}

impl OutputSelection {
    /// The form in which output `name` has to go.
    pub fn form(&self, name: &str) -> Form {
        let named = self.outputs.iter().find(|output| output.name == name);
        named.and_then(|output| output.form).unwrap_or(self.default)
    }

    /// Keeps the outputs asked for, in the order asked for.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] for a name that no output has, with the names that there are.
    pub fn select(&self, mut outputs: Vec<Tensor>) -> Result<Vec<Tensor>, ServeError> {
        if self.outputs.is_empty() {
            return Ok(outputs);
        }
        let names: Vec<&str> = outputs.iter().map(Tensor::name).collect();
        self.check(&names)?;
        // Every name is there once, so sorting by the place asked for leaves the others behind those.
        let place = |tensor: &Tensor| self.outputs.iter().position(|asked| asked.name == tensor.name());
        outputs.retain(|tensor| place(tensor).is_some());
        outputs.sort_by_key(place);
        Ok(outputs)
    }

    /// Checks the names asked for against those that there are, before any work is done.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] for a name that is not in `names`.
    pub fn check(&self, names: &[&str]) -> Result<(), ServeError> {
        match self.outputs.iter().find(|asked| !names.contains(&asked.name.as_str())) {
            None => Ok(()),
            Some(asked) => Err(ServeError::bad_request(format!(
                "output `{}` does not exist; there are: {}",
                asked.name,
                names.join(", ")
            ))),
        }
    }

    /// From what the JSON says.
    pub(super) fn from_wire(asked: Vec<OutputIn>, binary: Option<bool>) -> Result<Self, ServeError> {
        if asked.len() > TENSORS_MAX {
            return Err(ServeError::bad_request(format!(
                "{} outputs are asked for, at most {TENSORS_MAX} are allowed",
                asked.len()
            )));
        }
        let mut outputs: Vec<RequestedOutput> = Vec::with_capacity(asked.len());
        for OutputIn { name, parameters } in asked {
            let parameters = parameters.unwrap_or_default();
            let unsupported = [
                (parameters.classification.is_some(), "classification"),
                (parameters.shared_memory_region.is_some(), "shared memory"),
            ];
            if let Some((_, what)) = unsupported.into_iter().find(|(asked, _)| *asked) {
                return Err(ServeError::bad_request(format!("output `{name}`: {what} is not supported")));
            }
            if outputs.iter().any(|earlier| earlier.name == name) {
                return Err(ServeError::bad_request(format!("output `{name}` is asked for twice")));
            }
            outputs.push(RequestedOutput { name, form: parameters.binary_data.map(form) });
        }
        Ok(Self { outputs, default: binary.map(form).unwrap_or_default() })
    }
}

fn form(binary: bool) -> Form {
    if binary { Form::Binary } else { Form::Json }
}

/// An output as a request names it.
#[derive(Deserialize)]
pub(super) struct OutputIn {
    name: String,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}
