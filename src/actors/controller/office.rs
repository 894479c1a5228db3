//! `Office`: what the Controller works with, and others look at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    actors::{
        controller::Memory,
        fleet::{BackendEntry, Fleet},
        gpus::Gpus,
        threads::Threads,
        timer::TimerKind,
    },
    comparison::comparer::Comparer,
    ids::BackendName,
    metrics::{Aside, Metrics, in_flight::InFlight},
    routing::{directory::Directory, models::Models, routes::Routes},
};

/// What the Controller works with; outlives its state.
pub(crate) struct Office {
    pub(crate) fleet: Mutex<Fleet>,
    /// What it was told. Whoever holds it does not ask for the fleet.
    pub(crate) memory: Mutex<Memory>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) models: Arc<Models>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) metrics: Arc<Metrics>,
    /// Compares the answers of shadow backends.
    pub(crate) comparer: Arc<Comparer>,
    /// HTTP requests whose bodies are read or whose answers are made.
    pub(crate) exchanges: Arc<InFlight>,
    pub(crate) gpus: Arc<Gpus>,
    pub(crate) timer: TimerKind,
    /// Everything shares the thread that there is, whose time a test may have paused.
    pub(crate) one_thread: bool,
}

impl Office {
    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics as Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        let waiting = |(name, entry): (&BackendName, &BackendEntry)| (name.clone(), entry.routes.waiting());
        let waiting: Vec<_> = self.fleet().backends.iter().map(waiting).collect();
        self.gpus.render(&self.metrics, &Aside { own_restarts: self.directory.own_restarts(), waiting })
    }
}
