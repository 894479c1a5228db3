//! Traffic: splits, changes under load, session affinity, shadow traffic, explanations, and every refusal.

mod changes;
mod explained;
mod keys;
mod refusals;
mod shadows;
mod splits;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use greenroom::{Backend, BackendConfig, FnBackend, Serve, ServeError, ServeOptions};

/// Asks who answers.
#[derive(actix::Message, Clone, serde::Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Who {}

/// A Serve on the test's thread, whose time may be paused.
pub async fn here() -> Serve {
    Serve::start(ServeOptions::default().current_thread()).await.unwrap()
}

/// Answers with its own name and counts how often it was asked.
pub fn named(
    name: &'static str,
) -> (
    Backend<FnBackend<Who, impl Fn(Who) -> std::future::Ready<Result<String, ServeError>> + Clone>>,
    Arc<AtomicU64>,
) {
    let asked = Arc::<AtomicU64>::default();
    let count = Arc::clone(&asked);
    let answer = move |_: Who| {
        count.fetch_add(1, Relaxed);
        std::future::ready(Ok(name.to_owned()))
    };
    (Backend::from_fn(answer).json::<Who>().shadows::<Who>(), asked)
}

/// Makes a backend of each name and gives their counters.
pub async fn backends(serve: &Serve, names: &[&'static str]) -> Vec<Arc<AtomicU64>> {
    let mut counts = Vec::new();
    for name in names {
        let (backend, count) = named(name);
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
        counts.push(count);
    }
    counts
}

pub fn read(counts: &[Arc<AtomicU64>]) -> Vec<u64> {
    counts.iter().map(|count| count.load(Relaxed)).collect()
}
