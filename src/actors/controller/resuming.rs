//! A Controller that begins, at first or after a restart, takes up what was under way.

use std::{sync::Arc, time::Duration};

use actix::{Actor, AsyncContext};

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{
            Controller, Reconcile,
            changes::ChangeTimedOut,
            events::{DrainTimedOut, StartTimedOut},
            holding,
        },
        reconcile::ReplicaState,
    },
    traffic::window::SAMPLE_PERIOD,
};

impl Actor for Controller {
    type Context = ReplicaContext<Self>;

    /// Also after a restart: takes up what was under way.
    fn started(&mut self, ctx: &mut Self::Context) {
        self.open_own(ctx);
        ctx.run_interval(SAMPLE_PERIOD, |controller, _| {
            let now = tokio::time::Instant::now();
            controller.office.fleet().endpoints.values_mut().for_each(|endpoint| endpoint.sample(now));
        });
        let mut closed = Vec::new();
        for (name, entry) in &mut self.office.fleet().backends {
            // Timers end with a state; these must not.
            entry.look_again = None;
            if entry.holding {
                holding::watch(name, ctx);
            } else {
                closed.push(Arc::clone(&entry.routes));
            }
            for replica in &entry.replicas {
                let (backend, generation) = (name.clone(), replica.id.generation);
                let left = |timeout: Duration| timeout.saturating_sub(replica.since.elapsed());
                if let Some(changing) = &replica.changing {
                    let left =
                        entry.config.graceful_shutdown_timeout.saturating_sub(changing.since.elapsed());
                    let (backend, attempt) = (name.clone(), changing.attempt);
                    ctx.notify_later(ChangeTimedOut { backend, generation, attempt }, left);
                }
                match replica.state {
                    ReplicaState::Running => {}
                    ReplicaState::Starting => {
                        let left = left(entry.config.startup_timeout);
                        ctx.notify_later(StartTimedOut { backend, generation }, left);
                    }
                    ReplicaState::Draining => {
                        let now = tokio::time::Instant::now();
                        let left = replica.drains_until.map_or(Duration::ZERO, |at| at - now);
                        ctx.notify_later(DrainTimedOut { backend, generation }, left);
                    }
                }
            }
            ctx.notify(Reconcile(name.clone()));
        }
        // It may have ended between having decided that calls wait no longer and letting them go.
        closed.iter().for_each(|routes| routes.let_go());
    }
}

#[cfg(test)]
mod tests;
