//! Panics of user code that have no call to answer for: a drop, a conversion on the way to a caller.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs user code; its panic becomes a text.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, Box<str>> {
    catch_unwind(AssertUnwindSafe(f)).map_err(panic_text)
}

/// Drops what holds user code, whose drop may panic.
pub(crate) fn drop_guarded<T>(it: T) {
    let _ = guarded(move || drop(it));
}

/// The text of a panic. The payload may panic when dropped; that is caught as well.
pub(crate) fn panic_text(payload: Box<dyn Any + Send>) -> Box<str> {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| Box::from(*s))
        .or_else(|| payload.downcast_ref::<String>().map(|s| Box::from(s.as_str())))
        .unwrap_or_else(|| Box::from("a panic without a text"));
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    text
}
