//! Whose turn it is to change things: one deploy at a time, or changes by hand; and how far the deploy is.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard},
    time::Instant,
};

use crate::{
    actors::{controller::Office, fleet::ReplicaEntry, reconcile::ReplicaState},
    error::ServeError,
    ids::BackendName,
};

/// The deploy under way, if any, and who may change things.
#[derive(Default)]
pub(crate) struct Deploys {
    under_way: Mutex<Option<Ongoing>>,
    /// Deploys that were begun so far.
    begun: AtomicU64,
    /// Changes by hand read, a deploy writes.
    changes: Arc<RwLock<()>>,
}

/// What is known of the deploy under way.
struct Ongoing {
    number: u64,
    by: String,
    since: Instant,
    state: DeployState,
    done: usize,
    all: usize,
    waits_for: Option<String>,
    /// The backend that it waits for.
    backend: Option<BackendName>,
}

/// How far a deploy is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Which deploy of this Serve it is, counted from 1; those that fail too.
    pub number: u64,
    /// Who or what asked for it.
    pub by: String,
    /// What it is about.
    pub state: DeployState,
    /// Steps that are done.
    pub done: usize,
    /// All steps.
    pub all: usize,
    /// What it waits for: `digits: 1 of 2 replicas ready`, or why it is pending.
    pub waits_for: Option<String>,
    /// Seconds since it was asked for.
    pub for_s: f64,
}

/// What a deploy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeployState {
    /// It is checked, and waits for changes by hand that are under way.
    Preparing,
    /// It waits for resources; nothing has changed yet.
    Pending,
    /// Its steps are taken.
    Applying,
    /// A step has failed, or the time is over: what was done is taken back.
    TakingBack,
}

/// The right to deploy; it ends with this.
pub(super) struct Turn {
    deploys: Arc<Deploys>,
    /// Which deploy of this Serve it is.
    pub(super) number: u64,
}

impl Deploys {
    /// Takes the turn.
    pub(super) fn begin(self: &Arc<Self>, by: &str) -> Result<Turn, ServeError> {
        let mut under_way = self.lock();
        if under_way.is_some() {
            return Err(ServeError::DeployInProgress);
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        *under_way = Some(Ongoing {
            number,
            by: by.into(),
            since: Instant::now(),
            state: DeployState::Preparing,
            done: 0,
            all: 0,
            waits_for: None,
            backend: None,
        });
        Ok(Turn { deploys: Arc::clone(self), number })
    }

    /// Waits for deploys and changes by hand that are under way; further ones wait or are refused until this is dropped.
    pub(in crate::serve) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.changes).write_owned().await
    }

    /// A change by hand may be made while this is held.
    pub(crate) fn by_hand(&self) -> Result<RwLockReadGuard<'_, ()>, ServeError> {
        self.changes.try_read().map_err(|_| ServeError::DeployInProgress)
    }

    pub(super) fn progress(&self, office: &Office) -> Option<Progress> {
        let mut progress = None;
        let mut backend = None;
        if let Some(ongoing) = &*self.lock() {
            backend.clone_from(&ongoing.backend);
            progress = Some(Progress {
                number: ongoing.number,
                by: ongoing.by.clone(),
                state: ongoing.state,
                done: ongoing.done,
                all: ongoing.all,
                waits_for: ongoing.waits_for.clone(),
                for_s: ongoing.since.elapsed().as_secs_f64(),
            });
        }
        let mut progress = progress?;
        if let Some(told) = backend.and_then(|name| replicas(office, &name)) {
            progress.waits_for = Some(told);
        }
        Some(progress)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ongoing>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many replicas of a backend are as they shall be: `digits: 1 of 2 replicas ready`.
fn replicas(office: &Office, name: &BackendName) -> Option<String> {
    let fleet = office.fleet();
    let entry = fleet.backends.get(name)?;
    if entry.deleting() {
        return Some(format!("{name}: {} replicas have not ended yet", entry.replicas.len()));
    }
    let ready = |r: &&ReplicaEntry| r.state == ReplicaState::Running && r.release == entry.release;
    let ready = entry.replicas.iter().filter(ready).count();
    Some(format!("{name}: {ready} of {} replicas ready", entry.wanted()))
}

impl Turn {
    /// Waits for changes by hand that are under way; further ones are refused until this is dropped.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.deploys.alone().await
    }

    fn note(&self, change: impl FnOnce(&mut Ongoing)) {
        if let Some(ongoing) = &mut *self.deploys.lock() {
            change(ongoing);
        }
    }

    pub(super) fn pending(&self, why: &ServeError) {
        let why = why.to_string();
        self.note(|ongoing| (ongoing.state, ongoing.waits_for) = (DeployState::Pending, Some(why)));
    }

    /// So many steps are taken from now on.
    pub(super) fn applies(&self, state: DeployState, all: usize) {
        self.note(|ongoing| {
            (ongoing.state, ongoing.done, ongoing.all) = (state, 0, all);
            (ongoing.waits_for, ongoing.backend) = (None, None);
        });
    }

    /// So many of them are done; what it waits for now.
    pub(super) fn at(&self, done: usize, step: String, backend: Option<BackendName>) {
        self.note(|ongoing| {
            ongoing.done = done;
            (ongoing.waits_for, ongoing.backend) = (Some(step), backend);
        });
    }

    /// What it waits for now, in words.
    pub(super) fn waits_for(&self, office: &Office) -> String {
        self.deploys.progress(office).and_then(|progress| progress.waits_for).unwrap_or_default()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.deploys.lock() = None;
    }
}
