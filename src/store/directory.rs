//! `Store`: a state directory, locked for this process; each save replaces what it holds, or leaves it.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    document::{self, FORMAT, Mistake, State},
    file::{self, unfinished},
    saved::Saved,
};
use crate::{
    config::ServeConfig,
    error::{ServeError, StateError},
};

/// What is wanted; the others are named in it.
const STATE: &str = "state.json";
/// Locked while a process works with the directory; holds its number.
const LOCK: &str = "lock";
/// Longest process number that is read.
const PID_BYTES_MAX: u64 = 20;

/// A configuration, and the file that holds it.
type Held = Option<(String, ServeConfig)>;

/// A state directory. The lock on it ends with this, and with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// The directory itself: what is put into it is only there for good once this was synced.
    handle: File,
    lock: File,
    /// Saves so far.
    sequence: u64,
    /// What `state.json` holds.
    written: Option<Vec<u8>>,
    /// What was declared, and the file that holds it.
    declared: Held,
    /// What the file of `run FILE` said, and the file here that holds it; it may be the same one.
    file: Held,
    /// The history's files.
    history: Vec<u64>,
}

impl Store {
    /// Opens a directory, which is made if its parent is there, and reads what it holds.
    ///
    /// # Errors
    /// [`ServeError::State`]; then nothing in it has changed.
    ///
    /// `inherited` has the locked file of the process that this one takes over from, if there is one.
    pub(crate) fn open(
        path: &Path,
        inherited: impl FnOnce(&Path) -> Option<File>,
    ) -> Result<(Self, Option<Saved>), ServeError> {
        Self::opened(path, inherited).map_err(ServeError::State)
    }

    /// The locked file and its path, for the process that takes over from this one.
    pub(crate) fn lock(&self) -> (PathBuf, &File) {
        (self.path.join(LOCK), &self.lock)
    }

    fn opened(
        path: &Path,
        inherited: impl FnOnce(&Path) -> Option<File>,
    ) -> Result<(Self, Option<Saved>), StateError> {
        let path = std::path::absolute(path).map_err(|error| unusable(path, "found", &error))?;
        make(&path)?;
        let lock = lock(&path, inherited)?;
        let handle = File::open(&path).map_err(|error| unusable(&path, "opened", &error))?;
        let mut store = Self {
            path,
            handle,
            lock,
            sequence: 0,
            written: None,
            declared: None,
            file: None,
            history: Vec::new(),
        };
        let saved = store.read()?;
        store.clean()?;
        // A directory that cannot be written is told of now, not at the first change.
        let probe = unfinished(&store.path.join(STATE));
        let probed = file::write(&probe, b"{}").and_then(|()| fs::remove_file(&probe));
        probed.map_err(|error| unusable(&probe, "written", &error))?;
        Ok((store, saved))
    }

    /// Puts `saved` in the place of what the directory holds, through to the disk.
    ///
    /// # Errors
    /// [`ServeError::StateNotSaved`]; then the directory holds what it held before.
    pub(crate) fn save(&mut self, saved: &Saved) -> Result<(), ServeError> {
        self.write(saved).map_err(|error| {
            let why = format!("{}: {error}", self.path.display());
            ServeError::StateNotSaved { why: why.into() }
        })
    }

    fn write(&mut self, saved: &Saved) -> io::Result<()> {
        let sequence = self.sequence + 1;
        for applied in saved.history.iter().filter(|applied| !self.history.contains(&applied.id)) {
            file::replace(&self.path.join(history(applied.id)), &document::applied(applied)?)?;
        }
        let declared = self.held(&saved.declared, &None, format!("declared-{sequence}.json"))?;
        let file = self.held(&saved.file, &declared, format!("file-{sequence}.json"))?;
        let names = [&declared, &file].map(|held| held.as_ref().map(|(name, _)| name.as_str()));
        let text = document::state(saved, sequence, names)?;
        file::replace(&self.path.join(STATE), &text)?;
        if let Err(error) = self.handle.sync_all() {
            // The change is refused, so the file must say so too.
            let _ = match &self.written {
                Some(written) => file::replace(&self.path.join(STATE), written),
                None => fs::remove_file(self.path.join(STATE)),
            };
            return Err(error);
        }
        let files = |store: &Self| {
            let declared = store.declared.iter().chain(&store.file).map(|(file, _)| file.clone());
            declared.chain(store.history.iter().map(|id| history(*id))).collect::<Vec<_>>()
        };
        let before = files(self);
        (self.sequence, self.written) = (sequence, Some(text));
        (self.declared, self.file) = (declared, file);
        self.history = saved.history.iter().map(|applied| applied.id).collect();
        let now = files(self);
        for file in before.iter().filter(|file| !now.contains(file)) {
            // One that stays is removed at the next start.
            let _ = fs::remove_file(self.path.join(file));
        }
        Ok(())
    }

    /// A configuration with the file that holds it: one that is there, else `new`, which is written.
    fn held(&self, config: &Option<ServeConfig>, just_held: &Held, new: String) -> io::Result<Held> {
        let Some(config) = config else { return Ok(None) };
        let mut there = [just_held, &self.declared, &self.file].into_iter().flatten();
        if let Some(held) = there.find(|(_, held)| held == config) {
            return Ok(Some(held.clone()));
        }
        file::replace(&self.path.join(&new), &document::declared(config)?)?;
        Ok(Some((new, config.clone())))
    }

    /// For tests of what a failing disk does.
    #[cfg(test)]
    pub(super) fn replace_handle(&mut self, handle: File) -> File {
        std::mem::replace(&mut self.handle, handle)
    }

    fn read(&mut self) -> Result<Option<Saved>, StateError> {
        let path = self.path.join(STATE);
        let Some(bytes) = file::read(&path).map_err(|error| unusable(&path, "read", &error))? else {
            return Ok(None);
        };
        let State { sequence, desired, given, declared, file, history: ids } =
            document::read_state(&bytes).map_err(|mistake| told(&path, mistake))?;
        let read = |name: Option<String>, key| {
            let read = |name: String| Ok((name.clone(), self.named(key, &name, document::read_declared)?));
            name.map(read).transpose()
        };
        let (declared, file) = (read(declared, "declared")?, read(file, "file")?);
        (self.declared, self.file) = (declared, file);
        let entries = ids.iter().map(|id| self.named("history", &history(*id), document::read_applied));
        let entries = entries.collect::<Result<_, _>>()?;
        (self.sequence, self.written, self.history) = (sequence, Some(bytes), ids);
        let [declared, file] =
            [&self.declared, &self.file].map(|held| held.as_ref().map(|(_, config)| config.clone()));
        Ok(Some(Saved { declared, file, desired, given, history: entries }))
    }

    /// A file that `state.json` names under `key`.
    fn named<T>(
        &self,
        key: &str,
        name: &str,
        read: fn(&[u8]) -> Result<T, Mistake>,
    ) -> Result<T, StateError> {
        let path = self.path.join(STATE);
        if !owned(name) {
            let why = format!("it names the file {name:?}, which is none of a state directory");
            return Err(damaged(&path, key, why));
        }
        let path = self.path.join(name);
        match file::read(&path).map_err(|error| unusable(&path, "read", &error))? {
            Some(bytes) => read(&bytes).map_err(|mistake| told(&path, mistake)),
            None => Err(damaged(&path, "whole file", "it is missing, and state.json names it")),
        }
    }

    /// Removes what a process that was killed has left: unfinished files, and those that nothing names.
    fn clean(&self) -> Result<(), StateError> {
        let named = |name: &str| {
            name == STATE
                || self.declared.iter().chain(&self.file).any(|(file, _)| file == name)
                || self.history.iter().any(|id| history(*id) == name)
        };
        let entries = fs::read_dir(&self.path).map_err(|error| unusable(&self.path, "read", &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unusable(&self.path, "read", &error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if owned(name.strip_suffix(".new").unwrap_or(name)) && !named(name) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|error| unusable(&path, "removed", &error))?;
            }
        }
        Ok(())
    }
}

/// The file of one entry of the history.
fn history(id: u64) -> String {
    format!("history-{id}.json")
}

/// Whether a file with this name is one that is written here.
fn owned(name: &str) -> bool {
    let numbered = |start: &str| {
        let number = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(".json"));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    name == STATE || numbered("history-") || numbered("declared-") || numbered("file-")
}

/// Makes the directory, for its owner alone: a `user_config` may hold secrets.
fn make(path: &Path) -> Result<(), StateError> {
    if fs::metadata(path).is_ok_and(|there| !there.is_dir()) {
        return Err(StateError::NotADirectory { path: path.into() });
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => {
            let parent = path.parent().map(File::open).transpose();
            let synced = parent.and_then(|parent| parent.map_or(Ok(()), |parent| parent.sync_all()));
            synced.map_err(|error| unusable(path, "made", &error))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(path, "made", &error)),
    }
}

/// Takes the directory for this process.
fn lock(path: &Path, inherited: impl FnOnce(&Path) -> Option<File>) -> Result<File, StateError> {
    let at = path.join(LOCK);
    let unusable = |error: &io::Error| unusable(&at, "locked", error);
    if let Some(lock) = inherited(&at) {
        return sign(lock).map_err(|error| unusable(&error));
    }
    let lock = file::for_its_owner()
        .read(true)
        .create(true)
        .truncate(false)
        .open(&at)
        .map_err(|error| unusable(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = (&lock).take(PID_BYTES_MAX).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            return Err(StateError::InUse { path: path.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(&error)),
    }
    sign(lock).map_err(|error| unusable(&error))
}

/// Writes into a locked file who has it.
fn sign(mut lock: File) -> io::Result<File> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

fn unusable(path: &Path, doing: &'static str, error: &io::Error) -> StateError {
    StateError::Unusable { path: path.into(), doing, why: error.to_string().into() }
}

fn damaged(path: &Path, place: &str, why: impl Into<Box<str>>) -> StateError {
    StateError::Damaged { path: path.into(), place: place.into(), why: why.into() }
}

fn told(path: &Path, mistake: Mistake) -> StateError {
    match mistake {
        Mistake::Damaged { place, why } => StateError::Damaged { path: path.into(), place, why },
        Mistake::FromTheFuture { format } => {
            StateError::FromTheFuture { path: path.into(), format, known: FORMAT }
        }
    }
}
