//! The replicas of one backend that take a message type now, and the choice among them.

use std::sync::Arc;

use crate::{
    call::{Answer, Call, Refusal, Request},
    error::ServeError,
    ids::ReplicaId,
    meta::{Meta, thread_token, with_rng},
    port::Port,
    traffic::{balance, rendezvous},
};

/// The replicas that take calls for `M` now, and those of each thread.
pub(super) struct Replicas<M: Request> {
    pub(super) ports: Vec<Arc<dyn Port<M>>>,
    /// Which replica each port leads to.
    ids: Vec<ReplicaId>,
    by_thread: Vec<(u64, Vec<usize>)>,
}

impl<M: Request> Replicas<M> {
    pub(super) fn new(replicas: impl Iterator<Item = (ReplicaId, Arc<dyn Port<M>>)>) -> Self {
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
    pub(super) fn deliver(&self, call: Call<M>, admitted: bool) -> Result<(), Refusal<M>> {
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
    pub(super) fn call(&self, msg: M, meta: Meta) -> Answer<M> {
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
    pub(super) fn none_took(meta: &Meta) {
        if let Some(explain) = &meta.explain {
            explain.note(|e| e.replica = None);
        }
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
