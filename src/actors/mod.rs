//! The actors: a supervised context and its lane, replicas, batchers, the router and the controller.

pub(crate) mod backend_state;
pub(crate) mod batcher;
pub(crate) mod build;
pub(crate) mod configure;
pub(crate) mod context;
#[cfg(feature = "gpu")]
mod context_gpu;
mod control;
pub(crate) mod controller;
pub(crate) mod execute;
pub(crate) mod fit;
pub(crate) mod fleet;
#[cfg_attr(not(feature = "gpu"), path = "no_gpus.rs")]
pub(crate) mod gpus;
pub(crate) mod health;
pub(crate) mod identity;
mod items;
pub(crate) mod lane;
pub(crate) mod lane_port;
pub(crate) mod reconcile;
pub(crate) mod register;
pub(crate) mod release;
pub(crate) mod replica;
pub(crate) mod router;
pub(crate) mod threads;
pub(crate) mod timer;
