//! A counter for many threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::meta::thread_token;

/// A counter spread over a few cache lines, so that threads do not fight for one.
#[derive(Debug, Default)]
pub(crate) struct Spread([Line; 8]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Spread {
    #[inline]
    pub(crate) fn add(&self) {
        let line = usize::try_from(thread_token() % 8).unwrap_or(0);
        self.0[line].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }
}
