//! The thread that compares, one a Serve, and the bounded queue before it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{HELD_BYTES_MAX, judge::Pair};
use crate::{error::ServeError, guard::drop_guarded};

/// Most pairs that wait to be compared.
const QUEUED_PAIRS_MAX: usize = 1024;

/// The thread that compares and the queue before it. Whoever brings a pair never waits.
#[derive(Default)]
pub(crate) struct Comparer {
    queue: Mutex<Queue>,
    filled: Condvar,
    held_bytes: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    pairs: VecDeque<Pair>,
    phase: Phase,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Nobody compares yet.
    #[default]
    Idle,
    Running,
    /// Nobody compares any more.
    Closed,
}

impl Comparer {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, unless it runs.
    ///
    /// # Errors
    /// [`ServeError::Internal`] when the system gives none.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), ServeError> {
        let mut queue = self.lock();
        if queue.phase == Phase::Idle {
            let comparer = Arc::clone(self);
            // Nobody waits for its end, which code of the user's may put off.
            thread::Builder::new().name("greenroom-compare".into()).spawn(move || comparer.run()).map_err(
                |e| ServeError::Internal(format!("the thread that compares did not start: {e}").into()),
            )?;
            queue.phase = Phase::Running;
        }
        Ok(())
    }

    /// Ends the thread as soon as it has compared what it is at; what waits is given up.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut queue = self.lock();
            queue.phase = Phase::Closed;
            std::mem::take(&mut queue.pairs)
        };
        self.filled.notify_all();
        waiting.into_iter().for_each(drop_guarded);
    }

    /// Queues a pair; back it comes when too many wait.
    pub(super) fn push(&self, pair: Pair) -> Result<(), Pair> {
        let mut queue = self.lock();
        if queue.phase == Phase::Closed || queue.pairs.len() >= QUEUED_PAIRS_MAX {
            return Err(pair);
        }
        queue.pairs.push_back(pair);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Room for an answer of this size until it has been compared, if there is.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let held = Held { comparer: Arc::clone(self), bytes };
        let before = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= HELD_BYTES_MAX).then_some(held)
    }

    fn run(&self) {
        while let Some(pair) = self.next() {
            pair.judge();
        }
    }

    fn next(&self) -> Option<Pair> {
        let mut queue = self.lock();
        loop {
            if queue.phase == Phase::Closed {
                return None;
            }
            if let Some(pair) = queue.pairs.pop_front() {
                return Some(pair);
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// So many bytes of an answer are held; given back on drop.
pub(crate) struct Held {
    comparer: Arc<Comparer>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.comparer.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_up_to_the_limit_and_given_back() {
        let comparer = Arc::new(Comparer::default());
        let most = comparer.hold(HELD_BYTES_MAX - 1).unwrap();
        let last = comparer.hold(1).unwrap();
        assert!(comparer.hold(1).is_none(), "one byte too many");
        drop(last);
        assert!(comparer.hold(1).is_some(), "what was refused left no trace");
        drop(most);
        assert_eq!(comparer.held_bytes.load(Ordering::Relaxed), 0);
    }
}
