//! The copies of one call: made before it is sent, sent after it where nobody waits for them, perhaps compared.

use std::sync::Arc;

use rand::RngExt;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    call::{Answer, Call, Refusal, Reply, Request},
    comparison::{
        Comparison,
        answer::KeepAnswer,
        pairing::{Half, Watch, pairing},
    },
    error::ServeError,
    guard::{drop_guarded, guarded},
    ids::BackendName,
    meta::{Explain, Meta, RequestId, with_rng},
    metrics::{
        comparison::{Against, Outcome},
        shadow::ShadowCounts,
        spread::Spread,
    },
    port::Port,
    routing::{
        backend_routes::BackendRoutes,
        shadows::{Copying, Shadow},
    },
};

/// The copies of one call that are made and not yet sent; mostly there are few rules.
pub(crate) struct Copies<'a, M: Request> {
    made: SmallVec<[Copied<'a, M>; 2]>,
    /// What could not be made, to be counted if the call is taken.
    missed: SmallVec<[Missed<'a>; 2]>,
    explain: Option<Explain>,
}

/// A copy, or a comparison, that there will not be.
enum Missed<'a> {
    Copy(&'a Spread),
    Comparison(&'a Comparison, Against, Outcome),
}

/// A copy that is made and not yet sent.
struct Copied<'a, M: Request> {
    shadow: &'a Shadow,
    port: &'a Arc<dyn Port<M>>,
    msg: M,
    meta: Meta,
    comparing: Option<Box<Comparing<'a, M>>>,
}

/// What it takes to compare the answers.
struct Comparing<'a, M: Request> {
    comparison: &'a Arc<Comparison>,
    keep: KeepAnswer<M::Response>,
    /// The backend that serves the call.
    served: &'a Arc<BackendRoutes>,
    /// Before the call was sent.
    since: Instant,
    /// One more copy, for that very backend.
    again: Option<M>,
    /// Where the answers go; there are some once the call was sent.
    halves: Halves,
}

#[derive(Default)]
struct Halves {
    shadow: Option<Half>,
    again: Option<Half>,
}

impl<'a, M: Request> Copies<'a, M> {
    /// The copies that the rules want of a call which `served` answers. None goes to where the call itself goes.
    pub(crate) fn of(shadows: &'a [Shadow], served: &'a Arc<BackendRoutes>, msg: &M, meta: &Meta) -> Self {
        let mut copies =
            Self { made: SmallVec::new(), missed: SmallVec::new(), explain: meta.explain.clone() };
        let elsewhere = |shadow: &&Shadow| !Arc::ptr_eq(&shadow.routes, served);
        for shadow in shadows.iter().filter(elsewhere).filter(|shadow| shadow.hits(meta)) {
            let copy = Copied::of(shadow, served, msg, meta, &mut copies.missed);
            copies.made.extend(copy);
        }
        copies
    }

    /// The call was taken and is answered here or later: those who compare see what its caller gets.
    pub(crate) fn watch_answer(&mut self, answer: &mut Answer<M>) {
        let Some(watch) = self.watch() else { return };
        match answer {
            Answer::Now(result) => watch.see(result),
            Answer::Waiting(waiting) => waiting.observer = Some(Box::new(|result| watch.see(result))),
            Answer::Refused(_) => {}
        }
    }

    /// Who wants to see what the caller gets; nobody if nothing is compared.
    pub(crate) fn watch(&mut self) -> Option<Watch<M::Response>> {
        if self.made.iter().all(|copy| copy.comparing.is_none()) {
            return None;
        }
        let mut watch = Watch(SmallVec::new());
        for copy in &mut self.made {
            if let Some(comparing) = &mut copy.comparing {
                comparing.pair(&copy.meta.request_id, &copy.shadow.routes.name, &mut watch);
            }
        }
        Some(watch)
    }

    /// The call was not taken after all: nothing is sent, nothing counted.
    pub(crate) fn cancel(self) {
        for copy in self.made {
            if let Some(Comparing { halves, again, .. }) = copy.comparing.map(|it| *it) {
                halves.shadow.into_iter().chain(halves.again).for_each(Half::cancel);
                drop_guarded(again);
            }
            drop_guarded(copy.msg);
        }
    }

    /// Sends them off, and where it is to be compared with itself, to `port`, which took the call.
    pub(crate) fn send(self, port: &Arc<dyn Port<M>>) {
        for missed in self.missed {
            match missed {
                Missed::Copy(counter) => counter.add(),
                Missed::Comparison(comparison, against, outcome) => comparison.count(against, outcome),
            }
        }
        for copy in self.made {
            let backend = &copy.shadow.routes.name;
            if copy.send(port)
                && let Some(explain) = &self.explain
            {
                explain.note(|e| e.shadows.push(backend.clone()));
            }
        }
    }
}

impl<'a, M: Request> Copied<'a, M> {
    fn of(
        shadow: &'a Shadow,
        served: &'a Arc<BackendRoutes>,
        msg: &M,
        meta: &Meta,
        missed: &mut SmallVec<[Missed<'a>; 2]>,
    ) -> Option<Self> {
        let (Ok(port), Some(copying)) = (shadow.routes.port_of::<M>(), shadow.routes.copying::<M>()) else {
            missed.push(Missed::Copy(&shadow.counts.uncovered));
            return None;
        };
        // A `clone` that panics costs the caller nothing.
        let Ok(copy) = guarded(|| (copying.message)(msg)) else {
            missed.push(Missed::Copy(&shadow.counts.failed));
            return None;
        };
        let comparison = shadow.comparison.as_ref();
        let comparing =
            comparison.and_then(|comparison| Comparing::of(comparison, copying, served, msg, missed));
        Some(Self { shadow, port, msg: copy, meta: meta.for_copy(), comparing: comparing.map(Box::new) })
    }

    /// Whether its backend took it.
    fn send(self, served: &Arc<dyn Port<M>>) -> bool {
        let Self { shadow, port, msg, meta, comparing } = self;
        let tally = Tally { counts: Some(Arc::clone(&shadow.counts)), backend: shadow.routes.name.clone() };
        let Some(comparing) = comparing else {
            return send(port, msg, meta, move |result| tally.count(result));
        };
        let Comparing { keep, again, halves, .. } = *comparing;
        if let (Some(msg), Some(mut half)) = (again, halves.again) {
            half.sent();
            send(served, msg, meta.clone(), move |result| half.bring(result, keep));
        }
        let mut half = halves.shadow;
        half.iter_mut().for_each(Half::sent);
        send(port, msg, meta, move |result| {
            tally.count(result);
            if let Some(half) = half {
                half.bring(result, keep);
            }
        })
    }
}

impl<'a, M: Request> Comparing<'a, M> {
    fn of(
        comparison: &'a Arc<Comparison>,
        copying: Copying<M>,
        served: &'a Arc<BackendRoutes>,
        msg: &M,
        missed: &mut SmallVec<[Missed<'a>; 2]>,
    ) -> Option<Self> {
        let Some(keep) = copying.answer else {
            missed.push(Missed::Comparison(comparison, Against::Shadow, Outcome::Skipped));
            return None;
        };
        let share = comparison.compare.noise_floor_share();
        let again = if share > 0.0 && with_rng(|rng| rng.random::<f64>()) < share {
            let copy = guarded(|| (copying.message)(msg)).ok();
            if copy.is_none() {
                missed.push(Missed::Comparison(comparison, Against::Itself, Outcome::Failed));
            }
            copy
        } else {
            None
        };
        Some(Self { comparison, keep, served, since: Instant::now(), again, halves: Halves::default() })
    }

    fn pair(&mut self, request_id: &RequestId, shadow: &BackendName, watch: &mut Watch<M::Response>) {
        let mut pair = |against| {
            let between = match against {
                Against::Shadow => [&self.served.name, shadow],
                Against::Itself => [&self.served.name; 2],
            };
            let (primary, other) = pairing(self.comparison, against, request_id, between, self.since);
            watch.0.push((primary, self.keep));
            other
        };
        self.halves = Halves {
            shadow: Some(pair(Against::Shadow)),
            again: self.again.is_some().then(|| pair(Against::Itself)),
        };
    }
}

/// Sends a copy off, and tells whether it was taken; `ended` sees its answer or refusal, or is dropped with it.
fn send<M: Request>(
    port: &Arc<dyn Port<M>>,
    msg: M,
    meta: Meta,
    ended: impl FnOnce(&Result<M::Response, ServeError>) + Send + 'static,
) -> bool {
    let reply = Reply::nobody().map(move |result: Result<M::Response, ServeError>| {
        ended(&result);
        result.map(drop)
    });
    match port.deliver(Call { msg, meta, reply }, false) {
        Ok(()) => true,
        Err(Refusal { reply, why, msg, .. }) => {
            reply.map(|reply| reply.send(Err(why)));
            drop_guarded(msg);
            false
        }
    }
}

/// Counts the end of one copy; one that is lost without an answer has failed.
struct Tally {
    counts: Option<Arc<ShadowCounts>>,
    /// The backend that the copy was for.
    backend: BackendName,
}

impl Tally {
    fn count<R>(mut self, result: &Result<R, ServeError>) {
        let Some(counts) = self.counts.take() else { return };
        match result {
            Ok(_) => counts.answered.add(),
            Err(why) if why.refused_by(&self.backend) => counts.dropped.add(),
            Err(_) => counts.failed.add(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(counts) = self.counts.take() {
            counts.failed.add();
        }
    }
}
