//! All endpoints of one Serve by name, and whether it still takes calls.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    error::ServeError, ids::EndpointName, metrics::cells::ReplicaCells, routing::endpoint::EndpointSlot,
};

/// A timer for one call.
pub(crate) enum Alarm {
    /// Of the caller's own runtime.
    Own(Pin<Box<Sleep>>),
    /// Kept by this Serve's runtime for a caller that has none. Not a timer of that runtime: polled by somebody
    /// else after its end, such a one panics.
    Lent(oneshot::Receiver<()>),
}

impl Alarm {
    /// Ready at the time it was set for; an error: whoever kept it is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        match self {
            Self::Own(sleep) => sleep.as_mut().poll(cx).map(Ok),
            Self::Lent(ringing) => Pin::new(ringing).poll(cx).map_err(|_| ServeError::ShuttingDown),
        }
    }
}

/// All endpoints of one Serve by name, and whether it still takes calls.
#[derive(Default)]
pub(crate) struct Directory {
    slots: RwLock<Slots>,
    closing: AtomicBool,
    preparing: AtomicBool,
    timers: std::sync::OnceLock<tokio::runtime::Handle>,
    own_actors: Mutex<BTreeMap<&'static str, Arc<ReplicaCells>>>,
}

/// The slots by name.
#[derive(Default)]
struct Slots {
    all: HashMap<EndpointName, Arc<EndpointSlot>>,
    /// How many there may be before those that nobody holds go.
    full: usize,
}

/// Slots that are kept without looking whether somebody holds them.
const SLOTS_KEPT: usize = 64;

impl Slots {
    /// Takes out what is no endpoint and is held by no handle: names that somebody only asked for. Only once
    /// there are twice as many as were in use the last time, so that it costs little for each.
    fn sweep(&mut self) {
        if self.all.len() < self.full.max(SLOTS_KEPT) {
            return;
        }
        // A slot that only this map holds cannot be had by anybody else while the map is locked.
        self.all.retain(|_, slot| slot.exists() || Arc::strong_count(slot) > 1);
        self.full = 2 * self.all.len();
    }
}

impl Directory {
    /// The slot of a name, made when it is new: an endpoint may appear after its handles.
    pub(crate) fn slot(&self, name: &EndpointName) -> Arc<EndpointSlot> {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.sweep();
        Arc::clone(slots.all.entry(name.clone()).or_insert_with(|| Arc::new(EndpointSlot::new(name.clone()))))
    }

    /// The slot of a name that somebody has made.
    pub(crate) fn find(&self, name: &EndpointName) -> Option<Arc<EndpointSlot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).all.get(name).cloned()
    }

    /// Whether what shall be served is still being made, so that nobody is told that all is ready.
    pub(crate) fn set_preparing(&self, preparing: bool) {
        self.preparing.store(preparing, Ordering::Release);
    }

    pub(crate) fn preparing(&self) -> bool {
        self.preparing.load(Ordering::Acquire)
    }

    /// From now on calls that are not part of a running request are refused.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// What all of our own actors of one kind count together.
    pub(crate) fn own_actors(&self, kind: &'static str) -> Arc<ReplicaCells> {
        let mut own = self.own_actors.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(own.entry(kind).or_default())
    }

    /// Restarts of our own actors, by kind.
    pub(crate) fn own_restarts(&self) -> Vec<(&'static str, u64)> {
        let own = self.own_actors.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().map(|(kind, cells)| (*kind, cells.restarts.get())).collect()
    }

    /// The runtime whose timers serve callers that have none of their own.
    pub(crate) fn set_timers(&self, runtime: tokio::runtime::Handle) {
        let _ = self.timers.set(runtime);
    }

    /// Runs a task on this Serve's own runtime, whoever asks for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(timers) = self.timers.get() {
            drop(timers.spawn(task));
        }
    }

    /// Ready at `at` in any executor.
    pub(crate) fn alarm(&self, at: Instant) -> Alarm {
        match self.timers.get() {
            Some(timers) if tokio::runtime::Handle::try_current().is_err() => {
                let (mut rings, ringing) = oneshot::channel();
                drop(timers.spawn(async move {
                    tokio::select! {
                        () = sleep_until(at) => drop(rings.send(())),
                        // Its caller has its answer.
                        () = rings.closed() => {}
                    }
                }));
                Alarm::Lent(ringing)
            }
            _ => Alarm::Own(Box::pin(sleep_until(at))),
        }
    }

    /// Makes a timer that works in any executor: without a runtime of the caller's own, the Serve's drives it.
    pub(crate) fn timed<T>(&self, make: impl FnOnce() -> T) -> T {
        let own = tokio::runtime::Handle::try_current().is_err().then(|| self.timers.get()).flatten();
        let _entered = own.map(tokio::runtime::Handle::enter);
        make()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: usize) -> EndpointName {
        EndpointName::new(format!("e{i}")).unwrap()
    }

    #[test]
    fn names_that_were_only_asked_for_do_not_pile_up_and_those_that_are_held_stay() {
        let directory = Directory::default();
        let held: Vec<_> = (0..100).map(|i| directory.slot(&name(i))).collect();
        for i in 100..10_000 {
            drop(directory.slot(&name(i)));
        }
        let slots = directory.slots.read().unwrap().all.len();
        assert!(slots <= 2 * held.len() + 1, "{slots} slots for {} that are held", held.len());
        assert!(held.iter().all(|slot| Arc::ptr_eq(slot, &directory.slot(&slot.name))));
    }
}
