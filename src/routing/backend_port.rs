//! All replicas of one backend as one port for a message type.

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
    meta::{Meta, thread_token, with_rng},
    metrics::registry::Outside,
    port::Port,
    routing::waiting_room::{TurnedAway, WaitingRoom},
    traffic::{balance, rendezvous},
};

/// How often a call follows changes of the replicas that overtake it.
const FOLLOWS_MAX: usize = 3;

/// The replicas that take calls for `M` now, and those of each thread.
struct Replicas<M: Request> {
    ports: Vec<Arc<dyn Port<M>>>,
    /// Which replica each port leads to.
    ids: Vec<ReplicaId>,
    by_thread: Vec<(u64, Vec<usize>)>,
}

impl<M: Request> Replicas<M> {
    fn new(replicas: impl Iterator<Item = (ReplicaId, Arc<dyn Port<M>>)>) -> Self {
        let (ids, ports): (Vec<_>, Vec<_>) = replicas.unzip();
        let mut by_thread: Vec<(u64, Vec<usize>)> = Vec::new();
        for (i, port) in ports.iter().enumerate() {
            let thread = port.thread();
            match by_thread.iter_mut().find(|(t, _)| *t == thread) {
                Some((_, indices)) => indices.push(i),
                None => by_thread.push((thread, vec![i])),
            }
        }
        Self { ports, ids, by_thread }
    }

    fn pick(&self, meta: &Meta) -> usize {
        let n = self.ports.len();
        if n == 1 {
            return 0;
        }
        if meta.keeps_replica
            && let Some(key) = &meta.shard_key
        {
            // By slots, which outlive their replicas.
            let slots = self.ids.iter().map(|id| (u64::from(id.slot) + 1, 1.0));
            return rendezvous::pick(key.hash(), slots).unwrap_or(0);
        }
        let thread = thread_token();
        let here = self.by_thread.iter().find(|(t, _)| *t == thread).map_or(&[][..], |(_, i)| i);
        if let [only] = here
            && self.ports[*only].load() < self.ports[*only].concurrency()
        {
            return *only;
        }
        with_rng(|rng| {
            let load = |i: usize| self.ports[i].load();
            balance::pick(n, here, rng, load, |i| self.ports[i].concurrency())
        })
    }
}

impl<M: Request> Replicas<M> {
    /// Writes down for whoever asked that the `i`th takes the call, unless it refuses.
    #[inline]
    fn explain(&self, meta: &Meta, i: usize) {
        if let Some(explain) = &meta.explain {
            explain.note(|e| {
                e.backend = Some(self.ids[i].backend.clone());
                e.replica = Some(self.ids[i].clone());
            });
        }
    }

    /// Asks one replica after the other, the fittest first.
    fn deliver(&self, call: Call<M>, admitted: bool) -> Result<(), Refusal<M>> {
        let n = self.ports.len();
        let first = self.pick(&call.meta);
        self.explain(&call.meta, first);
        let mut last = match self.ports[first].deliver(call, admitted) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        for i in (1..n).map(|k| (first + k) % n) {
            let Refusal { msg, meta, reply: Some(reply), why } = last else { return Err(last) };
            self.explain(&meta, i);
            last = match self.ports[i].deliver(Call { msg, meta, reply }, admitted) {
                Ok(()) => return Ok(()),
                Err(refusal) => Refusal { why: worse(why, refusal.why), ..refusal },
            };
        }
        Err(last)
    }

    /// The same, and answers on the spot where it can.
    #[inline]
    fn call(&self, msg: M, meta: Meta) -> Answer<M> {
        let n = self.ports.len();
        let first = self.pick(&meta);
        self.explain(&meta, first);
        let mut answer = self.ports[first].call(msg, meta);
        for i in (1..n).map(|k| (first + k) % n) {
            let Answer::Refused(Refusal { msg, meta, why, .. }) = answer else { break };
            self.explain(&meta, i);
            answer = match self.ports[i].call(msg, meta) {
                Answer::Refused(refusal) => {
                    Answer::Refused(Refusal { why: worse(why, refusal.why), ..refusal })
                }
                taken => taken,
            };
        }
        answer
    }

    /// Every one refused.
    #[cold]
    fn none_took(meta: &Meta) {
        if let Some(explain) = &meta.explain {
            explain.note(|e| e.replica = None);
        }
    }
}

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
        if timeout > 0 {
            meta.tighten(Instant::now() + Duration::from_nanos(timeout));
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

/// Of two refusals the one that tells more: a full gate says "later", a stopped replica says nothing.
/// The limits of several full gates add up to the backend's.
fn worse(a: ServeError, b: ServeError) -> ServeError {
    match (a, b) {
        (ServeError::Overloaded { backend, limit: a }, ServeError::Overloaded { limit: b, .. }) => {
            ServeError::Overloaded { backend, limit: a + b }
        }
        (a @ ServeError::Overloaded { .. }, _) => a,
        (_, b) => b,
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
