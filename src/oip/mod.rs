//! The Open Inference Protocol, version 2: bytes to tensors and back, as JSON or with binary tensor data.
//!
//! Nothing here knows HTTP: the header `Inference-Header-Content-Length` ([`HEADER_LENGTH`]) comes in
//! and goes out as a number. It is there when tensors are binary: the body then is that many bytes of JSON,
//! followed by the raw little-endian elements of each binary tensor, in order.

mod binary;
mod header;
mod json;
mod metadata;
mod parameters;
mod request;
mod response;
mod selection;
mod write;

pub use metadata::{ModelMetadata, ServerMetadata, TensorMetadata};
pub use request::InferRequest;
pub use response::InferResponse;
pub use selection::{OutputSelection, RequestedOutput};
pub use write::Encoded;

/// Name of the HTTP header that tells the length of the JSON part, in bytes.
pub const HEADER_LENGTH: &str = "Inference-Header-Content-Length";

/// Most tensors that a request may carry, and most outputs that it may ask for.
pub const TENSORS_MAX: usize = 64;

/// How a tensor's elements travel.
///
/// ```
/// use greenroom::oip::Form;
/// assert_eq!(Form::default(), Form::Json);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As numbers, booleans and strings in the JSON.
    #[default]
    Json,
    /// As raw little-endian bytes after the JSON.
    Binary,
}
