//! The HTTP side: ingress on the live routes, JSON and raw forms, the server, errors as problem documents.

mod exchange;
mod inference;
#[cfg(feature = "onnx")]
mod inference_form;
mod ingress;
mod json;
mod problem;
mod server;
mod service;

pub use ingress::{CALL_METHOD_HEADER, Ingress, REQUEST_ID_HEADER, SHARD_KEY_HEADER};
pub use server::Listen;
