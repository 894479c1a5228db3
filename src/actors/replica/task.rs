//! The loop of one replica on its thread: its turns, its requests' futures, and its end.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix::{
    Actor,
    dev::{Mailbox, channel::channel},
};
use futures_util::{future::LocalBoxFuture, stream::FuturesUnordered, stream::Stream};

use crate::{
    actors::{
        context::ReplicaContext,
        register,
        replica::{Cell, Checking, Core, Event, Parts, Phase},
    },
    guard::drop_guarded,
};

/// The loop of one actor; ends when the actor has stopped.
pub(crate) struct ReplicaTask<A: Actor<Context = ReplicaContext<A>>> {
    core: Rc<Core<A>>,
    requests: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    place: usize,
    ended: bool,
}

impl<A: Actor<Context = ReplicaContext<A>>> ReplicaTask<A> {
    /// Puts an actor on this thread; it lives while the returned future is polled.
    pub(crate) fn new(mut parts: Parts<A>) -> (Self, actix::Addr<A>) {
        let (tx, rx) = channel(0);
        let addr = actix::Addr::new(tx);
        let leases = std::mem::take(&mut parts.leases);
        let ctx =
            ReplicaContext::new(addr.clone(), Rc::clone(&parts.desk), Arc::clone(&parts.identity), leases);
        let core = Rc::new(Core {
            lane: Arc::clone(&parts.lane),
            desk: Rc::clone(&parts.desk),
            cell: RefCell::new(Cell {
                actor: None,
                ctx,
                mailbox: Mailbox::new(rx),
                phase: Phase::Starting,
                failures: VecDeque::new(),
                checking: Checking::default(),
                rebuilding: false,
                holding: false,
                on_purpose: false,
                alarm: None,
                parts,
            }),
        });
        let place = register::add(Rc::clone(&core) as Rc<dyn std::any::Any>);
        core.lane.settle(crate::meta::thread_token(), place);
        (Self { core, requests: FuturesUnordered::new(), place, ended: false }, addr)
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Future for ReplicaTask<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.core.lane.waker().register(cx.waker());
        let more = {
            let mut cell = this.core.cell.borrow_mut();
            let more = cell.turn(cx, &this.core.lane);
            cell.keep_deadlines(cx, &this.core.lane);
            more
        };
        this.requests.extend(this.core.desk.incoming.take());
        let desk = &this.core.desk;
        let mut ended_some = false;
        // A panic is followed by its rebuild before the next one can happen.
        while !desk.has_panicked()
            && let Poll::Ready(Some(())) = Pin::new(&mut this.requests).poll_next(cx)
        {
            ended_some = true;
        }
        let cell = this.core.cell.borrow();
        // A request that ended makes room for one that waits, or leaves futures whose caller has gone;
        // one that panicked puts the state in doubt.
        let again = more
            || !desk.incoming.borrow().is_empty()
            || desk.has_panicked()
            || (ended_some
                && (this.core.lane.waiting() > 0
                    || !this.core.lane.undisturbed()
                    || !cell.ctx.items.is_empty()
                    || !cell.ctx.waits.is_empty()));
        let ended = matches!(cell.phase, Phase::Ended);
        drop(cell);
        if ended {
            this.end();
            return Poll::Ready(());
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> ReplicaTask<A> {
    /// Nothing is lost: what waits goes to siblings, what runs is answered as stopped.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        register::remove(self.place);
        self.core.lane.close();
        drop(self.core.desk.incoming.take());
        self.requests.clear();
        if let Ok(mut cell) = self.core.cell.try_borrow_mut() {
            cell.ctx.items.drain(..).for_each(drop_guarded);
            cell.ctx.waits.drain(..).for_each(drop_guarded);
            cell.drop_state();
            cell.ctx.leases.give_back();
        }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Drop for ReplicaTask<A> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The thread ends under it: a lent worker that left, or a runtime that shuts down.
        self.end();
        if let Ok(cell) = self.core.cell.try_borrow() {
            (cell.parts.on_event)(Event::Stopped);
        }
    }
}
