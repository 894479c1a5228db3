//! All endpoints of one Serve by name, and whether it still takes calls.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{ids::EndpointName, metrics::cells::ReplicaCells, routing::endpoint::EndpointSlot};

/// All endpoints of one Serve by name, and whether it still takes calls.
#[derive(Default)]
pub(crate) struct Directory {
    slots: RwLock<HashMap<EndpointName, Arc<EndpointSlot>>>,
    closing: AtomicBool,
    preparing: AtomicBool,
    timers: std::sync::OnceLock<tokio::runtime::Handle>,
    own_actors: Mutex<BTreeMap<&'static str, Arc<ReplicaCells>>>,
}

impl Directory {
    /// The slot of a name, made when it is new: an endpoint may appear after its handles.
    pub(crate) fn slot(&self, name: &EndpointName) -> Arc<EndpointSlot> {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(name.clone()).or_insert_with(|| Arc::new(EndpointSlot::new(name.clone()))))
    }

    /// The slot of a name that somebody has made.
    pub(crate) fn find(&self, name: &EndpointName) -> Option<Arc<EndpointSlot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
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

    /// Makes a timer that works in any executor: without a runtime of the caller's own, the Serve's drives it.
    pub(crate) fn timed<T>(&self, make: impl FnOnce() -> T) -> T {
        let own = tokio::runtime::Handle::try_current().is_err().then(|| self.timers.get()).flatten();
        let _entered = own.map(tokio::runtime::Handle::enter);
        make()
    }
}
