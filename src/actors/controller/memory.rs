//! What the Controller was told, kept: every change is written down before it is acted on.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Whether another process has the directory, and would not see what is written.
    given_away: Option<Box<dyn Fn() -> Outcome + Send>>,
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

    /// Nothing is kept while `given_away` says that another process goes on with it.
    pub(crate) fn unless(self, given_away: impl Fn() -> Outcome + Send + 'static) -> Self {
        Self { given_away: Some(Box::new(given_away)), ..self }
    }

    /// All that it was told.
    pub(crate) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Whether a configuration is being applied as a whole.
    pub(crate) fn aiming(&self) -> bool {
        self.before_target.is_some()
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
        self.ours()?;
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
        self.missed_with(|_| {});
    }

    fn missed_with(&mut self, change: impl FnOnce(&mut Saved)) {
        if let Some(before) = self.before_target.take() {
            self.saved = *before;
            change(&mut self.saved);
            self.write_late();
        }
    }

    /// Writes all of it, where another process may have written something else that did not come to be.
    pub(crate) fn write_again(&mut self) {
        // What was set aside is what the directory holds.
        if self.aside.is_none() {
            self.write_late();
        }
    }

    /// Lets go of the directory: another process may have it.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    fn write(&mut self) -> Outcome {
        let not_saved = |error: std::io::Error| ServeError::StateNotSaved { why: error.to_string().into() };
        self.ours()?;
        let Some(store) = &mut self.store else { return Ok(()) };
        absolute(&mut self.saved.desired).map_err(not_saved)?;
        let Saved { declared, file, .. } = &mut self.saved;
        declared.iter_mut().chain(file).try_for_each(absolute).map_err(not_saved)?;
        store.save(&self.saved)?;
        self.unsaved = None;
        Ok(())
    }

    /// Whether no other process goes on with this.
    fn ours(&self) -> Outcome {
        self.given_away.as_ref().map_or(Ok(()), |given_away| given_away())
    }

    /// Writes what is so already, if it can be written.
    fn write_late(&mut self) {
        if let Err(why) = self.write() {
            self.unsaved = Some(why.to_string().into());
        }
    }
}

/// A configuration that is being applied as a whole. Whoever applies it may panic, or be dropped: then it is missed, as
/// nothing else would be kept any more.
pub(crate) struct Aimed<'a>(&'a Mutex<Memory>);

impl<'a> Aimed<'a> {
    fn new(memory: &'a Mutex<Memory>, change: impl FnOnce(&mut Saved)) -> Result<Self, ServeError> {
        lock(memory).aim(change)?;
        Ok(Self(memory))
    }

    /// As [`Memory::arrived`].
    pub(crate) fn arrived(self, change: impl FnOnce(&mut Saved)) {
        lock(self.0).arrived(change);
    }

    /// It could not be applied, and not all of it could be taken back: this is what there is.
    pub(crate) fn stuck(self, really: ServeConfig) {
        lock(self.0).missed_with(|saved| saved.desired = really);
    }
}

impl Drop for Aimed<'_> {
    fn drop(&mut self) {
        // Nothing when it has arrived.
        lock(self.0).missed();
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Office {
    /// As [`Memory::aim`], until what is returned is used or dropped.
    pub(crate) fn aim(&self, change: impl FnOnce(&mut Saved)) -> Result<Aimed<'_>, ServeError> {
        Aimed::new(&self.memory, change)
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Writes a change down before it is acted on.
    ///
    /// # Errors
    /// [`ServeError::StateNotSaved`]; then the change must not be made.
    pub(crate) fn remember(&self, change: impl FnOnce(&mut Saved)) -> Outcome {
        self.memory().keep(change)
    }

    /// Gives up the change of a backend that is under way, if any: written down first, before anybody is told.
    pub(crate) fn undo(&self, name: &BackendName, entry: &mut BackendEntry, why: ServeError) -> bool {
        self.take_back(name, entry);
        entry.undo(name, why)
    }

    fn take_back(&self, name: &BackendName, entry: &BackendEntry) {
        if entry.deleting() {
            return;
        }
        if !entry.created() {
            self.memory().take_back(|saved| saved.remove_backend(name));
        } else if let Some(before) = &entry.before {
            let given = entry.given_before.clone();
            let (source, config) = (before.source.clone(), before.config.clone());
            let decl = BackendDecl { name: name.clone(), source, config };
            self.memory().take_back(|saved| {
                saved.put_backend(decl);
                match given {
                    Some(Some(given)) => drop(saved.given.backends.insert(name.clone(), given)),
                    Some(None) => drop(saved.given.backends.remove(name)),
                    None => {}
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendConfig, Source};

    fn decl(name: &str) -> BackendDecl {
        let name = BackendName::new(name).unwrap();
        BackendDecl {
            source: Source::Registered { name: name.clone() },
            name,
            config: BackendConfig::default(),
        }
    }

    fn config(names: &[&str]) -> ServeConfig {
        ServeConfig { backends: names.iter().map(|name| decl(name)).collect(), ..ServeConfig::default() }
    }

    fn names(memory: &Memory) -> Vec<&str> {
        memory.saved().desired.backends.iter().map(|decl| decl.name.as_str()).collect()
    }

    #[test]
    fn the_steps_to_a_whole_configuration_are_kept_with_it_and_taken_back_with_it() {
        let mut memory = Memory::default();
        memory.keep(|saved| saved.put_backend(decl("a"))).unwrap();
        memory.aim(|saved| saved.desired = config(&["b", "c"])).unwrap();
        memory.keep(|saved| saved.put_backend(decl("step"))).unwrap();
        memory.take_back(|saved| saved.remove_backend(&decl("b").name));
        assert!(memory.aiming() && memory.aim(|_| {}).is_err(), "one at a time");
        assert_eq!(names(&memory), ["b", "c"]);
        memory.missed();
        assert_eq!(names(&memory), ["a"]);
        memory.aim(|saved| saved.desired = config(&["b"])).unwrap();
        memory.arrived(|saved| {
            saved.applied(1.0, "test".into(), config(&["b"]));
        });
        memory.keep(|saved| saved.put_backend(decl("d"))).unwrap();
        assert_eq!((names(&memory), memory.saved().history.len()), (vec!["b", "d"], 1));
    }

    #[test]
    fn a_deploy_that_panics_or_is_dropped_leaves_what_was_before_and_further_changes_are_kept() {
        let memory = Mutex::new(Memory::default());
        lock(&memory).keep(|saved| saved.put_backend(decl("a"))).unwrap();
        let panicked = std::thread::scope(|scope| {
            let deploy = scope.spawn(|| {
                let _aimed = Aimed::new(&memory, |saved| saved.desired = config(&["b"])).unwrap();
                std::panic::resume_unwind(Box::new(()));
            });
            deploy.join()
        });
        assert!(panicked.is_err() && !lock(&memory).aiming());
        lock(&memory).keep(|saved| saved.put_backend(decl("c"))).unwrap();
        assert_eq!(names(&lock(&memory)), ["a", "c"]);
        let aimed = Aimed::new(&memory, |saved| saved.desired = config(&["b"])).unwrap();
        aimed.arrived(|_| {});
        assert_eq!(names(&lock(&memory)), ["b"], "what has arrived stays");
        let aimed = Aimed::new(&memory, |saved| saved.desired = config(&["d"])).unwrap();
        aimed.stuck(config(&["b", "d"]));
        assert_eq!(names(&lock(&memory)), ["b", "d"], "what there is");
    }

    #[test]
    fn nothing_is_kept_while_another_process_has_the_directory_and_what_failed_meanwhile_is_told() {
        let mut memory = Memory::default().unless(|| Err(ServeError::BeingReplaced));
        let refused = Err(ServeError::BeingReplaced);
        assert_eq!(memory.keep(|saved| saved.put_backend(decl("a"))), refused);
        assert_eq!(memory.aim(|saved| saved.desired = config(&["b"])), refused);
        assert!(names(&memory).is_empty() && !memory.aiming());
        memory.take_back(|_| {});
        assert_eq!(memory.unsaved(), Some(ServeError::BeingReplaced.to_string().as_str()));
    }

    #[test]
    fn what_was_set_aside_is_there_again_when_what_should_take_its_place_cannot_be_made() {
        let old = Saved { desired: config(&["old"]), ..Saved::default() };
        let mut memory = Memory::anew(None, old.clone(), ServeConfig::default());
        assert!(names(&memory).is_empty());
        memory.aim(|saved| saved.desired = config(&["new"])).unwrap();
        memory.missed();
        assert_eq!(*memory.saved(), old);
    }
}
