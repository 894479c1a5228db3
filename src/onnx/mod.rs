//! ONNX models, run in process by tract.
//!
//! The one module that knows tract. Tensors come in and go out as [`Tensor`](crate::Tensor); BYTES (ONNX
//! strings) and quantised element types are refused when the model is loaded.

mod backend;
mod convert;
mod external;
mod infer;
mod joined;
mod load;
mod model;
mod plan;
mod port;

pub use backend::OnnxReplica;
pub use infer::{Infer, Inferred};
pub use joined::ONNX_JOINED_ROWS_MAX;
pub use model::{BatchAxis, OnnxModel};
pub use plan::ONNX_THREADS_MAX;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
