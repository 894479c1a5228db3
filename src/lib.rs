//! `greenroom`: an actor-model serving runtime on actix.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod ids;

pub use error::{BoxError, Fault, Problem, ServeError};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
