//! A replica takes its `user_config`: before its first call, with each new state, and when it changes.

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
        configure::{Change, Manner},
        context::{Desk, ReplicaContext},
        execute::{Going, Step},
        lane::Lane,
        replica::{Cell, Event, Phase},
    },
    error::ServeError,
};

/// The code takes its `user_config`, which takes time.
pub(super) struct Configuring {
    going: Going<()>,
    alarm: Pin<Box<Sleep>>,
    /// None: it is a new state's first.
    change: Option<Change>,
}

impl Configuring {
    fn poll(&mut self, cx: &mut Context<'_>, desk: &Desk) -> Poll<Result<(), ServeError>> {
        let polled = self.going.poll(cx, desk);
        if polled.is_pending() && self.alarm.as_mut().poll(cx).is_ready() {
            // It was cut off in the middle of something.
            desk.note_panic();
            return Poll::Ready(Err(ServeError::DeadlineExceeded));
        }
        polled
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Cell<A> {
    /// A new state takes the configuration in force, if there is one; then it takes calls.
    pub(super) fn introduce(&mut self) {
        let user = &self.parts.user;
        let step = match (&user.takes, &user.config, &mut self.actor) {
            (Some(takes), Some(config), Some(actor)) => takes.apply(actor, &mut self.ctx, config),
            _ => Step::Done(Ok(())),
        };
        match step {
            Step::Done(result) => self.introduced(result),
            Step::Going(going) => self.wait_for(going, None),
        }
    }

    fn introduced(&mut self, result: Result<(), ServeError>) {
        match result {
            Ok(()) => self.prove(),
            Err(why) => {
                let permanent = matches!(why, ServeError::Invalid { .. });
                self.drop_state();
                self.stumbled(format!("it did not take its user_config: {why}").into(), permanent);
            }
        }
    }

    fn wait_for(&mut self, going: Going<()>, change: Option<Change>) {
        // Callers go to siblings meanwhile.
        self.parts.lane.gate.set_idle(true);
        let alarm = Box::pin(sleep(self.parts.user.timeout));
        self.phase = Phase::Configuring(Configuring { going, alarm, change });
    }

    /// Goes on with a change: waits until nothing runs, then hands it over; true when there is more to do.
    pub(super) fn configure(&mut self, cx: &mut Context<'_>, lane: &Lane<A>) -> bool {
        match &mut self.phase {
            Phase::Configuring(configuring) => {
                let desk = Rc::clone(&self.parts.desk);
                let Poll::Ready(result) = configuring.poll(cx, &desk) else { return false };
                let Phase::Configuring(Configuring { going, change, .. }) =
                    mem::replace(&mut self.phase, Phase::Running)
                else {
                    return false;
                };
                going.discard(&desk);
                match change {
                    None => self.introduced(result),
                    Some(change) => self.changed(change, result),
                }
                true
            }
            Phase::Running => {
                let Some(manner) = lane.change_waits() else {
                    let withdrawn = mem::take(&mut self.holding);
                    if withdrawn {
                        lane.gate.set_idle(false);
                    }
                    return withdrawn;
                };
                self.holding = true;
                lane.gate.set_idle(true);
                let free = self.ctx.desk.running() == 0 || manner == Manner::BackNow;
                if free
                    && !self.ctx.held()
                    && let Some(change) = lane.take_change()
                {
                    self.begin(change);
                    return true;
                }
                false
            }
            _ => false,
        }
    }

    fn begin(&mut self, change: Change) {
        let step = match (&self.parts.user.takes, &change.to, &mut self.actor) {
            (Some(takes), Some(config), Some(actor)) => takes.apply(actor, &mut self.ctx, config),
            _ => return self.make_anew(change),
        };
        match step {
            Step::Done(result) => self.changed(change, result),
            Step::Going(going) => self.wait_for(going, Some(change)),
        }
    }

    fn changed(&mut self, change: Change, result: Result<(), ServeError>) {
        self.holding = false;
        self.parts.lane.gate.set_idle(false);
        match (result, change.manner) {
            (Ok(()), _) => {
                self.parts.user.config = change.to;
                (self.parts.on_event)(Event::Configured(Ok(())));
            }
            (Err(why), Manner::Try) => {
                (self.parts.on_event)(Event::Configured(Err(why.to_string().into())));
            }
            (Err(_), Manner::Back | Manner::BackNow) => self.make_anew(change),
        }
    }

    /// The state ends as if it were told to, and a new one begins with what the change says.
    fn make_anew(&mut self, Change { to, .. }: Change) {
        self.parts.user.config = to;
        self.user_end();
        self.drop_state();
        self.ctx.desk.take_panic();
        self.holding = false;
        self.on_purpose = true;
        self.start();
        (self.parts.on_event)(Event::Configured(Ok(())));
    }

    /// The state that was being configured ends, for a reason of its own; true when it was a new one.
    pub(super) fn interrupt_configuring(&mut self) -> bool {
        if !matches!(self.phase, Phase::Configuring(_)) {
            return false;
        }
        let phase = mem::replace(&mut self.phase, Phase::Starting);
        let Phase::Configuring(Configuring { going, change, .. }) = phase else { return false };
        going.discard(&self.parts.desk);
        let Some(change) = change else { return true };
        self.holding = false;
        let outcome = match change.manner {
            Manner::Try => Err("its state ended meanwhile".into()),
            Manner::Back | Manner::BackNow => {
                self.parts.user.config = change.to;
                Ok(())
            }
        };
        (self.parts.on_event)(Event::Configured(outcome));
        false
    }
}
