//! Every message type that one backend takes, and the ports over its replicas.

use std::{
    any::{Any, TypeId},
    sync::Arc,
    time::Duration,
};

use crate::{
    actors::lane::Home,
    ids::BackendName,
    routing::backend_port::{AnyBackendPort, ReplicaPorts},
};

/// Every message type that one backend takes, and the ports over its replicas.
pub(crate) struct BackendRoutes {
    pub(crate) name: BackendName,
    /// Whether it asks for all headers of an HTTP request.
    pub(crate) wants_headers: bool,
    ports: Vec<Box<dyn AnyBackendPort>>,
}

impl BackendRoutes {
    pub(crate) fn new(name: BackendName, wants_headers: bool, ports: Vec<Box<dyn AnyBackendPort>>) -> Self {
        Self { name, wants_headers, ports }
    }

    /// Types of the messages it takes, for people.
    pub(crate) fn takes(&self) -> Box<str> {
        let names: Vec<_> = self.ports.iter().map(|port| port.message().1).collect();
        if names.is_empty() { "nothing".into() } else { names.join(", ").into() }
    }

    /// Makes these the replicas that take calls.
    pub(crate) fn publish(&self, replicas: &[Arc<ReplicaPorts>]) {
        self.ports.iter().for_each(|port| port.publish(replicas));
    }

    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) {
        self.ports.iter().for_each(|port| port.set_timeout(timeout));
    }
}

impl Home for BackendRoutes {
    fn port(&self, message: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.ports.iter().find(|port| port.message().0 == message).map(|port| port.erased())
    }
}
