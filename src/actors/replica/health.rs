//! A replica's health checks: the first of each state, and those that the Controller asks for.

use std::{
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix::Actor;
use tokio::time::{Sleep, sleep};

use crate::{
    actors::{
        context::{Desk, ReplicaContext},
        execute::{Going, Step},
        lane::Lane,
        replica::{Cell, Event, Phase},
    },
    error::ServeError,
};

/// The first check of a new replica, which takes time.
pub(super) struct Proving {
    going: Going<()>,
    alarm: Pin<Box<Sleep>>,
}

/// A check that is made beside calls.
#[derive(Default)]
pub(super) struct Checking {
    /// What is left of it.
    going: Option<Going<()>>,
    /// The number that its outcome is told with; a state that is made again takes it over.
    number: Option<u64>,
    /// It is the first of a state that was made again, which has failed to start if this fails.
    first: bool,
}

impl Checking {
    /// Drops what is left; the number stays.
    pub(super) fn drop_rest(&mut self, desk: &Desk) {
        self.first = false;
        if let Some(going) = self.going.take() {
            going.discard(desk);
        }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Cell<A> {
    /// A new state shows that it is well; then it takes calls. Calls that wait for a state that is made again do not
    /// wait for a check that takes its time.
    pub(super) fn prove(&mut self) {
        match self.begin_check() {
            None => self.up(),
            Some(Step::Done(result)) => self.proven(result),
            Some(Step::Going(going)) if self.rebuilding => {
                (self.checking.going, self.checking.first) = (Some(going), true);
                self.up();
            }
            Some(Step::Going(going)) => {
                let alarm = Box::pin(sleep(self.parts.health.timeout));
                self.phase = Phase::Proving(Proving { going, alarm });
            }
        }
    }

    /// Hands the question to the user's code, if that answers it.
    fn begin_check(&mut self) -> Option<Step<(), ()>> {
        let check = self.parts.health.check?;
        Some(check(self.actor.as_mut()?, &mut self.ctx))
    }

    /// The first check of a state before it takes calls has ended.
    fn proven(&mut self, result: Result<(), ServeError>) {
        match result {
            Ok(()) => {
                self.up();
                self.tell(Ok(()));
            }
            Err(why) => self.unfit(&why),
        }
    }

    /// The first check of a state has failed: it has not started.
    fn unfit(&mut self, why: &ServeError) {
        let why: Box<str> = format!("its health check failed: {why}").into();
        self.drop_state();
        self.tell(Err(why.clone()));
        self.stumbled(why, false);
    }

    /// Goes on with the first check; true when it has ended.
    pub(super) fn go_on_proving(&mut self, cx: &mut Context<'_>) -> bool {
        let desk = Rc::clone(&self.parts.desk);
        let Phase::Proving(proving) = &mut self.phase else { return false };
        let result = match proving.going.poll(cx, &desk) {
            Poll::Ready(result) => result,
            Poll::Pending if proving.alarm.as_mut().poll(cx).is_ready() => {
                let after = self.parts.health.timeout.as_secs_f64();
                Err(ServeError::Internal(format!("no answer within {after} s").into()))
            }
            Poll::Pending => return false,
        };
        if let Phase::Proving(Proving { going, .. }) = mem::replace(&mut self.phase, Phase::Running) {
            going.discard(&desk);
        }
        self.proven(result);
        true
    }

    /// The state that was being checked for the first time ends, for a reason of its own; true when it was so.
    pub(super) fn interrupt_proving(&mut self) -> bool {
        if !matches!(self.phase, Phase::Proving(_)) {
            return false;
        }
        let phase = mem::replace(&mut self.phase, Phase::Starting);
        if let Phase::Proving(Proving { going, .. }) = phase {
            going.discard(&self.parts.desk);
        }
        true
    }

    /// Makes the check that is asked for, before the calls of this turn, and goes on with one that takes its time.
    /// `free`: nothing holds the actor.
    pub(super) fn check(&mut self, cx: &mut Context<'_>, lane: &Lane<A>, free: bool) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let own = self.parts.health.check.is_some();
        if (!own || (free && !self.ctx.held()))
            && let Some(number) = lane.take_check()
        {
            let asked_again = self.checking.number.replace(number).is_some();
            if asked_again || self.checking.going.is_none() {
                self.check_now();
            }
        }
        let Some(going) = &mut self.checking.going else { return };
        let desk = Rc::clone(&self.parts.desk);
        if let Poll::Ready(result) = going.poll(cx, &desk) {
            let first = self.checking.first;
            self.checking.drop_rest(&desk);
            match result {
                Err(why) if first => self.unfit(&why),
                result => self.checked(result),
            }
        }
    }

    fn check_now(&mut self) {
        // One that has not ended has been given up.
        let desk = Rc::clone(&self.parts.desk);
        self.checking.drop_rest(&desk);
        match self.begin_check() {
            None => self.checked(Ok(())),
            Some(Step::Done(result)) => self.checked(result),
            Some(Step::Going(going)) => self.checking.going = Some(going),
        }
    }

    /// A future of the context has panicked; if it was that of the check, this has failed. True when it was the first
    /// of its state, which has not started then.
    pub(super) fn blame_check(&mut self) -> bool {
        let Some(message) = self.checking.going.as_ref().and_then(Going::panicked) else { return false };
        let why = ServeError::Panicked { message };
        if self.checking.first {
            self.unfit(&why);
            return true;
        }
        let desk = Rc::clone(&self.parts.desk);
        self.checking.drop_rest(&desk);
        self.checked(Err(why));
        false
    }

    fn checked(&mut self, result: Result<(), ServeError>) {
        self.tell(result.map_err(|why| why.to_string().into()));
    }

    /// Tells whoever asked, if somebody did.
    fn tell(&mut self, outcome: Result<(), Box<str>>) {
        if let Some(number) = self.checking.number.take() {
            (self.parts.on_event)(Event::Checked { number, outcome });
        }
    }
}
