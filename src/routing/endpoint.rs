//! One endpoint: its name, which never moves, and what it means now, swapped whole.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rand::RngExt;

use crate::{
    call::{Answer, Call, Refusal, Request},
    error::ServeError,
    http_call::WantedHeaders,
    ids::EndpointName,
    meta::{Meta, with_rng},
    metrics::spread::Spread,
    port::Port,
    routing::backend_routes::BackendRoutes,
    traffic::TrafficPolicy,
};

/// A name that handles hold on to, and what it means now.
pub(crate) struct EndpointSlot {
    pub(crate) name: EndpointName,
    state: ArcSwapOption<EndpointState>,
}

/// What an endpoint means: a policy over backends. Immutable; a change swaps the whole.
pub(crate) struct EndpointState {
    policy: TrafficPolicy,
    /// In the order of the policy.
    backends: Vec<Routed>,
}

struct Routed {
    routes: Arc<BackendRoutes>,
    requests: Arc<Spread>,
}

impl EndpointState {
    /// A policy over backends, which are given in its order with the counter of each.
    pub(crate) fn new(
        policy: TrafficPolicy,
        backends: impl IntoIterator<Item = (Arc<BackendRoutes>, Arc<Spread>)>,
    ) -> Self {
        let backends = backends.into_iter().map(|(routes, requests)| Routed { routes, requests }).collect();
        Self { policy, backends }
    }

    /// The port of the backend that the policy picks.
    fn pick<M: Request>(&self) -> Result<&Arc<dyn Port<M>>, ServeError> {
        let i = match self.backends.len() {
            1 => 0,
            _ => self.policy.pick(with_rng(|rng| rng.random::<f64>())),
        };
        let backend = &self.backends[i];
        backend.requests.add();
        backend.routes.port_of::<M>()
    }

    /// HTTP headers that the backends of the policy ask for.
    pub(crate) fn wanted_headers(&self) -> WantedHeaders {
        self.backends.iter().map(|backend| backend.routes.wanted_headers).max().unwrap_or_default()
    }

    /// Whether every backend of the policy takes `M`.
    pub(crate) fn check<M: Request>(&self) -> Result<(), ServeError> {
        self.backends.iter().try_for_each(|backend| backend.routes.port_of::<M>().map(drop))
    }
}

impl EndpointSlot {
    pub(crate) fn new(name: EndpointName) -> Self {
        Self { name, state: ArcSwapOption::empty() }
    }

    /// From now on the endpoint means this; nothing: it is gone.
    pub(crate) fn publish(&self, state: Option<EndpointState>) {
        self.state.store(state.map(Arc::new));
    }

    /// Whether it means anything now.
    pub(crate) fn exists(&self) -> bool {
        self.state.load().is_some()
    }

    /// Whether every backend behind it takes `M`.
    pub(crate) fn check<M: Request>(&self) -> Result<(), ServeError> {
        match &*self.state.load() {
            Some(state) => state.check::<M>(),
            None => Err(ServeError::UnknownEndpoint(self.name.clone())),
        }
    }

    /// Routes a call; a refusal is the answer.
    pub(crate) fn call<M: Request>(&self, msg: M, meta: Meta) -> Answer<M> {
        let refuse = |msg, meta, why| Answer::Refused(Refusal { msg, meta, reply: None, why });
        match &*self.state.load() {
            None => refuse(msg, meta, ServeError::UnknownEndpoint(self.name.clone())),
            Some(state) => match state.pick::<M>() {
                Ok(port) => port.call(msg, meta),
                Err(why) => refuse(msg, meta, why),
            },
        }
    }

    /// Routes a call that brings its reply; a refusal goes there.
    pub(crate) fn deliver<M: Request>(&self, call: Call<M>) {
        let state = self.state.load();
        let port = match &*state {
            None => Err(ServeError::UnknownEndpoint(self.name.clone())),
            Some(state) => state.pick::<M>(),
        };
        // Answered before the message is dropped, which may panic.
        match port {
            Err(why) => {
                call.reply.send(Err(why));
            }
            Ok(port) => {
                if let Err(Refusal { reply: Some(reply), why, msg, .. }) = port.deliver(call, false) {
                    reply.send(Err(why));
                    drop(msg);
                }
            }
        }
    }
}
