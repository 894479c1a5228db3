//! What a new Serve goes on with: what the one before it was told, out of the state directory.

use crate::{
    actors::controller::Memory,
    config::ServeConfig,
    error::ServeError,
    serve::{Serve, ServeOptions, takeover::Handover},
    store::{Saved, Store, absolute, same},
};

/// Opens the state directory, if there is one. Whether what it holds is to be restored, too.
pub(super) fn remembered(
    options: &ServeOptions,
    handover: Option<&Handover>,
) -> Result<(Memory, bool), ServeError> {
    let mut declared = options.declared.clone();
    let not_saved = |error: std::io::Error| ServeError::StateNotSaved { why: error.to_string().into() };
    declared.iter_mut().try_for_each(absolute).map_err(not_saved)?;
    // What a file says of the process itself.
    let nothing =
        ServeConfig { backends: Vec::new(), endpoints: Vec::new(), ..declared.clone().unwrap_or_default() };
    let nothing = ServeConfig { state: options.state.clone(), ..nothing };
    let Some(directory) = &options.state else {
        return Ok((Memory::new(None, Saved { desired: nothing, ..Saved::default() }), false));
    };
    // The process that is taken over from, which takes no changes any more, shares its lock with this one.
    let (store, saved) = Store::open(directory, |lock| handover?.inherit_lock(lock))?;
    if let Some(handover) = handover {
        let (path, lock) = store.lock();
        let kept = handover.keep_lock(&path, lock);
        kept.map_err(|error| {
            ServeError::Internal(format!("the lock cannot be handed over: {error}").into())
        })?;
    }
    let Some(mut saved) = saved else {
        return Ok((Memory::new(Some(store), Saved { desired: nothing, ..Saved::default() }), false));
    };
    if let Some(now) = declared {
        let is_now = |before: &Option<ServeConfig>| before.as_ref().is_some_and(|before| same(before, &now));
        // What a file says may also have been deployed in another way, and holds from now on as the file does.
        if !is_now(&saved.file) && is_now(&saved.declared) {
            saved.file = Some(now);
        } else if !is_now(&saved.file) {
            return Ok((Memory::anew(Some(store), saved, nothing), false));
        }
    }
    Ok((Memory::new(Some(store), saved), true))
}

impl Serve {
    /// Whether what was wanted before the last process ended was restored from the state directory.
    pub fn restored(&self) -> bool {
        self.0.restored
    }
}
