//! What a backend claims of the resources that there are, and when it gives that back.

use std::sync::Arc;

use crate::{
    actors::{
        fleet::BackendEntry,
        reconcile::{ReplicaState, wave},
    },
    config::BackendConfig,
    error::ServeError,
    ids::BackendName,
    resources::{Pool, Shortage},
};

impl BackendEntry {
    /// Claims enough for the replicas of `config` and for those that still drain; where that is too much, those
    /// that are started wait for those that drain. A claim has room for an old replica as for a new one, so that
    /// the change can also be taken back.
    pub(crate) fn claim(
        &mut self,
        name: &BackendName,
        config: &BackendConfig,
        pool: &mut Pool,
    ) -> Result<(), ServeError> {
        let wanted = config.num_replicas;
        let held = u32::try_from(self.claims.len()).unwrap_or(u32::MAX);
        let either = self.claimed.or_more(&config.resources);
        if either != *self.claimed {
            let (either, n) = (Arc::new(either), wanted.max(held));
            let exchanged = pool.exchange(&mut self.claims, &either, n);
            exchanged.map_err(|short| too_large(name, wanted, n, &short))?;
            self.claimed = either;
            return Ok(());
        }
        let draining = self.replicas.iter().filter(|r| r.state == ReplicaState::Draining).count();
        let at_once = wanted.saturating_add(u32::try_from(draining).unwrap_or(u32::MAX));
        let mut more = pool.admit(&self.claimed, at_once.saturating_sub(held));
        if more.is_err() {
            more = pool.admit(&self.claimed, wanted.saturating_sub(held));
        }
        let more = more.map_err(|short| no_resources(name, wanted, held, &short))?;
        self.claims.extend(more);
        Ok(())
    }

    /// While replicas are replaced: claims for a wave of them beside all others, as far as there is room. CPUs may
    /// run short for that time.
    pub(crate) fn surge(&mut self, pool: &mut Pool) {
        if self.rolling() {
            let held = u32::try_from(self.claims.len()).unwrap_or(u32::MAX);
            let at_once = self.wanted().saturating_add(wave(self.wanted()));
            self.claims.extend(pool.admit_beyond_cpus(&self.claimed, at_once.saturating_sub(held)));
        }
    }

    /// The GPUs of a claim that no replica has.
    pub(crate) fn next_gpus(&mut self) -> Vec<usize> {
        self.sort_claims();
        self.claims.get(self.replicas.len()).map_or_else(Vec::new, |claim| claim.gpus().to_vec())
    }

    /// Puts the claims of replicas that there are first.
    fn sort_claims(&mut self) {
        for (place, replica) in self.replicas.iter().enumerate() {
            let own = self.claims.iter().skip(place).position(|claim| claim.gpus() == replica.gpus);
            if let Some(own) = own {
                self.claims.swap(place, place + own);
            }
        }
    }

    /// Gives back what no replica has or is to have. While a change is under way it may be undone.
    pub(crate) fn give_back(&mut self, pool: &mut Pool) {
        let before = self.before.as_ref().filter(|_| !self.deleting());
        let before = before.map_or(0, |before| before.config.num_replicas);
        let more = if self.rolling() { wave(self.wanted()) } else { 0 };
        let wanted = self.wanted().max(before).saturating_add(more);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let needed = wanted.max(self.replicas.len()).min(self.claims.len());
        self.sort_claims();
        self.claims.drain(needed..).for_each(|claim| pool.release(claim));
        if self.settled() && *self.claimed != self.config.resources {
            self.claimed = Arc::new(self.config.resources.clone());
            pool.lessen(&mut self.claims, &self.claimed);
        }
    }
}

/// What is told when a backend that has `held` claims cannot have `wanted` replicas.
pub(crate) fn no_resources(backend: &BackendName, wanted: u32, held: u32, short: &Shortage) -> ServeError {
    let fit = held + short.fit;
    ServeError::NoResources {
        backend: backend.clone(),
        replicas: wanted,
        asked: short.asked().into(),
        free: short.free().into(),
        fit,
        cures: short.cures(fit).into(),
    }
}

/// What is told when replicas cannot ask for more than they have; `there` are there or wanted.
fn too_large(backend: &BackendName, wanted: u32, there: u32, short: &Shortage) -> ServeError {
    match no_resources(backend, there, 0, short) {
        ServeError::NoResources { backend, asked, free, fit, .. } if wanted < there && wanted <= fit => {
            let cures =
                format!("set num_replicas to {wanted} first, and what each asks for afterwards").into();
            ServeError::NoResources { backend, replicas: there, asked, free, fit, cures }
        }
        other => other,
    }
}
