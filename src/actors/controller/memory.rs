//! What the Controller was told, kept: every change is written down before it is acted on.

use std::sync::{MutexGuard, PoisonError};

use crate::{
    actors::{
        controller::{Office, Outcome},
        fleet::BackendEntry,
    },
    config::{BackendDecl, ServeConfig},
    error::ServeError,
    ids::BackendName,
    store::{Saved, Store, absolute},
};

/// What the Controller was told, here and in the state directory, which do not differ: a change that cannot be
/// written down is not made.
#[derive(Default)]
pub(crate) struct Memory {
    /// None: it is kept here alone.
    store: Option<Store>,
    saved: Saved,
    /// What was before the configuration that is being applied as a whole.
    before_target: Option<Box<Saved>>,
    /// What the directory holds and nobody restored, until a configuration takes its place.
    aside: Option<Box<Saved>>,
    /// Why the directory holds a change that has failed since.
    unsaved: Option<Box<str>>,
}

impl Memory {
    /// Goes on with what is saved.
    pub(crate) fn new(store: Option<Store>, saved: Saved) -> Self {
        Self { store, saved, ..Self::default() }
    }

    /// Begins with `desired`, without what is saved: a configuration that is about to be applied as a whole takes its
    /// place, and until that is done the directory stays as it is.
    pub(crate) fn anew(store: Option<Store>, saved: Saved, desired: ServeConfig) -> Self {
        let new = Saved { desired, history: saved.history.clone(), ..Saved::default() };
        Self { store, saved: new, aside: Some(Box::new(saved)), ..Self::default() }
    }

    /// All that it was told.
    pub(crate) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Why the directory does not hold what is wanted now: a change failed, and could not be written down as undone.
    /// The next change writes all of it.
    pub(crate) fn unsaved(&self) -> Option<&str> {
        self.unsaved.as_deref()
    }

    /// Makes a change of what is wanted and writes it down; an error leaves all as it was. While a configuration is
    /// applied as a whole its steps change nothing here: it is kept already.
    pub(crate) fn keep(&mut self, change: impl FnOnce(&mut Saved)) -> Outcome {
        if self.before_target.is_some() {
            return Ok(());
        }
        if self.store.is_none() {
            change(&mut self.saved);
            return Ok(());
        }
        let (desired, given) = (self.saved.desired.clone(), self.saved.given.clone());
        change(&mut self.saved);
        if self.unsaved.is_none() && self.saved.desired == desired && self.saved.given == given {
            return Ok(());
        }
        self.write().inspect_err(|_| (self.saved.desired, self.saved.given) = (desired, given))
    }

    /// Takes back what was kept of a change that has failed, which cannot be refused.
    pub(crate) fn take_back(&mut self, change: impl FnOnce(&mut Saved)) {
        if self.before_target.is_some() {
            return;
        }
        change(&mut self.saved);
        self.write_late();
    }

    /// From now on a configuration is applied as a whole, which `change` makes the one that is wanted; it is written
    /// down before the first step, so that a process that is killed comes back with all of it. Until
    /// [`arrived`](Self::arrived) or [`missed`](Self::missed), its steps are not kept one by one.
    pub(crate) fn aim(&mut self, change: impl FnOnce(&mut Saved)) -> Outcome {
        if self.before_target.is_some() {
            return Err(ServeError::Internal("another configuration is being applied".into()));
        }
        let now = self.saved.clone();
        change(&mut self.saved);
        if let Err(why) = self.write() {
            self.saved = now;
            return Err(why);
        }
        self.before_target = Some(self.aside.take().unwrap_or_else(|| Box::new(now)));
        Ok(())
    }

    /// The configuration has been applied; `change` may note that in the history.
    pub(crate) fn arrived(&mut self, change: impl FnOnce(&mut Saved)) {
        self.before_target = None;
        change(&mut self.saved);
        self.write_late();
    }

    /// The configuration could not be applied, and what was before it is in force again.
    pub(crate) fn missed(&mut self) {
        if let Some(before) = self.before_target.take() {
            self.saved = *before;
            self.write_late();
        }
    }

    /// Lets go of the directory: another process may have it.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    fn write(&mut self) -> Outcome {
        let not_saved = |error: std::io::Error| ServeError::StateNotSaved { why: error.to_string().into() };
        let Some(store) = &mut self.store else { return Ok(()) };
        absolute(&mut self.saved.desired).map_err(not_saved)?;
        self.saved.declared.iter_mut().try_for_each(absolute).map_err(not_saved)?;
        store.save(&self.saved)?;
        self.unsaved = None;
        Ok(())
    }

    /// Writes what is so already, if it can be written.
    fn write_late(&mut self) {
        if let Err(why) = self.write() {
            self.unsaved = Some(why.to_string().into());
        }
    }
}

impl Office {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a change down before it is acted on.
    ///
    /// # Errors
    /// [`ServeError::StateNotSaved`]; then the change must not be made.
    pub(crate) fn remember(&self, change: impl FnOnce(&mut Saved)) -> Outcome {
        self.memory().keep(change)
    }

    /// Writes down that the change of a backend under way, if any, is not made after all. Done before anybody is told.
    pub(crate) fn take_back(&self, name: &BackendName, entry: &BackendEntry) {
        if !entry.created() {
            self.memory().take_back(|saved| saved.remove_backend(name));
        } else if let Some(before) = &entry.before {
            let (name, source, config) = (name.clone(), before.source.clone(), before.config.clone());
            self.memory().take_back(|saved| saved.put_backend(BackendDecl { name, source, config }));
        }
    }
}
