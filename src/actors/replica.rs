//! A replica: the user's actor in its own loop, which polls commands, mailbox, calls and futures in turn.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{
    Actor, ActorState, Running,
    dev::{Mailbox, channel::channel},
};
use futures_util::{future::LocalBoxFuture, stream::FuturesUnordered, stream::Stream};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    actors::{
        context::{Desk, ReplicaContext},
        identity::Identity,
        lane::{Command, Lane, Patience},
        register,
    },
    error::{BoxError, ServeError},
    guard::{drop_guarded, guarded},
};

/// Calls begun in one turn before futures, timers and other actors get theirs.
const LANE_BUDGET: usize = 64;

/// Longest pause between two attempts to start.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Makes a state, at first and after each failure.
pub(crate) type Factory<A> = dyn Fn(&mut ReplicaContext<A>) -> Result<A, BoxError> + Send + Sync;

/// What a replica tells whoever started it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// It takes calls.
    Ready,
    /// A start failed; it will try again.
    Stumbled(Box<str>),
    /// It failed to start too often and has stopped.
    GaveUp(Box<str>),
    /// It has stopped as it was told, or its thread has ended.
    Stopped,
}

/// Everything a replica's loop is started with.
pub(crate) struct Parts<A: Actor> {
    pub(crate) factory: Arc<Factory<A>>,
    pub(crate) lane: Arc<Lane<A>>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) desk: Rc<Desk>,
    pub(crate) patience: Patience,
    pub(crate) on_event: Box<dyn Fn(Event)>,
}

/// Where an actor is in its life.
enum Phase {
    /// Its state has to be made.
    Starting,
    /// A start failed; the next attempt comes after this pause.
    BackingOff(Pin<Box<Sleep>>),
    /// It takes calls.
    Running,
    /// It is gone.
    Ended,
}

/// The actor and all that is polled with it; borrowed by its loop or by a direct call, never by both.
pub(crate) struct Cell<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) actor: Option<A>,
    pub(crate) ctx: ReplicaContext<A>,
    mailbox: Mailbox<A>,
    phase: Phase,
    failures: VecDeque<Instant>,
    rebuilding: bool,
    parts: Parts<A>,
}

/// One actor on its thread.
pub(crate) struct Core<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) lane: Arc<Lane<A>>,
    pub(crate) desk: Rc<Desk>,
    pub(crate) cell: RefCell<Cell<A>>,
}

/// The loop of one actor; ends when the actor has stopped.
pub(crate) struct ReplicaTask<A: Actor<Context = ReplicaContext<A>>> {
    core: Rc<Core<A>>,
    requests: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    place: usize,
    ended: bool,
}

impl<A: Actor<Context = ReplicaContext<A>>> ReplicaTask<A> {
    /// Puts an actor on this thread; it lives while the returned future is polled.
    pub(crate) fn new(parts: Parts<A>) -> (Self, actix::Addr<A>) {
        let (tx, rx) = channel(0);
        let addr = actix::Addr::new(tx);
        let ctx = ReplicaContext::new(addr.clone(), Rc::clone(&parts.desk), Arc::clone(&parts.identity));
        let core = Rc::new(Core {
            lane: Arc::clone(&parts.lane),
            desk: Rc::clone(&parts.desk),
            cell: RefCell::new(Cell {
                actor: None,
                ctx,
                mailbox: Mailbox::new(rx),
                phase: Phase::Starting,
                failures: VecDeque::new(),
                rebuilding: false,
                parts,
            }),
        });
        let place = register::add(Rc::clone(&core) as Rc<dyn std::any::Any>);
        core.lane.settle(crate::meta::thread_token(), place);
        (Self { core, requests: FuturesUnordered::new(), place, ended: false }, addr)
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Core<A> {
    /// Whether a call may be handled right now on the caller's stack: nothing waits, nothing holds it.
    pub(crate) fn takes_direct(&self, cell: &Cell<A>) -> bool {
        matches!(cell.phase, Phase::Running)
            && self.lane.waiting() == 0
            && self.lane.commanded().is_none()
            && !cell.ctx.held()
            && self.desk.running() < self.lane.concurrency()
    }

    /// After a direct call: rebuilds after a panic, wakes the loop when it left something to poll.
    pub(crate) fn settle_direct(&self, cell: &mut Cell<A>) {
        if self.desk.has_panicked() {
            cell.rebuild_if_needed();
        }
        if cell.ctx.left_work() || !matches!(cell.phase, Phase::Running) {
            self.lane.waker().wake();
        }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Cell<A> {
    /// Makes the state and starts it; a failure is retried after a pause, too many end the replica.
    fn start(&mut self) {
        let ctx = &mut self.ctx;
        ctx.state = ActorState::Started;
        ctx.stop_asked = false;
        let desk = Rc::clone(&ctx.desk);
        let factory = Arc::clone(&self.parts.factory);
        let made = desk.guard(|| -> Result<A, BoxError> {
            let mut actor = factory(ctx)?;
            actor.started(ctx);
            Ok(actor)
        });
        let why: Box<str> = match made {
            Ok(Ok(actor)) => {
                self.actor = Some(actor);
                self.ctx.state = ActorState::Running;
                self.phase = Phase::Running;
                desk.cells.starts.bump();
                if self.rebuilding {
                    desk.cells.restarts.bump();
                } else {
                    (self.parts.on_event)(Event::Ready);
                }
                self.rebuilding = true;
                return;
            }
            Ok(Err(error)) => error.to_string().into(),
            Err(panic) => format!("panicked: {panic}").into(),
        };
        self.drop_state();
        self.stumbled(why);
    }

    fn stumbled(&mut self, why: Box<str>) {
        let (now, patience) = (Instant::now(), self.parts.patience);
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > patience.window) {
            self.failures.pop_front();
        }
        let failed = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        if failed > patience.failures_max {
            (self.parts.on_event)(Event::GaveUp(why));
            self.phase = Phase::Ended;
        } else {
            (self.parts.on_event)(Event::Stumbled(why));
            let pause = patience.backoff.saturating_mul(1 << (failed - 1).min(16)).min(BACKOFF_MAX);
            self.phase = Phase::BackingOff(Box::pin(sleep(pause)));
        }
    }

    /// Drops the state and the futures that belong to it; those of requests stay.
    fn drop_state(&mut self) {
        let ctx = &mut self.ctx;
        let gone: Vec<_> = ctx
            .items
            .extract_if(.., |item| item.owner.is_none())
            .chain(ctx.waits.extract_if(.., |item| item.owner.is_none()))
            .collect();
        ctx.cancelled.clear();
        gone.into_iter().for_each(drop_guarded);
        if let Some(actor) = self.actor.take() {
            drop_guarded(actor);
        }
    }

    /// Rebuilds the state when a panic or `ctx.stop()` has put it in doubt.
    pub(crate) fn rebuild_if_needed(&mut self) {
        if self.ctx.stop_asked && !self.ctx.desk.has_panicked() && !self.user_stop() {
            return;
        }
        if self.ctx.desk.take_panic() || self.ctx.stop_asked {
            self.drop_state();
            // A drop that panics in the old state is part of the same failure.
            self.ctx.desk.take_panic();
            self.start();
        }
    }

    /// Asks `Actor::stopping` and tells `Actor::stopped`; false when the actor wants to go on.
    fn user_stop(&mut self) -> bool {
        let (ctx, desk) = (&mut self.ctx, Rc::clone(&self.parts.desk));
        let Some(actor) = &mut self.actor else { return true };
        let ends = ctx.state == ActorState::Stopped
            || desk.guard(|| actor.stopping(ctx)).map_or(true, |running| running == Running::Stop);
        if ends {
            ctx.state = ActorState::Stopped;
            let _ = desk.guard(|| actor.stopped(ctx));
        } else {
            ctx.state = ActorState::Running;
            ctx.stop_asked = false;
        }
        ends
    }

    /// Tells the actor that its replica goes; it cannot refuse.
    fn user_end(&mut self) {
        let (ctx, desk) = (&mut self.ctx, Rc::clone(&self.parts.desk));
        let Some(actor) = &mut self.actor else { return };
        ctx.state = ActorState::Stopping;
        let _ = desk.guard(|| actor.stopping(ctx));
        ctx.state = ActorState::Stopped;
        let _ = desk.guard(|| actor.stopped(ctx));
    }

    /// One turn; true when there is more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) -> bool {
        if matches!(self.phase, Phase::Starting | Phase::BackingOff(_)) {
            // What panics while there is no state puts none in doubt.
            self.ctx.desk.take_panic();
        }
        match &mut self.phase {
            Phase::Ended => return false,
            Phase::Starting => self.start(),
            Phase::BackingOff(pause) => {
                if pause.as_mut().poll(cx).is_pending() {
                    return self.obey(cx, lane);
                }
                self.phase = Phase::Starting;
                return true;
            }
            Phase::Running => {}
        }
        if !matches!(self.phase, Phase::Running) {
            return true;
        }
        let more = self.work(cx, lane);
        self.rebuild_if_needed();
        self.obey(cx, lane) || more || !matches!(self.phase, Phase::Running)
    }

    fn work(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) -> bool {
        let Some(actor) = &mut self.actor else { return false };
        let ctx = &mut self.ctx;
        if !ctx.poll_waits(actor, cx) {
            return false;
        }
        ctx.refill_mailbox_budget();
        self.mailbox.poll(actor, ctx, cx);
        let mut more = ctx.mailbox_left.get() == 0;
        ctx.refill_mailbox_budget();
        let mut begun = 0;
        while !ctx.held() && begun < LANE_BUDGET && ctx.desk.running() < lane.concurrency() {
            let Some(job) = lane.pop() else { break };
            begun += 1;
            let run = || {
                if !job.abandoned() {
                    job.run(actor, ctx);
                }
            };
            // Handlers are guarded inside; this is for a message whose drop panics.
            if guarded(run).is_err() {
                ctx.desk.note_panic();
            }
        }
        more |= begun == LANE_BUDGET && lane.waiting() > 0;
        ctx.poll_items(actor, cx) || more || (ctx.held() && ctx.waits.is_empty())
    }

    /// Follows the command in force; true when the phase changed.
    fn obey(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) -> bool {
        let ends = match lane.commanded() {
            None => false,
            Some(Command::Stop) => true,
            Some(Command::Drain) => lane.gate.emptied(cx.waker()) && self.ctx.desk.running() == 0,
        };
        if ends && !matches!(self.phase, Phase::Ended) {
            self.user_end();
            self.drop_state();
            self.phase = Phase::Ended;
            (self.parts.on_event)(Event::Stopped);
            return true;
        }
        false
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Future for ReplicaTask<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.core.lane.waker().register(cx.waker());
        let more = this.core.cell.borrow_mut().turn(cx, &this.core.lane);
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
                    || this.core.lane.commanded().is_some()
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
        self.core.lane.close(&ServeError::Stopped);
        drop(self.core.desk.incoming.take());
        self.requests.clear();
        if let Ok(mut cell) = self.core.cell.try_borrow_mut() {
            cell.ctx.items.drain(..).for_each(drop_guarded);
            cell.ctx.waits.drain(..).for_each(drop_guarded);
            cell.drop_state();
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
