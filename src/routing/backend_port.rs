//! All replicas of one backend as one port for a message type.

mod replicas;

use std::{
    any::{Any, TypeId},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::{
    call::{Answer, Call, Deadline, Refusal, Reply, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    ids::{BackendName, ReplicaId},
    meta::Meta,
    metrics::registry::Outside,
    port::Port,
    routing::waiting_room::{TurnedAway, WaitingRoom},
};

use replicas::Replicas;

/// How often a call follows changes of the replicas that overtake it.
const FOLLOWS_MAX: usize = 3;

/// All replicas of one backend for messages `M`.
pub(crate) struct BackendPort<M: Request> {
    backend: BackendName,
    replicas: ArcSwap<Replicas<M>>,
    /// Longest time for one request, in nanoseconds; 0: no limit.
    timeout_ns: AtomicU64,
    /// Whether its replicas have gone because everything goes.
    closed: AtomicBool,
    /// Open while its last replica is replaced.
    room: WaitingRoom<M>,
    outside: Outside,
}

impl<M: Request> BackendPort<M> {
    pub(crate) fn new(backend: BackendName, outside: Outside) -> Self {
        Self {
            outside,
            backend,
            replicas: ArcSwap::from_pointee(Replicas::new(std::iter::empty())),
            timeout_ns: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            room: WaitingRoom::default(),
        }
    }

    fn tighten(&self, meta: &mut Meta) {
        let timeout = self.timeout_ns.load(Ordering::Relaxed);
        // What a caller handed on of its own is not this backend's.
        meta.own_timeout = false;
        if timeout > 0 {
            meta.limit(Instant::now() + Duration::from_nanos(timeout));
        }
    }

    fn count(&self, why: &ServeError) {
        if matches!(why, ServeError::Overloaded { .. }) {
            self.outside.refused.add();
        }
    }

    fn none(&self) -> ServeError {
        if self.closed.load(Ordering::Relaxed) {
            return ServeError::ShuttingDown;
        }
        ServeError::NoReplica { backend: self.backend.clone(), why: "none is ready".into() }
    }

    /// Whether other replicas have taken the place of `set`, all of which were gone for a call that came late.
    fn moved(&self, set: &Arc<Replicas<M>>, why: &ServeError) -> bool {
        matches!(why, ServeError::NoReplica { .. }) && !Arc::ptr_eq(set, &self.replicas.load())
    }

    /// There is no replica: the call waits for the next, if that is awaited.
    #[cold]
    fn wait(&self, call: Call<M>, admitted: bool) -> Result<(), Refusal<M>> {
        self.room.enter(call, admitted).map_err(|(call, why)| match why {
            TurnedAway::Closed => Refusal::of(call, self.none()),
            TurnedAway::Full { seats } => {
                Refusal::of(call, ServeError::Overloaded { backend: self.backend.clone(), limit: seats })
            }
        })
    }

    /// Nobody has to wait any longer: calls that did go to the replicas that there are.
    fn let_go(&self) {
        for call in self.room.close() {
            // A message whose drop panics must not take its neighbours along.
            let _ = guarded(|| {
                if let Err(Refusal { reply: Some(reply), why, .. }) = self.deliver(call, true) {
                    reply.send(Err(why));
                }
            });
        }
    }

    /// Ends calls that wait and whose deadlines nobody else keeps; lets go of those whose callers have left.
    fn end_overdue(&self) {
        for call in self.room.overdue(Instant::now()) {
            if call.reply.is_closed() {
                drop_guarded(call);
            } else if call.expire() {
                self.outside.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl<M: Request> Port<M> for BackendPort<M> {
    fn deliver(&self, mut call: Call<M>, admitted: bool) -> Result<(), Refusal<M>> {
        if !admitted {
            self.tighten(&mut call.meta);
        }
        let mut follows = 0;
        loop {
            let set = self.replicas.load();
            let none = set.ports.is_empty();
            let delivered = if none { self.wait(call, admitted) } else { set.deliver(call, admitted) };
            let refusal = match delivered {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            match refusal {
                Refusal { msg, meta, reply: Some(reply), why }
                    if follows < FOLLOWS_MAX && self.moved(&set, &why) =>
                {
                    follows += 1;
                    call = Call { msg, meta, reply };
                }
                refusal => {
                    self.count(&refusal.why);
                    Replicas::<M>::none_took(&refusal.meta);
                    return Err(refusal);
                }
            }
        }
    }

    fn call(&self, mut msg: M, mut meta: Meta) -> Answer<M> {
        self.tighten(&mut meta);
        let deadline = meta.deadline;
        let mut follows = 0;
        let mut answer = loop {
            let set = self.replicas.load();
            let answer = if set.ports.is_empty() {
                let (reply, waiting) = Reply::channel();
                match self.wait(Call { msg, meta, reply }, false) {
                    Ok(()) => Answer::Waiting(waiting),
                    Err(refusal) => Answer::Refused(Refusal { reply: None, ..refusal }),
                }
            } else {
                set.call(msg, meta)
            };
            match answer {
                Answer::Refused(refusal) if follows < FOLLOWS_MAX && self.moved(&set, &refusal.why) => {
                    follows += 1;
                    (msg, meta) = (refusal.msg, refusal.meta);
                }
                answer => break answer,
            }
        };
        match &mut answer {
            Answer::Waiting(waiting) => {
                let missed = || Arc::clone(&self.outside.missed);
                waiting.deadline = deadline.map(|at| Deadline { at, missed: missed() });
            }
            Answer::Refused(refusal) => {
                self.count(&refusal.why);
                Replicas::<M>::none_took(&refusal.meta);
            }
            Answer::Now(_) => {}
        }
        answer
    }

    fn load(&self) -> usize {
        self.replicas.load().ports.iter().fold(0, |sum, port| sum.saturating_add(port.load()))
    }

    fn concurrency(&self) -> usize {
        self.replicas.load().ports.iter().map(|port| port.concurrency()).sum()
    }

    fn thread(&self) -> u64 {
        0
    }
}

/// The ports of one replica, one a message type, types erased.
pub(crate) type ReplicaPorts = Vec<(TypeId, Box<dyn Any + Send + Sync>)>;

/// A replica that takes calls, and its ports.
pub(crate) type PublishedReplica = (ReplicaId, Arc<ReplicaPorts>);

/// A [`BackendPort`] whose message type is erased.
pub(crate) trait AnyBackendPort: Send + Sync {
    /// The message type and its name.
    fn message(&self) -> (TypeId, &'static str);
    /// Makes these the replicas that take calls, at once and for everybody.
    fn publish(&self, replicas: &[PublishedReplica]);
    /// Everything goes: there are no replicas any more, and whoever asks for one is told why.
    fn close(&self);
    /// Longest time for one request.
    fn set_timeout(&self, timeout: Option<Duration>);
    /// While there is no replica, calls wait for one, at most so many.
    fn hold(&self, seats: usize);
    /// They wait no longer: what waits goes to the replicas that there are, or is told that there are none.
    fn let_go(&self);
    /// Ends those that wait and whose deadline nobody else keeps.
    fn end_overdue(&self);
    /// Calls that wait.
    fn waiting(&self) -> usize;
    /// The `Arc<dyn Port<M>>` of this.
    fn erased(&self) -> &(dyn Any + Send + Sync);
}

/// A [`BackendPort`] beside itself as `Arc<dyn Port<M>>`.
pub(crate) struct Shared<M: Request> {
    port: Arc<BackendPort<M>>,
    erased: Arc<dyn Port<M>>,
}

impl<M: Request> Shared<M> {
    pub(crate) fn new(backend: BackendName, outside: Outside) -> Self {
        let port = Arc::new(BackendPort::new(backend, outside));
        Self { erased: Arc::clone(&port) as Arc<dyn Port<M>>, port }
    }
}

impl<M: Request> AnyBackendPort for Shared<M> {
    fn message(&self) -> (TypeId, &'static str) {
        (TypeId::of::<M>(), std::any::type_name::<M>())
    }

    fn publish(&self, replicas: &[PublishedReplica]) {
        let ports = replicas.iter().flat_map(|(id, ports)| ports.iter().map(move |(_, port)| (id, port)));
        let ours = ports.filter_map(|(id, port)| {
            port.downcast_ref::<Arc<dyn Port<M>>>().map(|port| (id.clone(), Arc::clone(port)))
        });
        self.port.replicas.store(Arc::new(Replicas::new(ours)));
    }

    fn close(&self) {
        self.port.closed.store(true, Ordering::Relaxed);
        self.publish(&[]);
        // Whoever still works on the replicas does not open it again.
        self.port.room.end();
    }

    fn set_timeout(&self, timeout: Option<Duration>) {
        let nanos = timeout.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        self.port.timeout_ns.store(nanos, Ordering::Relaxed);
    }

    fn hold(&self, seats: usize) {
        self.port.room.open(seats);
    }

    fn let_go(&self) {
        self.port.let_go();
    }

    fn end_overdue(&self) {
        self.port.end_overdue();
    }

    fn waiting(&self) -> usize {
        self.port.room.waiting()
    }

    fn erased(&self) -> &(dyn Any + Send + Sync) {
        &self.erased
    }
}

#[cfg(test)]
mod tests;
