//! `greenroom` serves code as actors: replicas, batches, composition and HTTP, on actix.
//!
//! A [`Backend`] is an ordinary actix actor in a [`ReplicaContext`]. A [`Serve`] runs it in any number of replicas,
//! an [`Endpoint`] gives it a name and perhaps a route, a [`Handle`] calls it, typed, from anywhere.
//!
//! # A function
//!
//! ```
//! use greenroom::{Backend, BackendConfig, Endpoint, Resources, Serve, ServeError, ServeOptions};
//!
//! #[derive(actix::Message)]
//! #[rtype(result = "Result<u64, ServeError>")]
//! struct Double(u64);
//!
//! # #[actix_web::main]
//! # async fn main() -> Result<(), ServeError> {
//! let serve = Serve::start(ServeOptions::default()).await?;
//! let double = Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) });
//! // A replica asks for a whole CPU unless told otherwise; these two share one.
//! let config = BackendConfig::default().num_replicas(2).resources(Resources::default().num_cpus(0.5));
//! serve.create_backend("double", double, config).await?;
//! serve.create_endpoint("double", Endpoint::new("double")).await?;
//!
//! assert_eq!(serve.handle::<Double>("double")?.call(Double(21)).await?, 42);
//! serve.shutdown().await
//! # }
//! ```
//!
//! # An actor behind a route, in an actix-web app
//!
//! ```
//! use actix::{Actor, Handler, Message};
//! use actix_web::{App, test};
//! # use greenroom::{Backend, BackendConfig, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions};
//!
//! #[derive(Message, serde::Deserialize)]
//! #[rtype(result = "Result<u64, ServeError>")]
//! struct Add { n: u64 }
//!
//! struct Sum(u64);
//! impl Actor for Sum {
//!     type Context = ReplicaContext<Self>;
//! }
//! impl Handler<Add> for Sum {
//!     type Result = Result<u64, ServeError>;
//!     fn handle(&mut self, Add { n }: Add, _: &mut Self::Context) -> Self::Result {
//!         self.0 = self.0.checked_add(n).ok_or_else(|| ServeError::backend(422, "full", "no more"))?;
//!         Ok(self.0)
//!     }
//! }
//!
//! # #[actix_web::main]
//! # async fn main() -> Result<(), ServeError> {
//! let serve = Serve::start(ServeOptions::default()).await?;
//! serve.create_backend("sum", Backend::new(|_| Ok(Sum(0))).json::<Add>(), BackendConfig::default()).await?;
//! serve.create_endpoint("sum", Endpoint::new("sum").route("/sum/{n}").methods(["POST"])).await?;
//!
//! let app = test::init_service(App::new().configure(serve.ingress())).await;
//! let request = test::TestRequest::post().uri("/sum/5").to_request();
//! let sum: u64 = test::call_and_read_body_json(&app, request).await;
//! assert_eq!(sum, 5);
//! # serve.shutdown().await
//! # }
//! ```
//!
//! # More
//!
//! - many requests in one call: [`Batch`], [`Backend::batched`], [`BackendConfig::max_batch_size`];
//! - one backend that calls another: [`ReplicaContext::handle`]; the deadline and the request's id go along;
//! - the HTTP request itself: [`Backend::raw`], [`HttpCall`], [`HttpAnswer`];
//! - what replicas ask for, and how much there is: [`Resources`], [`Capacity`];
//! - computing for milliseconds: [`Backend::compute`], [`Placement`];
//! - threads without a runtime: [`Handle::blocking`]; a server of our own: [`Serve::listen`];
//! - a restart that goes on with what was wanted last: [`ServeOptions::state`];
//! - tests without port or server: [`testing`];
//! - every error, with its code and whether to try again: [`ServeError`];
//! - below it all, for those who bring a transport of their own: [`Call`], [`Port`], [`Reply`], [`Meta`].
//!
//! The file that the binary reads is [`ServeConfig`]. The feature `onnx`, on by default, brings `OnnxModel`.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod actors;
mod backend;
mod batching;
mod blocking;
mod call;
mod comparison;
mod config;
mod endpoint;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod guard;
mod handle;
mod health;
mod http;
mod http_call;
mod ids;
mod meta;
mod metrics;
pub mod oip;
#[cfg(feature = "onnx")]
mod onnx;
mod plan;
mod port;
mod resources;
mod route;
mod routing;
mod serve;
mod store;
mod tensor;
pub mod testing;
mod traffic;

pub use actors::{
    backend_state::BackendState,
    context::ReplicaContext,
    reconcile::ReplicaState,
    router::{Route, Routed, Router},
    timer::TimerKind,
};
pub use backend::{Backend, Batch, CheckHealth, FnBackend, Reconfigure};
pub use blocking::BlockingHandle;
pub use call::{Answer, Call, Gate, Permit, Refusal, Reply, Request, Waiting};
pub use comparison::{ComparisonReport, DifferingPair, SideOfPair};
pub use config::{
    AdminConfig, BackendConfig, BackendDecl, BackendUpdate, EndpointDecl, GpuShare, HttpConfig, Location,
    Placement, ResourcesUpdate, RestartPolicy, RestartUpdate, ServeConfig, Source, UserConfig, limits,
};
pub use endpoint::Endpoint;
pub use error::{BoxError, Fault, GpuFailure, Problem, ServeError, StateError};
pub use handle::{Calling, Handle};
pub use http::{CALL_METHOD_HEADER, EXPLAIN_HEADER, Ingress, Listen, REQUEST_ID_HEADER};
pub use http_call::{ENDPOINT_METHODS, HttpAnswer, HttpCall, SHARD_KEY_HEADER, ShardKeys};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
pub use meta::{Explanation, ID_BYTES_MAX, Meta, RequestId, RoutingRule, ShardKey};
pub use metrics::{comparison::Comparisons, shadow::ShadowCopies};
#[cfg(feature = "onnx")]
pub use onnx::{BatchAxis, Infer, Inferred, ONNX_JOINED_ROWS_MAX, ONNX_THREADS_MAX, OnnxModel, OnnxReplica};
pub use plan::{Drift, Plan, PlanAction, PlanReason, PlanStep, Subject};
pub use port::Port;
pub use resources::{
    AMOUNT_MAX, Amount, AmountError, CUSTOM_RESOURCES_MAX, Capacity, Fraction, FractionError, FreeCapacity,
    Resources, WHOLE_DEVICES_MAX,
};
pub use route::{ROUTE_BYTES_MAX, RouteParams, RoutePattern, RouteTable};
pub use serve::{
    BackendCounts, BackendStatus, CapacityStatus, DeployOptions, DeployState, Deployed, EndSignals,
    EndpointStatus, Latencies, Progress, ReplicaCounts, ReplicaStatus, SeenShare, Serve, ServeOptions,
    ShadowStatus, Status,
};
#[cfg(feature = "gpu")]
pub use serve::{GpuHealth, GpuStatus, ReplicaGpuStatus};
pub use store::{Applied, HISTORY_MAX};
pub use tensor::{Datatype, TENSOR_ELEMENTS_MAX, TENSOR_RANK_MAX, Tensor, TensorData};
pub use traffic::{Affinity, COMPARE_SAMPLE_MAX, Compare, ShadowRule, TrafficPolicy, WEIGHT_SUM_TOLERANCE};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
