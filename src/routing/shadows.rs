//! Shadow rules at work: whether they can do anything, and which calls they want copies of.

use std::{any::TypeId, sync::Arc};

use rand::RngExt;

use crate::{
    call::Request,
    comparison::{
        Comparison,
        answer::{KeepAnswer, Kept},
    },
    error::ServeError,
    http_call::{HttpAnswer, HttpCall},
    meta::{Meta, with_rng},
    metrics::shadow::ShadowCounts,
    routing::backend_routes::BackendRoutes,
    traffic::ShadowRule,
};

/// How a message is copied, and how its answer is kept to be compared.
pub(crate) struct Copying<M: Request> {
    pub(crate) message: fn(&M) -> M,
    pub(crate) answer: Option<KeepAnswer<M::Response>>,
}

// Not derived: that would ask it of `M`.
impl<M: Request> Clone for Copying<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Request> Copy for Copying<M> {}

impl Copying<HttpCall> {
    /// HTTP requests can always be copied, and their answers compared.
    pub(crate) fn http() -> Self {
        let answer: KeepAnswer<HttpAnswer> = Kept::http;
        Self { message: HttpCall::clone, answer: Some(answer) }
    }
}

/// A shadow rule, the backend that it names, and what became of its copies.
pub(crate) struct Shadow {
    pub(crate) rule: ShadowRule,
    pub(crate) routes: Arc<BackendRoutes>,
    pub(crate) counts: Arc<ShadowCounts>,
    /// Of a rule that compares.
    pub(crate) comparison: Option<Arc<Comparison>>,
}

impl Shadow {
    /// Whether it can do anything for an endpoint behind which all of `served` stand: it must take a message of
    /// theirs that can be copied, and HTTP requests if the endpoint has a route.
    pub(crate) fn check<'a>(
        &self,
        served: impl Iterator<Item = &'a Arc<BackendRoutes>> + Clone,
        has_route: bool,
    ) -> Result<(), ServeError> {
        if has_route {
            self.routes.port_of::<HttpCall>()?;
        }
        let taken_by_all = |message| served.clone().all(|routes| routes.takes_type(message));
        let first = served.clone().next();
        let offered: Vec<_> =
            first.into_iter().flat_map(|r| r.messages()).filter(|(id, _)| taken_by_all(*id)).collect();
        let shared: Vec<_> = offered.iter().filter(|(id, _)| self.routes.takes_type(*id)).collect();
        let names =
            |messages: &mut dyn Iterator<Item = &'static str>| messages.collect::<Vec<_>>().join(", ");
        if shared.is_empty() {
            return Err(ServeError::NotTaken {
                backend: self.routes.name.clone(),
                message: names(&mut offered.iter().map(|(_, name)| *name)).into(),
                takes: self.routes.takes(),
            });
        }
        let any = |known: &dyn Fn(TypeId) -> bool| shared.iter().any(|(id, _)| known(*id));
        let (backend, message) =
            (self.routes.name.clone(), names(&mut shared.iter().map(|(_, name)| *name)).into());
        if !any(&|message| self.routes.copies_type(message)) {
            return Err(ServeError::NotCopied { backend, message });
        }
        if self.comparison.is_some() && !any(&|message| self.routes.compares_type(message)) {
            return Err(ServeError::NotCompared { backend, message });
        }
        Ok(())
    }

    /// Whether it wants a copy of this call.
    pub(super) fn hits(&self, meta: &Meta) -> bool {
        match &meta.shard_key {
            Some(key) => self.rule.hits_key(key.hash()),
            None => self.rule.hits(with_rng(|rng| rng.random::<f64>())),
        }
    }
}
