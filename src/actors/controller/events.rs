//! What the Controller is told of its replicas: ready, failed, gone, late.

use std::{sync::Arc, time::Instant};

use actix::{AsyncContext, Handler, Message};

use crate::{
    actors::{
        controller::{Controller, STOP_GRACE, losing::Fault},
        reconcile::ReplicaState,
        replica::Event,
    },
    ids::BackendName,
};

/// Something happened to a replica.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Happened {
    pub(super) backend: BackendName,
    pub(super) generation: u64,
    pub(super) event: Event,
}

impl Handler<Happened> for Controller {
    type Result = ();
    fn handle(&mut self, Happened { backend, generation, event }: Happened, ctx: &mut Self::Context) {
        match event {
            Event::Ready => {
                let mut fleet = self.office.fleet();
                let replica = fleet.backends.get_mut(&backend).and_then(|entry| entry.replica(generation));
                if let Some(replica) = replica
                    && replica.state == ReplicaState::Starting
                {
                    replica.state = ReplicaState::Running;
                    replica.since = Instant::now();
                    replica.reason = None;
                }
                drop(fleet);
                self.reconcile(&backend, ctx);
            }
            Event::Stumbled(why) => {
                let mut fleet = self.office.fleet();
                let Some(entry) = fleet.backends.get_mut(&backend) else { return };
                let Some(replica) = entry.replica(generation) else { return };
                match replica.state {
                    ReplicaState::Starting => replica.reason = Some(why.clone()),
                    ReplicaState::Running => {}
                    // Why it goes is told already.
                    ReplicaState::Draining => return,
                }
                entry.last_error = Some(why);
            }
            Event::Configured(outcome) => self.configured(&backend, generation, outcome, ctx),
            Event::Checked { number, outcome } => self.checked(&backend, generation, number, outcome, ctx),
            Event::GaveUp(why) => self.lost(&backend, generation, why, Fault::Replica, ctx),
            Event::Stopped => {
                let mut fleet = self.office.fleet();
                let Some(entry) = fleet.backends.get_mut(&backend) else { return };
                let replica = entry.replica(generation);
                let draining = replica.as_ref().map(|r| r.state == ReplicaState::Draining);
                let control = replica.map(|r| Arc::clone(&r.control));
                if draining == Some(true) {
                    entry.remove(generation);
                }
                drop(fleet);
                // Done already by a replica that ended itself.
                control.iter().for_each(|control| control.close());
                match draining {
                    Some(true) => self.reconcile(&backend, ctx),
                    Some(false) => {
                        self.lost(&backend, generation, "its thread ended".into(), Fault::Thread, ctx);
                    }
                    None => {}
                }
            }
        }
    }
}

/// A replica should have been ready by now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartTimedOut {
    pub(super) backend: BackendName,
    pub(super) generation: u64,
}

impl Handler<StartTimedOut> for Controller {
    type Result = ();
    fn handle(&mut self, StartTimedOut { backend, generation }: StartTimedOut, ctx: &mut Self::Context) {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(&backend) else { return };
        let after = entry.config.startup_timeout.as_secs_f64();
        let Some(replica) = entry.replica(generation) else { return };
        let reason = replica.reason.clone();
        if replica.state != ReplicaState::Starting {
            return;
        }
        replica.control.stop();
        drop(fleet);
        let why = match reason {
            Some(reason) => format!("it was not ready within {after} s; the last failure: {reason}"),
            None => format!("it was not ready within {after} s"),
        };
        self.lost(&backend, generation, why.into(), Fault::Replica, ctx);
    }
}

/// A replica should have drained by now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct DrainTimedOut {
    pub(super) backend: BackendName,
    pub(super) generation: u64,
}

impl Handler<DrainTimedOut> for Controller {
    type Result = ();
    fn handle(&mut self, DrainTimedOut { backend, generation }: DrainTimedOut, ctx: &mut Self::Context) {
        if let Some(replica) =
            self.office.fleet().backends.get_mut(&backend).and_then(|entry| entry.replica(generation))
        {
            replica.control.stop();
            // A handler that never returns keeps its thread; the backend does not wait for it.
            ctx.notify_later(Happened { backend, generation, event: Event::Stopped }, STOP_GRACE);
        }
    }
}
