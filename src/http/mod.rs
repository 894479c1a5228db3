//! The HTTP side: ingress on the live routes, JSON and raw forms, the server, problems, the admin API, the dashboard.

mod admin;
mod body;
mod dashboard;
mod exchange;
mod explain;
mod inference;
#[cfg(feature = "onnx")]
mod inference_form;
mod ingress;
mod json;
mod problem;
mod request_id;
mod server;
mod service;

pub use explain::EXPLAIN_HEADER;
pub use ingress::{CALL_METHOD_HEADER, Ingress};
pub use request_id::REQUEST_ID_HEADER;
pub use server::Listen;
