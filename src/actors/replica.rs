//! A replica: the user's actor in its own loop, which polls commands, mailbox, calls and futures in turn.

mod configure;
mod health;
mod start;
mod task;

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix::{Actor, ActorState, Running, dev::Mailbox};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    actors::{
        configure::Configured,
        context::{Desk, ReplicaContext},
        gpus::Leases,
        health::Checked,
        identity::Identity,
        lane::{Command, Lane, Patience},
    },
    error::BoxError,
    guard::{drop_guarded, guarded},
};

use configure::Configuring;
use health::{Checking, Proving};
pub(crate) use task::ReplicaTask;

/// Calls begun in one turn before futures, timers and other actors get theirs.
const LANE_BUDGET: usize = 64;

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
    /// A change of its `user_config` was made, or refused for this reason.
    Configured(Result<(), Box<str>>),
    /// A health check went well, or failed for this reason.
    Checked {
        /// The number that it was asked for by.
        number: u64,
        outcome: Result<(), Box<str>>,
    },
    /// It has stopped as it was told, or its thread has ended.
    Stopped,
}

/// Everything a replica's loop is started with.
pub(crate) struct Parts<A: Actor> {
    pub(crate) factory: Arc<Factory<A>>,
    pub(crate) lane: Arc<Lane<A>>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) desk: Rc<Desk>,
    pub(crate) user: Configured<A>,
    pub(crate) leases: Leases,
    pub(crate) health: Checked<A>,
    pub(crate) patience: Patience,
    pub(crate) on_event: Box<dyn Fn(Event)>,
}

/// Where an actor is in its life.
enum Phase {
    /// Its state has to be made.
    Starting,
    /// Its shares of GPUs are on their way; its state is made with them.
    Leasing,
    /// A start failed; the next attempt comes after this pause.
    BackingOff(Pin<Box<Sleep>>),
    /// Its state takes a `user_config`; calls wait.
    Configuring(Configuring),
    /// Its first health check takes time; calls wait.
    Proving(Proving),
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
    /// The health check that is being made.
    checking: Checking,
    rebuilding: bool,
    /// Calls wait for a change of its `user_config`.
    holding: bool,
    /// The next start is meant: it is no restart after a failure.
    on_purpose: bool,
    /// Set for the next deadline of a waiting call that nobody else keeps.
    alarm: Option<Pin<Box<Sleep>>>,
    parts: Parts<A>,
}

/// One actor on its thread.
pub(crate) struct Core<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) lane: Arc<Lane<A>>,
    pub(crate) desk: Rc<Desk>,
    pub(crate) cell: RefCell<Cell<A>>,
}

impl<A: Actor<Context = ReplicaContext<A>>> Core<A> {
    /// Whether a call may be handled right now on the caller's stack: nothing waits, nothing holds it.
    pub(crate) fn takes_direct(&self, cell: &Cell<A>) -> bool {
        matches!(cell.phase, Phase::Running)
            && self.lane.waiting() == 0
            && self.lane.undisturbed()
            && !cell.ctx.held()
            && self.desk.running() < self.lane.concurrency()
    }

    /// After a direct call: rebuilds after a panic, wakes the loop when it left something to poll.
    pub(crate) fn settle_direct(&self, cell: &mut Cell<A>, mark: (usize, usize)) {
        let rebuilt = self.desk.has_panicked();
        if rebuilt {
            cell.rebuild_if_needed();
        }
        if rebuilt || cell.ctx.left_work(mark) || !matches!(cell.phase, Phase::Running) {
            self.lane.waker().wake();
        }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Cell<A> {
    /// From now on it takes calls.
    fn up(&mut self) {
        self.phase = Phase::Running;
        self.parts.lane.gate.set_idle(false);
        let cells = &self.parts.desk.cells;
        cells.starts.bump();
        let on_purpose = std::mem::take(&mut self.on_purpose);
        if !std::mem::replace(&mut self.rebuilding, true) {
            (self.parts.on_event)(Event::Ready);
        } else if !on_purpose {
            cells.restarts.bump();
        }
    }

    /// Drops the state and the futures that belong to it; those of requests stay.
    fn drop_state(&mut self) {
        let ctx = &mut self.ctx;
        self.checking.drop_rest(&ctx.desk);
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
        if matches!(self.phase, Phase::BackingOff(_) | Phase::Ended) {
            // There is none, and the next is made after the pause or never.
            return;
        }
        if self.ctx.stop_asked && !self.ctx.desk.has_panicked() && !self.user_stop() {
            return;
        }
        if self.ctx.desk.take_panic() || self.ctx.stop_asked {
            let interrupted = if self.interrupt_configuring() {
                Some("it ended while it took its user_config")
            } else {
                self.interrupt_proving().then_some("it ended during its first health check")
            };
            self.parts.lane.gate.set_idle(true);
            let unfit = self.blame_check();
            self.drop_state();
            // A drop that panics in the old state is part of the same failure.
            self.ctx.desk.take_panic();
            match interrupted {
                _ if unfit => {}
                Some(why) => self.stumbled(why.into(), false),
                None => self.start(),
            }
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
        if matches!(self.phase, Phase::Starting | Phase::Leasing | Phase::BackingOff(_)) {
            // What panics while there is no state puts none in doubt.
            self.ctx.desk.take_panic();
        }
        match &mut self.phase {
            Phase::Ended => return false,
            Phase::Starting => self.start(),
            Phase::Leasing => match self.ctx.leases.poll_get(cx) {
                Poll::Pending => return self.obey(cx, lane),
                Poll::Ready(Ok(())) => self.start(),
                Poll::Ready(Err(why)) => {
                    self.stumbled(format!("it got no share of a GPU: {why}").into(), false);
                }
            },
            Phase::BackingOff(pause) => {
                if pause.as_mut().poll(cx).is_pending() {
                    return self.obey(cx, lane);
                }
                self.phase = Phase::Starting;
                return true;
            }
            Phase::Configuring(_) | Phase::Proving(_) | Phase::Running => {}
        }
        if !self.has_state() {
            return true;
        }
        if self.ctx.leases.poll_lost(cx) {
            // Everything that the state has made on the device is void.
            self.ctx.desk.note_panic();
        }
        let more = self.work(cx, lane) | self.configure(cx, lane) | self.go_on_proving(cx);
        self.rebuild_if_needed();
        self.obey(cx, lane) || more || !self.has_state()
    }

    fn has_state(&self) -> bool {
        matches!(self.phase, Phase::Configuring(_) | Phase::Proving(_) | Phase::Running)
    }

    fn work(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) -> bool {
        let calls = matches!(self.phase, Phase::Running) && lane.change_waits().is_none();
        let Some(actor) = &mut self.actor else { return false };
        let free = self.ctx.poll_waits(actor, cx);
        self.check(cx, lane, free);
        let (Some(actor), ctx) = (&mut self.actor, &mut self.ctx) else { return false };
        if !free {
            return false;
        }
        ctx.refill_mailbox_budget();
        self.mailbox.poll(actor, ctx, cx);
        let mut more = ctx.mailbox_left.get() == 0;
        ctx.refill_mailbox_budget();
        let mut begun = 0;
        while calls && !ctx.held() && begun < LANE_BUDGET && ctx.desk.running() < lane.concurrency() {
            let Some(job) = lane.pop() else { break };
            begun += 1;
            if job.abandoned() {
                // Its message may panic when dropped; the state has not seen it.
                drop_guarded(job);
            } else if guarded(|| job.run(actor, ctx)).is_err() {
                ctx.desk.note_panic();
            }
        }
        more |= begun == LANE_BUDGET && lane.waiting() > 0;
        ctx.poll_items(actor, cx) || more || (ctx.held() && ctx.waits.is_empty())
    }

    /// Ends waiting calls at the deadlines that nobody else keeps; the loop is woken for the next of them.
    fn keep_deadlines(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) {
        while let Some(at) = lane.ends_at() {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            lane.overdue().into_iter().for_each(|job| job.expire(&self.ctx.desk.cells));
        }
        self.alarm = None;
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
            self.ctx.leases.give_back();
            // A check or a change may be under way.
            drop_guarded(std::mem::replace(&mut self.phase, Phase::Ended));
            (self.parts.on_event)(Event::Stopped);
            return true;
        }
        false
    }
}
