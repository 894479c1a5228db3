//! The actors: a supervised context and its lane, replicas, batchers, the router and the controller.

pub(crate) mod context;
pub(crate) mod execute;
pub(crate) mod identity;
mod items;
pub(crate) mod lane;
pub(crate) mod lane_port;
pub(crate) mod register;
pub(crate) mod replica;
