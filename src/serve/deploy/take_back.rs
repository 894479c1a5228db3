//! What a deploy has done, taken back: all that can be, whatever cannot.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    actors::controller::{AwaitCode, Quiet},
    config::{BackendDecl, EndpointDecl, ServeConfig},
    error::ServeError,
    ids::{BackendName, EndpointName},
    plan::Work,
    serve::deploy::{
        check::Codes,
        plan,
        run::{Run, endpoints},
        turn::DeployState,
    },
};

/// What there was before the first step.
pub(super) struct Before {
    codes: Codes,
    /// Backends that awaited their code, or room.
    awaiting: BTreeSet<BackendName>,
}

impl Run {
    /// What is there now, of which code.
    pub(super) fn before(&self) -> Before {
        let fleet = self.serve.0.office.fleet();
        let run = fleet.backends.iter().map(|(name, entry)| (name, Some(&entry.code)));
        let awaited = fleet.awaiting.iter().map(|(name, awaiting)| (name, awaiting.code.as_ref()));
        let codes = run.chain(awaited).filter_map(|(name, code)| Some((name.clone(), Arc::clone(code?))));
        Before { codes: codes.collect(), awaiting: fleet.awaiting.keys().cloned().collect() }
    }

    /// Makes all as it was; tells what could not be made so. What fails keeps nothing else from being taken back.
    pub(super) async fn take_back(&self, config: &ServeConfig, before: &Before) -> Vec<String> {
        self.turn.applies(DeployState::TakingBack, 0);
        let _ = self.serve.0.controller.send(Quiet::Deleted).await;
        let plan = {
            let fleet = self.serve.0.office.fleet();
            plan(&fleet, (&self.serve.config_of(&fleet), None), config, &before.codes)
        };
        self.turn.applies(DeployState::TakingBack, plan.steps.len());
        let mut left = Vec::new();
        let mut set = Some(endpoints(&plan));
        for (done, step) in plan.steps.iter().enumerate() {
            let backend = match &step.work {
                Work::Backend(decl) => Some(decl.name.clone()),
                Work::DeleteBackend(name) => Some(name.clone()),
                Work::Endpoint(_) | Work::DeleteEndpoint(_) => None,
            };
            self.turn.at(done, step.to_string(), backend);
            let outcome = match &step.work {
                Work::Backend(decl) => self.bring_back(decl, before).await,
                Work::DeleteBackend(name) => self.delete(name).await,
                Work::Endpoint(_) | Work::DeleteEndpoint(_) => {
                    if let Some((set, gone)) = set.take() {
                        self.set_again(set, gone, &mut left).await;
                    }
                    continue;
                }
            };
            left.extend(outcome.err().map(|cause| format!("{step}: {cause}")));
        }
        left
    }

    /// Makes a backend as it was. One that awaited its code, and is gone, awaits it again.
    async fn bring_back(&self, decl: &BackendDecl, before: &Before) -> Result<(), ServeError> {
        let there = self.serve.0.office.fleet().backends.contains_key(&decl.name);
        if before.awaiting.contains(&decl.name) && !there {
            let code = before.codes.get(&decl.name).cloned();
            return self.ask(AwaitCode { decl: decl.clone(), code }).await;
        }
        self.change(decl, &before.codes).await
    }

    /// Sets endpoints together; each by itself where some of them cannot be set.
    async fn set_again(&self, set: Vec<&EndpointDecl>, gone: Vec<EndpointName>, left: &mut Vec<String>) {
        let all = self.set(set.clone(), gone.clone(), String::new()).await;
        if all.is_ok() {
            return;
        }
        // Those that go first make room for the routes of others.
        for name in gone {
            let step = format!("delete endpoint {name}");
            left.extend(self.set(Vec::new(), vec![name], step).await.err().map(|failed| failed.to_string()));
        }
        for decl in set {
            let step = format!("endpoint {}", decl.name);
            left.extend(self.set(vec![decl], Vec::new(), step).await.err().map(|failed| failed.to_string()));
        }
    }
}
