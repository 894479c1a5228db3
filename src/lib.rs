//! `greenroom`: an actor-model serving runtime on actix.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod ids;
pub mod oip;
mod tensor;

pub use error::{BoxError, Fault, Problem, ServeError};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
pub use tensor::{Datatype, TENSOR_ELEMENTS_MAX, TENSOR_RANK_MAX, Tensor, TensorData};
