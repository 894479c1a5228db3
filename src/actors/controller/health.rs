//! Health: all replicas are asked in rounds. Who fails its checks is replaced, who fails its requests alone too.

use std::{cell::Cell, sync::Arc, time::Duration};

use actix::{AsyncContext, Handler, Message};
use tokio::time::Instant;

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{Controller, drain, holding, losing::Fault},
        fleet::{BackendEntry, Fleet, ReplicaEntry},
        reconcile::{ReplicaState, wave},
    },
    config::BackendConfig,
    error::ServeError,
    health::{Answers, FAILURES_MAX, Standing, Tally},
    ids::BackendName,
    resources::Pool,
};

/// Shortest pause between two sweeps, whatever the periods are.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// The next sweep over all replicas. It ends with the Controller's state, whose next looks at every backend at once.
#[derive(Default)]
pub(super) struct Sweeps(Cell<Option<Instant>>);

/// A replica that is to be replaced, and why.
struct Unhealthy {
    backend: BackendName,
    generation: u64,
    why: Box<str>,
}

impl Controller {
    /// Sees to it that the next sweep is not too late for this backend.
    pub(super) fn watch(&self, entry: &BackendEntry, ctx: &mut ReplicaContext<Self>) {
        self.sweep_at(next_look(entry), ctx);
    }

    fn sweep_at(&self, at: Instant, ctx: &mut ReplicaContext<Self>) {
        let now = Instant::now();
        let at = at.max(now + SWEEP_PAUSE);
        let planned = &self.sweeps.0;
        if planned.get().is_none_or(|planned| at < planned) {
            planned.set(Some(at));
            ctx.notify_later(Sweep, at - now);
        }
    }

    /// A replica has made its check.
    pub(super) fn checked(
        &self,
        backend: &BackendName,
        generation: u64,
        number: u64,
        outcome: Result<(), Box<str>>,
        ctx: &mut ReplicaContext<Self>,
    ) {
        let unhealthy = {
            let mut fleet = self.office.fleet();
            let Some(entry) = fleet.backends.get_mut(backend) else { return };
            let replica = entry.replica(generation).filter(|r| r.state == ReplicaState::Running);
            let Some(replica) = replica else { return };
            let (slot, standing) = (replica.id.slot, replica.record.answered(number, outcome.is_ok()));
            if standing == Some(Standing::Healthy) {
                replica.reason = None;
            }
            let (Some(standing), Err(why)) = (standing, outcome) else { return };
            let why = failed(slot, standing, &format!("its health check failed: {why}"));
            replica.reason = Some(why.clone());
            entry.last_error = Some(why.clone());
            (standing == Standing::Unhealthy).then_some(why)
        };
        if let Some(why) = unhealthy {
            self.relieve(backend, generation, &why, ctx);
        }
    }

    /// A replica that answers, and says that it is not well, finishes what it has while another comes in its place.
    /// Where many are not well the reason may be none of theirs: no more than a wave are out at once, and the rest
    /// serves on.
    fn relieve(&self, name: &BackendName, generation: u64, why: &str, ctx: &mut ReplicaContext<Self>) {
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        let Some(entry) = backends.get_mut(name) else { return };
        let Some(replica) = entry.replica(generation) else { return };
        let (slot, release) = (replica.id.slot, replica.release);
        let failed = || ServeError::StartFailed { backend: name.clone(), why: why.into() };
        let goes_back = release == entry.release
            && entry.before_is_another_release()
            && self.office.undo(name, entry, failed());
        if !goes_back {
            let wanted = entry.wanted();
            let running = running(&entry.replicas).count();
            let out = wanted.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX));
            if out >= wave(wanted) {
                return;
            }
            if running == 1 && !entry.holding && wanted > 0 {
                holding::begin(name, entry, ctx);
            }
            entry.metrics.replaced(slot);
            entry.failed_replacements += 1;
            send_away(name, entry, generation, why.into(), pool, ctx);
        }
        drop(fleet);
        self.reconcile(name, ctx);
    }

    /// One that does not answer is stopped: out of the routing table at once; what waits there goes to siblings, or
    /// where there is none waits for the one that is started in its place.
    pub(super) fn replace(
        &self,
        backend: &BackendName,
        generation: u64,
        why: Box<str>,
        ctx: &mut ReplicaContext<Self>,
    ) {
        let control = {
            let mut fleet = self.office.fleet();
            let Some(entry) = fleet.backends.get_mut(backend) else { return };
            let Some(replica) = entry.replica(generation) else { return };
            let control = Arc::clone(&replica.control);
            if running(&entry.replicas).count() == 1 && !entry.holding && entry.wanted() > 0 {
                holding::begin(backend, entry, ctx);
            }
            control
        };
        control.stop();
        self.lost(backend, generation, why, Fault::Replica, ctx);
        // Its thread may hang, and not get to it.
        control.close();
    }
}

/// What is told of a failed check.
fn failed(slot: u32, standing: Standing, why: &str) -> Box<str> {
    let failures = match standing {
        Standing::Healthy => 0,
        Standing::Failing(failures) => failures,
        Standing::Unhealthy => FAILURES_MAX,
    };
    format!("replica {slot}: {why} ({failures} of {FAILURES_MAX} in a row)").into()
}

/// How long a check is waited for: a call may keep the replica busy for as long as a request may take, and a state
/// that is made again for as long as a start may.
fn patience(config: &BackendConfig, replica: &ReplicaEntry) -> Duration {
    let busy = config.health_check_timeout.max(config.request_timeout.unwrap_or_default());
    if replica.control.remaking() { busy.max(config.startup_timeout) } else { busy }
}

/// When there is something to do for a backend: its next round, or a check that has taken too long.
fn next_look(entry: &BackendEntry) -> Instant {
    let ends = |replica: &ReplicaEntry| replica.record.ends_at(patience(&entry.config, replica));
    let round = entry.checked + entry.config.health_check_period;
    running(&entry.replicas).filter_map(ends).fold(round, Instant::min)
}

fn running(replicas: &[ReplicaEntry]) -> impl Iterator<Item = &ReplicaEntry> {
    replicas.iter().filter(|replica| replica.state == ReplicaState::Running)
}

/// Look who has to be asked, and who should have answered.
#[derive(Message)]
#[rtype(result = "()")]
struct Sweep;

impl Handler<Sweep> for Controller {
    type Result = ();
    fn handle(&mut self, _: Sweep, ctx: &mut Self::Context) {
        let now = Instant::now();
        if self.sweeps.0.get().is_some_and(|planned| planned > now) {
            // One that was planned for later before.
            return;
        }
        self.sweeps.0.set(None);
        let (mut unhealthy, mut ejected) = (Vec::new(), Vec::new());
        {
            let mut fleet = self.office.fleet();
            let Fleet { backends, pool, .. } = &mut *fleet;
            let mut next = None;
            for (name, entry) in backends.iter_mut().filter(|(_, entry)| !entry.deleting()) {
                unhealthy.extend(give_up(name, entry, now));
                if entry.checked + entry.config.health_check_period <= now {
                    entry.checked = now;
                    if eject(name, entry, pool, ctx) {
                        ejected.push(name.clone());
                    }
                    ask_all(entry, now);
                }
                let at = next_look(entry);
                next = Some(next.map_or(at, |first| at.min(first)));
            }
            if let Some(at) = next {
                self.sweep_at(at, ctx);
            }
        }
        for Unhealthy { backend, generation, why } in unhealthy {
            self.replace(&backend, generation, why, ctx);
        }
        ejected.iter().for_each(|name| self.reconcile(name, ctx));
    }
}

/// Asks those that have nothing else to do for us.
fn ask_all(entry: &mut BackendEntry, now: Instant) {
    let running = entry.replicas.iter_mut().filter(|r| r.state == ReplicaState::Running);
    for replica in running.filter(|replica| replica.changing.is_none()) {
        if let Some(number) = replica.record.ask(now) {
            replica.control.check(number);
        }
    }
}

/// Gives up the checks that have taken too long, and asks for others.
fn give_up(name: &BackendName, entry: &mut BackendEntry, now: Instant) -> Vec<Unhealthy> {
    let mut unhealthy = Vec::new();
    for replica in entry.replicas.iter_mut().filter(|r| r.state == ReplicaState::Running) {
        if replica.changing.is_some() {
            // The change has time limits of its own.
            replica.record.excuse(now);
            continue;
        }
        let patience = patience(&entry.config, replica);
        let Some(standing) = replica.record.overdue(now, patience) else { continue };
        replica.seat.note_silence();
        let after = patience.as_secs_f64();
        let why =
            failed(replica.id.slot, standing, &format!("its health check was not answered within {after} s"));
        replica.reason = Some(why.clone());
        entry.last_error = Some(why.clone());
        if standing == Standing::Unhealthy {
            let generation = replica.id.generation;
            unhealthy.push(Unhealthy { backend: name.clone(), generation, why });
        } else if let Some(number) = replica.record.ask(now) {
            replica.control.check(number);
        }
    }
    unhealthy
}

/// Drains those that fail what their siblings do not; true when there are some.
fn eject(
    name: &BackendName,
    entry: &mut BackendEntry,
    pool: &mut Pool,
    ctx: &mut ReplicaContext<Controller>,
) -> bool {
    let running = entry.replicas.iter_mut().filter(|r| r.state == ReplicaState::Running);
    let tallies: Vec<_> = running
        .map(|replica| {
            let (given, failed, failed_runs) = replica.cells.own_answers();
            let answers = replica.recent.look(Answers { given, failed, failed_runs });
            Tally { replica: replica.id.generation, answers }
        })
        .collect();
    let wanted = entry.wanted();
    if entry.changing() {
        // It is being changed, or goes back; what fails by the change is for that to find out.
        return false;
    }
    let out = entry.ejector.round(usize::try_from(wanted).unwrap_or(usize::MAX), &tallies);
    for Tally { replica, answers } in tallies.iter().filter(|tally| out.contains(&tally.replica)) {
        let Some(slot) = entry.replica(*replica).map(|replica| replica.id.slot) else { continue };
        let why = format!(
            "replica {slot} is replaced: {} of its last {} answers failed, while those of the others did not",
            answers.failed, answers.given
        );
        entry.metrics.ejected(slot);
        send_away(name, entry, *replica, why.into(), pool, ctx);
    }
    !out.is_empty()
}

/// Drains a replica, and has another one started in its place.
fn send_away(
    name: &BackendName,
    entry: &mut BackendEntry,
    generation: u64,
    why: Box<str>,
    pool: &mut Pool,
    ctx: &mut ReplicaContext<Controller>,
) {
    entry.last_error = Some(why.clone());
    drain(name, entry, generation, ctx);
    if let Some(replica) = entry.replica(generation) {
        replica.reason = Some(why);
    }
    // With room for one more it need not wait until the other has gone.
    let config = entry.config.clone();
    let _ = entry.claim(name, &config, pool);
}
