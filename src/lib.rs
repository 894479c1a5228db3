//! `greenroom`: an actor-model serving runtime on actix.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod config;
mod error;
mod http;
mod ids;
mod traffic;

pub use config::{
    AdminConfig, BackendConfig, BackendDecl, BackendUpdate, ENDPOINT_METHODS, EndpointDecl, HttpConfig,
    Location, Placement, RestartPolicy, RestartUpdate, ServeConfig, Source, limits,
};
pub use error::{BoxError, Fault, Problem, ServeError};
pub use http::{ROUTE_BYTES_MAX, RouteParams, RoutePattern, RouteTable};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
pub use traffic::{TrafficPolicy, WEIGHT_SUM_TOLERANCE};
