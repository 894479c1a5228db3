//! Polling the futures of a context: those that hold the actor, and those beside them.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use actix::Actor;

use crate::actors::context::{Item, ReplicaContext};

impl<A: Actor<Context = Self>> ReplicaContext<A> {
    /// How many futures and cancellations there are. A handler only adds to them, so that another number after
    /// it tells of some that the loop has not seen.
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.items.len(), self.cancelled.len())
    }

    /// Whether a handler left futures, wishes or cancellations since `mark` that only the loop can look after.
    pub(crate) fn left_work(&self, mark: (usize, usize)) -> bool {
        self.held() || self.mark() != mark || !self.desk.incoming.borrow().is_empty()
    }

    /// Polls the futures that keep everything else waiting, the latest first; true when none is left.
    pub(crate) fn poll_waits(&mut self, actor: &mut A, cx: &mut Context<'_>) -> bool {
        while let Some(mut item) = self.waits.pop() {
            let deeper = self.waits.len();
            if self.poll_item(&mut item, actor, cx).is_pending() {
                // Waits started meanwhile come after it, so that they are polled before it.
                self.waits.insert(deeper.min(self.waits.len()), item);
                if self.waits.len() == deeper + 1 {
                    return false;
                }
            } else {
                self.discard(item);
            }
            if self.desk.has_panicked() || self.stop_asked {
                return true;
            }
        }
        true
    }

    /// Polls every other future once; true when some were added or ended, so that another turn is due.
    pub(crate) fn poll_items(&mut self, actor: &mut A, cx: &mut Context<'_>) -> bool {
        self.reap();
        let mut items = std::mem::take(&mut self.items);
        let mut i = 0;
        while i < items.len() && !self.held() {
            match self.poll_item(&mut items[i], actor, cx) {
                Poll::Ready(()) => self.discard(items.swap_remove(i)),
                Poll::Pending => i += 1,
            }
        }
        let added = !self.items.is_empty();
        items.append(&mut self.items);
        self.items = items;
        let reap = !self.cancelled.is_empty();
        if reap {
            self.reap();
        }
        added || self.held()
    }

    fn poll_item(&mut self, item: &mut Item<A>, actor: &mut A, cx: &mut Context<'_>) -> Poll<()> {
        if item.owner.as_ref().is_some_and(|mark| mark.left.get()) {
            return Poll::Ready(());
        }
        let desk = Rc::clone(&self.desk);
        let owner = item.owner.clone();
        let polled = desk.guard(|| {
            let mut poll = || item.future.as_mut().poll(actor, self, cx);
            match &owner {
                Some(mark) => mark.scope(poll),
                None => poll(),
            }
        });
        polled.unwrap_or_else(|message| {
            if let Some(mark) = &owner {
                mark.panicked.replace(Some(message));
            }
            desk.note_panic();
            Poll::Ready(())
        })
    }

    /// Drops what was cancelled.
    fn reap(&mut self) {
        let left = |item: &Item<A>| item.owner.as_ref().is_some_and(|mark| mark.left.get());
        let cancelled = std::mem::take(&mut self.cancelled);
        let gone: Vec<_> =
            self.items.extract_if(.., |item| cancelled.contains(&item.handle) || left(item)).collect();
        gone.into_iter().for_each(|item| self.discard(item));
    }

    fn discard(&mut self, item: Item<A>) {
        let desk = Rc::clone(&self.desk);
        if desk.guard(|| drop(item)).is_err() {
            desk.note_panic();
        }
    }
}
