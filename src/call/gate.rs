//! `Gate`: how many calls may run or wait at a replica; `Permit`: the place of one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

/// One slot of concurrency, given back on drop.
#[derive(Debug)]
pub struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Counts the calls that run or wait at one replica and refuses those over its limit.
#[derive(Debug)]
pub struct Gate {
    load: AtomicUsize,
    limit: AtomicUsize,
    closing: AtomicBool,
    emptied: AtomicWaker,
    /// Whether whoever is behind it has no state now and only lets calls wait.
    idle: AtomicBool,
}

impl Gate {
    /// A gate that lets `limit` calls in.
    pub fn new(limit: usize) -> Self {
        Self {
            load: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            closing: AtomicBool::new(false),
            emptied: AtomicWaker::new(),
            idle: AtomicBool::new(false),
        }
    }

    /// Calls inside now.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Whether whoever is behind it has no state now.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// How much there is to wait for: the load, and endless while nothing is worked off.
    #[inline]
    pub(crate) fn burden(&self) -> usize {
        if self.is_idle() { usize::MAX } else { self.load() }
    }

    /// Calls it lets in.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit; calls inside stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Lets one more in, unless full. Whoever got `true` calls [`leave`](Self::leave).
    #[inline]
    pub(crate) fn enter(&self) -> bool {
        let inside = self.load.fetch_add(1, Ordering::Relaxed);
        if inside < self.limit() {
            return true;
        }
        self.leave();
        false
    }

    #[inline]
    pub(crate) fn leave(&self) {
        // With a drain's flag and waker: whoever leaves last sees the flag or is seen by the drain.
        if self.load.fetch_sub(1, Ordering::SeqCst) == 1 && self.closing.load(Ordering::SeqCst) {
            self.emptied.wake();
        }
    }

    /// Whether nobody is inside; if somebody is, `waker` is woken when the last one leaves.
    pub(crate) fn emptied(&self, waker: &Waker) -> bool {
        self.emptied.register(waker);
        self.closing.store(true, Ordering::SeqCst);
        self.load.load(Ordering::SeqCst) == 0
    }

    /// A permit, unless full.
    pub fn permit(self: &Arc<Self>) -> Option<Permit> {
        self.enter().then(|| Permit(Arc::clone(self)))
    }

    /// The permit of somebody who has [entered](Self::enter).
    pub(crate) fn entered(self: &Arc<Self>) -> Permit {
        Permit(Arc::clone(self))
    }

    /// A permit past the limit, for a call that was admitted elsewhere and must not be lost.
    pub(crate) fn permit_anyway(self: &Arc<Self>) -> Permit {
        self.load.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_counts_exactly() {
        let gate = Arc::new(Gate::new(2));
        let (a, b) = (gate.permit(), gate.permit());
        assert!(a.is_some() && b.is_some() && gate.permit().is_none());
        assert_eq!(gate.load(), 2, "a refusal leaves no trace");
        let extra = gate.permit_anyway();
        drop((a, b));
        assert_eq!(gate.load(), 1);
        drop(extra);
        assert_eq!(gate.load(), 0);
    }
}
