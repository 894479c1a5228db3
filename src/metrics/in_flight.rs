//! How many of something are under way, counted by many threads.

use std::sync::Arc;

use crate::metrics::spread::Spread;

/// How many of something are under way, without a cache line that all threads fight for.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    begun: Spread,
    ended: Spread,
}

/// One of them; it ends on drop.
#[derive(Debug)]
pub(crate) struct Underway(Arc<InFlight>);

impl InFlight {
    /// One more begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Underway {
        self.begun.add();
        Underway(Arc::clone(self))
    }

    /// Whether none is under way. Those that begin meanwhile may be missed, those that have begun are not.
    pub(crate) fn is_empty(&self) -> bool {
        // In this order: what ends in between only makes it look busier.
        let ended = self.ended.total();
        self.begun.total() <= ended
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.add();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_empty_when_all_have_ended() {
        let in_flight = Arc::new(InFlight::default());
        let (one, two) = (in_flight.begin(), in_flight.begin());
        drop(one);
        assert!(!in_flight.is_empty());
        std::thread::spawn(move || drop(two)).join().unwrap();
        assert!(in_flight.is_empty());
    }
}
