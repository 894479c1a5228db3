//! From what a configuration says that a backend is made of to its code.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{actors::build::Code, config::Source, error::ServeError, ids::BackendName};

/// Most names that a refusal lists.
const LISTED_MAX: usize = 20;

/// The code that the program has given, by name.
#[derive(Default)]
pub(crate) struct Sources(Mutex<BTreeMap<BackendName, Known>>);

struct Known {
    code: Arc<dyn Code>,
    /// Not registered, but of a backend that the program made.
    made: bool,
}

impl Sources {
    /// From now on the name means this code.
    pub(crate) fn register(&self, name: BackendName, code: Arc<dyn Code>) {
        self.know(name, Known { code, made: false });
    }

    /// From now on the name means this code, for as long as [`keep`](Self::keep) says, unless it was registered.
    pub(crate) fn made(&self, name: BackendName, code: Arc<dyn Code>) {
        self.know(name, Known { code, made: true });
    }

    fn know(&self, name: BackendName, mut known: Known) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.made &= all.get(&name).is_none_or(|before| before.made);
        let before = all.insert(name, known);
        drop(all);
        // The user's code may go with it: not under the lock.
        crate::guard::drop_guarded(before);
    }

    /// Forgets the code of backends that the program made, where nobody can ask for it any more.
    pub(crate) fn keep(&self, wanted: impl Fn(&BackendName) -> bool) {
        let mut gone = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, known| {
            let kept = !known.made || wanted(name);
            if !kept {
                gone.push(Arc::clone(&known.code));
            }
            kept
        });
        crate::guard::drop_guarded(gone);
    }

    /// The code of a source. A model file is looked at, not loaded.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] for the key of the source: a name that nothing is registered under, a file that cannot be
    /// read.
    pub(crate) fn code(&self, source: &Source) -> Result<Arc<dyn Code>, ServeError> {
        match source {
            Source::Onnx { path } => onnx(path),
            Source::Registered { name } => {
                let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                registered.get(name).map(|known| Arc::clone(&known.code)).ok_or_else(|| {
                    let names: Vec<_> = registered.keys().take(LISTED_MAX).map(BackendName::as_str).collect();
                    let there = if names.is_empty() { "nothing".into() } else { names.join(", ") };
                    let why = format!(
                        "no code is registered as {name}; there is: {there} (a program that embeds greenroom \
                         registers code, the `greenroom` command takes `onnx`)"
                    );
                    ServeError::invalid("registered", why)
                })
            }
        }
    }
}

#[cfg(feature = "onnx")]
fn onnx(path: &std::path::Path) -> Result<Arc<dyn Code>, ServeError> {
    let refused = |why: String| Err(ServeError::invalid("onnx", format!("{} {why}", path.display())));
    match std::fs::metadata(path) {
        // Reading a pipe or a device may never end.
        Ok(there) if !there.is_file() => refused("is no file".into()),
        Ok(_) => Ok(Arc::new(crate::backend::Backend::onnx(path))),
        Err(error) => refused(format!("cannot be read: {error}")),
    }
}

#[cfg(not(feature = "onnx"))]
fn onnx(_: &std::path::Path) -> Result<Arc<dyn Code>, ServeError> {
    Err(ServeError::invalid("onnx", "this `greenroom` was built without the feature `onnx`"))
}
