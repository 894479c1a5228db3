//! How the state of a replica is made: with its shares of GPUs, by its factory, and again after a pause when that fails.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, ActorState};
use tokio::time::{Instant, sleep};

use crate::{
    actors::{
        context::ReplicaContext,
        replica::{Cell, Event, Phase},
    },
    error::{BoxError, ServeError},
};

/// Longest pause between two attempts to start.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl<A: Actor<Context = ReplicaContext<A>>> Cell<A> {
    /// Makes the state and starts it; a failure is retried after a pause, too many end the replica.
    pub(super) fn start(&mut self) {
        if !self.ctx.leases.are_ready() {
            // Callers go to siblings meanwhile.
            self.parts.lane.gate.set_idle(true);
            self.phase = Phase::Leasing;
            return;
        }
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
        let (why, permanent): (Box<str>, bool) = match made {
            Ok(Ok(actor)) => {
                self.actor = Some(actor);
                self.ctx.state = ActorState::Running;
                return self.introduce();
            }
            Ok(Err(error)) => (error.to_string().into(), is_permanent(&error)),
            Err(panic) => (format!("panicked: {panic}").into(), false),
        };
        self.drop_state();
        self.stumbled(why, permanent);
    }

    /// Tries again after a pause, unless that is useless or has been done often enough.
    pub(super) fn stumbled(&mut self, why: Box<str>, permanent: bool) {
        self.parts.lane.gate.set_idle(true);
        let (now, patience) = (Instant::now(), self.parts.patience);
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > patience.window) {
            self.failures.pop_front();
        }
        let failed = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        if permanent || failed > patience.failures_max {
            self.ctx.leases.give_back();
            (self.parts.on_event)(Event::GaveUp(why));
            self.phase = Phase::Ended;
        } else {
            (self.parts.on_event)(Event::Stumbled(why));
            let pause = patience.backoff.saturating_mul(1 << (failed - 1).min(16)).min(BACKOFF_MAX);
            self.phase = Phase::BackingOff(Box::pin(sleep(pause)));
        }
    }
}

/// Whether the factory's error will be the same whenever it is tried again.
fn is_permanent(error: &BoxError) -> bool {
    #[cfg(feature = "gpu")]
    if let Some(own) = error.downcast_ref::<crate::gpu::GpuError>() {
        return own.permanent();
    }
    matches!(error.downcast_ref::<ServeError>(), Some(ServeError::Invalid { .. }))
}
