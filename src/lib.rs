//! `greenroom`: an actor-model serving runtime on actix.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod ids;
pub mod oip;
#[cfg(feature = "onnx")]
mod onnx;
mod tensor;

pub use error::{BoxError, Fault, Problem, ServeError};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
#[cfg(feature = "onnx")]
pub use onnx::{BatchAxis, ONNX_THREADS_MAX, OnnxModel};
pub use tensor::{Datatype, TENSOR_ELEMENTS_MAX, TENSOR_RANK_MAX, Tensor, TensorData};
