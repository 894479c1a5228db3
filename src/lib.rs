//! `greenroom`: an actor-model serving runtime on actix.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod actors;
mod backend;
mod batching;
mod blocking;
mod call;
mod config;
mod endpoint;
mod error;
mod handle;
mod http;
mod http_call;
mod ids;
mod meta;
mod metrics;
pub mod oip;
#[cfg(feature = "onnx")]
mod onnx;
mod port;
mod route;
mod routing;
mod serve;
mod tensor;
pub mod testing;
mod traffic;

pub use actors::{
    context::ReplicaContext,
    reconcile::ReplicaState,
    router::{Route, Routed, Router},
    timer::TimerKind,
};
pub use backend::{Backend, Batch, FnBackend};
pub use blocking::BlockingHandle;
pub use call::{Answer, Call, Gate, Permit, Refusal, Reply, Request, Waiting};
pub use config::{
    AdminConfig, BackendConfig, BackendDecl, BackendUpdate, ENDPOINT_METHODS, EndpointDecl, HttpConfig,
    Location, Placement, RestartPolicy, RestartUpdate, ServeConfig, Source, limits,
};
pub use endpoint::Endpoint;
pub use error::{BoxError, Fault, Problem, ServeError};
pub use handle::{Calling, Handle};
pub use http::{CALL_METHOD_HEADER, Ingress, Listen, REQUEST_ID_HEADER, SHARD_KEY_HEADER};
pub use http_call::{HttpAnswer, HttpCall};
pub use ids::{BackendName, EndpointName, NAME_BYTES_MAX, ReplicaId};
pub use meta::{ID_BYTES_MAX, Meta, RequestId, ShardKey};
#[cfg(feature = "onnx")]
pub use onnx::{BatchAxis, Infer, Inferred, ONNX_JOINED_ROWS_MAX, ONNX_THREADS_MAX, OnnxModel, OnnxReplica};
pub use port::Port;
pub use route::{ROUTE_BYTES_MAX, RouteParams, RoutePattern, RouteTable};
pub use serve::{BackendStatus, EndpointStatus, ReplicaStatus, Serve, ServeOptions, Status};
pub use tensor::{Datatype, TENSOR_ELEMENTS_MAX, TENSOR_RANK_MAX, Tensor, TensorData};
pub use traffic::{TrafficPolicy, WEIGHT_SUM_TOLERANCE};
