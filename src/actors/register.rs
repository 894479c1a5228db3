//! The actors of this thread, so that a caller on the same thread reaches them without a queue.

use std::{any::Any, cell::RefCell, rc::Rc};

thread_local! {
    static HERE: RefCell<Vec<Option<Rc<dyn Any>>>> = const { RefCell::new(Vec::new()) };
}

/// Enters an actor; its place is reused after [`remove`].
pub(crate) fn add(core: Rc<dyn Any>) -> usize {
    HERE.with_borrow_mut(|here| match here.iter().position(Option::is_none) {
        Some(free) => {
            here[free] = Some(core);
            free
        }
        None => {
            here.push(Some(core));
            here.len() - 1
        }
    })
}

/// The actor at `place`, if it is of type `C`.
#[inline]
pub(crate) fn get<C: 'static>(place: usize) -> Option<Rc<C>> {
    let core = HERE.with_borrow(|here| here.get(place).cloned().flatten())?;
    core.downcast::<C>().ok()
}

/// Takes an actor out.
pub(crate) fn remove(place: usize) {
    // Threads that end drop this register before or after the actors' tasks.
    let gone = HERE.try_with(|here| here.borrow_mut().get_mut(place).and_then(Option::take));
    drop(gone);
}

/// Direct calls nested on one stack; beyond this they queue, so that no chain of handlers overflows it.
const DEPTH_MAX: usize = 16;

thread_local! {
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether one more direct call may run on this stack.
pub(crate) fn shallow() -> bool {
    DEPTH.get() < DEPTH_MAX
}

/// Runs `f` one direct call deeper. `f` does not unwind: handlers are guarded inside.
pub(crate) fn deeper<T>(f: impl FnOnce() -> T) -> T {
    DEPTH.set(DEPTH.get() + 1);
    let out = f();
    DEPTH.set(DEPTH.get() - 1);
    out
}
