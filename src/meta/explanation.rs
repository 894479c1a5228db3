//! `Explanation`: which way a call went, for a caller that asked.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use crate::ids::{BackendName, EndpointName, ReplicaId};

/// Which way a call went: the endpoint's rule that chose the backend, the backend, the replica, and who got
/// copies. What was not reached is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// The endpoint that was called.
    pub endpoint: Option<EndpointName>,
    /// What chose the backend.
    pub rule: Option<RoutingRule>,
    /// The backend that was chosen.
    pub backend: Option<BackendName>,
    /// The replica that took the call.
    pub replica: Option<ReplicaId>,
    /// The backends that were sent a copy.
    pub shadows: Vec<BackendName>,
}

/// What chose the backend of a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingRule {
    /// It is the only one of the endpoint.
    Only,
    /// A draw by weights; this is the backend's.
    Weight(f64),
    /// The shard key, under weights; this is the backend's.
    ShardKey(f64),
}

impl fmt::Display for RoutingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("only"),
            Self::Weight(weight) => write!(f, "weight {weight}"),
            Self::ShardKey(weight) => write!(f, "shard-key, weight {weight}"),
        }
    }
}

/// An explanation while it is written; the caller keeps one end, the call takes the other along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explain(Arc<Mutex<Explanation>>);

impl Explain {
    pub(crate) fn note(&self, write: impl FnOnce(&mut Explanation)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is known so far.
    pub(crate) fn read(&self) -> Explanation {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
