//! What several areas share: quiet panics, reading a metric, bounded waiting for something to be seen.

use std::{
    panic,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use greenroom::{Capacity, Serve, ServeOptions};
use tokio::sync::Semaphore;

/// With this text a panic is meant and printed nowhere.
pub const MEANT: &str = "meant to panic";

/// Options of a Serve with threads of its own that counts no CPUs: what it tests does not hang on this machine's.
pub fn uncounted() -> ServeOptions {
    ServeOptions::default().capacity(Capacity::unlimited())
}

/// Keeps panics that are meant out of the output; every other is printed as usual.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let meant = info.payload_as_str().is_some_and(|text| text.contains(MEANT));
            if !meant && info.payload_as_str() != Some("told to crash") {
                usual(info);
            }
        }));
    });
}

/// A metric with the labels, `backend="a",replica="0"`, that it is printed with; 0 when it is not there.
pub fn metric(serve: &Serve, name: &str, labels: &str) -> u64 {
    let start = format!("{name}{{{labels}}} ");
    let text = serve.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

/// Waits until `seen`; fails after ten seconds, naming what never came.
pub async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if seen() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it was never seen: {what}");
}

/// Holds handlers back until told, and counts those that began.
#[derive(Clone)]
pub struct Barrier {
    open: Arc<Semaphore>,
    began: Arc<AtomicU64>,
    inside: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Barrier {
    pub fn new() -> Self {
        Self {
            open: Arc::new(Semaphore::new(0)),
            began: Arc::default(),
            inside: Arc::default(),
            most: Arc::default(),
        }
    }

    /// Waits to be let through; counted as inside until then, or until dropped.
    pub fn pass(&self) -> impl Future<Output = ()> + use<> {
        let (open, inside) = (Arc::clone(&self.open), Inside(Arc::clone(&self.inside)));
        self.began.fetch_add(1, SeqCst);
        self.most.fetch_max(self.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        async move {
            let _inside = inside;
            open.acquire().await.unwrap().forget();
        }
    }

    /// Lets `n` more through.
    pub fn release(&self, n: usize) {
        self.open.add_permits(n);
    }

    /// How many came so far.
    pub fn began(&self) -> u64 {
        self.began.load(SeqCst)
    }

    /// How many are waiting in it now.
    pub fn inside(&self) -> u64 {
        self.inside.load(SeqCst)
    }

    /// The most that ever waited in it at once.
    pub fn most(&self) -> u64 {
        self.most.load(SeqCst)
    }
}

struct Inside(Arc<AtomicU64>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
