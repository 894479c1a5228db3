//! What a deploy does to all that there is: endpoints change together, and changes under way are waited for.

use std::collections::BTreeSet;

use actix::{Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        controller::{
            Controller, Outcome,
            endpoints::watch,
            resolved::{Resolved, start_comparing},
        },
        fleet::EndpointEntry,
    },
    endpoint::Checked,
    guard::drop_guarded,
    ids::EndpointName,
    store::decl_of,
};

/// Make or change these endpoints and take those away, all at once or not at all: no caller sees some of it, and
/// none that is there before and after is missing for a moment.
#[derive(Clone, Message)]
#[rtype(result = "Outcome")]
pub(crate) struct SetEndpoints {
    pub(crate) set: Vec<(EndpointName, Checked)>,
    pub(crate) gone: Vec<EndpointName>,
}

impl Handler<SetEndpoints> for Controller {
    type Result = Outcome;
    fn handle(&mut self, SetEndpoints { set, gone }: SetEndpoints, _: &mut Self::Context) -> Outcome {
        let office = &self.office;
        let fleet = office.fleet();
        let mut states = Vec::with_capacity(set.len());
        for (_, declared) in &set {
            states.push(Resolved::find(&fleet, declared)?.check(declared)?);
            start_comparing(office, declared)?;
        }
        // The Controller alone changes the fleet: what was found stays so while this is written down.
        drop(fleet);
        let slots: Vec<_> =
            set.iter().map(|(name, declared)| (office.directory.slot(name), declared)).collect();
        let mut replaced = Vec::new();
        office.routes.replace(&gone, &slots, || {
            office.remember(|saved| {
                set.iter().for_each(|(name, declared)| saved.put_endpoint(decl_of(name, declared)));
                gone.iter().for_each(|name| saved.remove_endpoint(name));
            })?;
            let mut fleet = office.fleet();
            for ((slot, declared), resolved) in slots.iter().zip(states) {
                let state = resolved.state(office, &fleet, &slot.name, declared);
                let mut before = fleet.endpoints.remove(&slot.name);
                let mut seen =
                    before.as_mut().map(|entry| std::mem::take(&mut entry.seen)).unwrap_or_default();
                watch(&mut seen, &state);
                let meant = slot.publish(Some(state));
                let entry = EndpointEntry {
                    declared: (*declared).clone(),
                    slot: slot.clone(),
                    seen,
                    unclaimed: false,
                };
                fleet.endpoints.insert(slot.name.clone(), entry);
                replaced.push((before, meant));
            }
            Ok(())
        })?;
        let mut fleet = office.fleet();
        for name in &gone {
            if let Some(entry) = fleet.endpoints.remove(name) {
                let meant = entry.slot.publish(None);
                office.metrics.registry.forget_endpoint(name, None);
                replaced.push((Some(entry), meant));
            }
        }
        drop(fleet);
        let table = office.routes.load();
        let live: BTreeSet<_> = table.iter().map(|(route, _)| route.as_str()).collect();
        let routes = replaced.iter().filter_map(|(before, _)| before.as_ref()?.declared.route.as_ref());
        for route in routes.filter(|route| !live.contains(route.as_str())) {
            office.metrics.registry.forget_route(route.as_str());
        }
        // Functions of the user's may go with it: not under the lock.
        drop_guarded(replaced);
        Ok(())
    }
}

/// Answered when no change of these is under way.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Quiet {
    /// Of any backend.
    All,
    /// That may be taken back: all but deletions.
    Revocable,
    /// Of those that are being deleted: when they are gone.
    Deleted,
}

impl Handler<Quiet> for Controller {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, quiet: Quiet, _: &mut Self::Context) -> Self::Result {
        let mut waits = Vec::new();
        for entry in self.office.fleet().backends.values_mut() {
            let waiters = match (entry.deleting(), &quiet) {
                (true, Quiet::Revocable) => continue,
                (true, _) => &mut entry.deleters,
                (false, Quiet::All | Quiet::Revocable) if entry.changing() => &mut entry.waiters,
                (false, _) => continue,
            };
            let (tx, rx) = oneshot::channel();
            waiters.push(tx);
            waits.push(rx);
        }
        Box::pin(async move {
            for wait in waits {
                let _ = wait.await;
            }
        })
    }
}
