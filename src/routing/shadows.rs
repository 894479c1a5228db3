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

/// Whether a rule for the backend `shadow` can do anything for an endpoint behind which all of `served` stand: it
/// must take a message of theirs that can be copied (and compared, if the rule `compares`), and HTTP requests if the
/// endpoint has a route.
pub(crate) fn check(
    shadow: &BackendRoutes,
    compares: bool,
    served: &[Arc<BackendRoutes>],
    has_route: bool,
) -> Result<(), ServeError> {
    if has_route {
        shadow.port_of::<HttpCall>()?;
    }
    let taken_by_all = |message| served.iter().all(|routes| routes.takes_type(message));
    let mut offered: Vec<_> =
        served.iter().take(1).flat_map(|r| r.messages()).filter(|(id, _)| taken_by_all(*id)).collect();
    // Without a route nobody sends HTTP requests, unless there is nothing else to send.
    let typed = |(id, _): &(TypeId, &str)| *id != TypeId::of::<HttpCall>();
    if !has_route && offered.iter().any(typed) {
        offered.retain(typed);
    }
    let shared: Vec<_> = offered.iter().copied().filter(|(id, _)| shadow.takes_type(*id)).collect();
    let names = |messages: &[(TypeId, &'static str)]| -> Box<str> {
        messages.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ").into()
    };
    let backend = shadow.name.clone();
    if shared.is_empty() {
        return Err(ServeError::NotTaken { backend, message: names(&offered), takes: shadow.takes() });
    }
    if !shared.iter().any(|(id, _)| shadow.copies_type(*id)) {
        return Err(ServeError::NotCopied { backend, message: names(&shared) });
    }
    if compares && !shared.iter().any(|(id, _)| shadow.compares_type(*id)) {
        return Err(ServeError::NotCompared { backend, message: names(&shared) });
    }
    Ok(())
}

impl Shadow {
    /// Whether it wants a copy of this call.
    pub(super) fn hits(&self, meta: &Meta) -> bool {
        match &meta.shard_key {
            Some(key) => self.rule.hits_key(key.hash()),
            None => self.rule.hits(with_rng(|rng| rng.random::<f64>())),
        }
    }
}
