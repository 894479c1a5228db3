//! Shadow rules at work: copies of a call, sent where nobody waits for them.

use std::sync::Arc;

use rand::RngExt;
use smallvec::SmallVec;

use crate::{
    call::{Call, Refusal, Reply, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    http_call::HttpCall,
    meta::{Meta, with_rng},
    metrics::shadow::ShadowCounts,
    port::Port,
    routing::backend_routes::BackendRoutes,
    traffic::ShadowRule,
};

/// Makes the copy of a message.
pub(crate) type CopyMessage<M> = fn(&M) -> M;

/// A shadow rule, the backend that it names, and what became of its copies.
pub(crate) struct Shadow {
    pub(crate) rule: ShadowRule,
    pub(crate) routes: Arc<BackendRoutes>,
    pub(crate) counts: Arc<ShadowCounts>,
}

/// A copy that is made and not yet sent.
pub(crate) struct Copied<'a, M: Request> {
    shadow: &'a Shadow,
    port: &'a Arc<dyn Port<M>>,
    msg: M,
    meta: Meta,
}

/// The copies of one call; mostly there are few rules.
pub(crate) type Copies<'a, M> = SmallVec<[Copied<'a, M>; 2]>;

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
        if shared.iter().any(|(id, _)| self.routes.copies_type(*id)) {
            return Ok(());
        }
        Err(ServeError::NotCopied {
            backend: self.routes.name.clone(),
            message: names(&mut shared.iter().map(|(_, name)| *name)).into(),
        })
    }

    fn hits(&self, meta: &Meta) -> bool {
        match &meta.shard_key {
            Some(key) => self.rule.hits_key(key.hash()),
            None => self.rule.hits(with_rng(|rng| rng.random::<f64>())),
        }
    }

    fn copy<M: Request>(&self, msg: &M, meta: &Meta) -> Option<Copied<'_, M>> {
        let (Ok(port), Some(copy)) = (self.routes.port_of::<M>(), self.routes.copier::<M>()) else {
            self.counts.uncovered.add();
            return None;
        };
        // A `clone` that panics costs the caller nothing.
        match guarded(|| copy(msg)) {
            Ok(msg) => Some(Copied { shadow: self, port, msg, meta: meta.for_copy() }),
            Err(_) => {
                self.counts.failed.add();
                None
            }
        }
    }
}

/// The copies that the rules want of a call which `served` answers. None goes to where the call itself goes.
pub(crate) fn copies<'a, M: Request>(
    shadows: &'a [Shadow],
    served: &Arc<BackendRoutes>,
    msg: &M,
    meta: &Meta,
) -> Copies<'a, M> {
    let elsewhere = |shadow: &&Shadow| !Arc::ptr_eq(&shadow.routes, served);
    let hit = shadows.iter().filter(elsewhere).filter(|shadow| shadow.hits(meta));
    let copies: Copies<'a, M> = hit.filter_map(|shadow| shadow.copy(msg, meta)).collect();
    if let Some(explain) = &meta.explain {
        explain.note(|e| e.shadows = copies.iter().map(|copy| copy.shadow.routes.name.clone()).collect());
    }
    copies
}

impl<M: Request> Copied<'_, M> {
    /// Sends it off; what becomes of it is counted, once, whatever it is.
    pub(crate) fn send(self) {
        let tally = Tally(Some(Arc::clone(&self.shadow.counts)));
        let reply = Reply::nobody().map(move |result: Result<M::Response, ServeError>| {
            tally.count(&result);
            result.map(drop)
        });
        let call = Call { msg: self.msg, meta: self.meta, reply };
        if let Err(Refusal { reply: Some(reply), why, msg, .. }) = self.port.deliver(call, false) {
            reply.send(Err(why));
            drop_guarded(msg);
        }
    }
}

/// Counts the end of one copy; one that is lost without an answer has failed.
struct Tally(Option<Arc<ShadowCounts>>);

impl Tally {
    fn count<R>(mut self, result: &Result<R, ServeError>) {
        let Some(counts) = self.0.take() else { return };
        match result {
            Ok(_) => counts.answered.add(),
            // It never began: its backend was full, away, or going.
            Err(why) if why.retryable() => counts.dropped.add(),
            Err(_) => counts.failed.add(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(counts) = self.0.take() {
            counts.failed.add();
        }
    }
}
