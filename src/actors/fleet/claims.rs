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
    resources::{Claim, Pool, Resources, Shortage},
};

/// The claims of one backend: one for each replica that there is or is to be; a replica that is replaced leaves its
/// claim to the next.
pub(crate) struct Claims {
    held: Vec<Claim>,
    /// What each of them is of: enough for a replica of any release that there is.
    each: Arc<Resources>,
    /// So many of them were taken for a wave, without asking whether there are CPUs for them. Nothing is admitted
    /// because of them, and they are the first to go.
    beyond: u32,
}

/// The replicas of a backend that claims something.
#[derive(Clone, Copy)]
struct There {
    replicas: u32,
    /// Those of them that drain.
    draining: u32,
}

impl Claims {
    /// None, of so much each.
    pub(crate) fn new(each: Resources) -> Self {
        Self { held: Vec::new(), each: Arc::new(each), beyond: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.held.iter()
    }

    fn held(&self) -> u32 {
        count(self.held.len())
    }

    /// Those for which there are CPUs.
    fn within(&self) -> u32 {
        self.held().saturating_sub(self.beyond)
    }

    /// Enough for `wanted` replicas that ask for `asked` each.
    fn claim(
        &mut self,
        name: &BackendName,
        (wanted, asked): (u32, &Resources),
        there: There,
        pool: &mut Pool,
    ) -> Result<(), ServeError> {
        let either = self.each.or_more(asked);
        if either != *self.each {
            let n = wanted.max(self.within());
            // A replica that a wave has started is there still; what of the wave has none is claimed again later.
            let beyond = there.replicas.saturating_sub(n);
            let (either, all) = (Arc::new(either), n.saturating_add(beyond));
            let exchanged = pool.exchange(&mut self.held, &either, n, beyond);
            exchanged.map_err(|short| too_large(name, wanted, all, &short))?;
            (self.each, self.beyond) = (either, beyond);
            return Ok(());
        }
        let mut more = self.reach(wanted.saturating_add(there.draining), pool);
        if more.is_err() {
            more = self.reach(wanted, pool);
        }
        more.map_err(|short| no_resources(name, wanted, self.within(), &short))
    }

    /// So many for which there are CPUs. Those of a wave count for that as far as there are CPUs for them too.
    fn reach(&mut self, n: u32, pool: &mut Pool) -> Result<(), Shortage> {
        let within = self.within();
        let more = n.saturating_sub(within);
        if more == 0 {
            return Ok(());
        }
        let wave = self.held.get(within as usize..).unwrap_or_default();
        // Only tried: what a copy of the pool gives holds nothing.
        drop(pool.without(wave).admit(&self.each, more)?);
        self.held.extend(pool.admit(&self.each, more.saturating_sub(self.beyond))?);
        self.beyond = self.beyond.saturating_sub(more);
        Ok(())
    }

    /// So many, as far as there is room; CPUs may run short.
    fn surge(&mut self, n: u32, pool: &mut Pool) {
        let more = pool.admit_beyond_cpus(&self.each, n.saturating_sub(self.held()));
        self.beyond = self.beyond.saturating_add(count(more.len()));
        self.held.extend(more);
    }

    /// Gives back all but the first so many.
    fn keep(&mut self, n: usize, pool: &mut Pool) {
        let n = n.min(self.held.len());
        self.beyond = self.beyond.saturating_sub(count(self.held.len() - n));
        self.held.drain(n..).for_each(|claim| pool.release(claim));
    }

    /// Each is of no more than this from now on.
    fn lessen(&mut self, each: &Resources, pool: &mut Pool) {
        if *self.each != *each {
            self.each = Arc::new(each.clone());
            pool.lessen(&mut self.held, &self.each);
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

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
        self.sort_claims();
        let draining = self.replicas.iter().filter(|r| r.state == ReplicaState::Draining).count();
        let there = There { replicas: count(self.replicas.len()), draining: count(draining) };
        self.claims.claim(name, (config.num_replicas, &config.resources), there, pool)
    }

    /// While replicas are replaced: claims for a wave of them beside all others, as far as there is room. CPUs may
    /// run short for that time.
    pub(crate) fn surge(&mut self, pool: &mut Pool) {
        if self.rolling() {
            self.claims.surge(self.wanted().saturating_add(wave(self.wanted())), pool);
        }
    }

    /// The GPUs of a claim that no replica has.
    pub(crate) fn next_gpus(&mut self) -> Vec<usize> {
        self.sort_claims();
        self.claims.held.get(self.replicas.len()).map_or_else(Vec::new, |claim| claim.gpus().to_vec())
    }

    /// Puts the claims of replicas that there are first.
    fn sort_claims(&mut self) {
        let claims = &mut self.claims.held;
        for (place, replica) in self.replicas.iter().enumerate() {
            let own = claims.iter().skip(place).position(|claim| claim.gpus() == replica.gpus);
            if let Some(own) = own {
                claims.swap(place, place + own);
            }
        }
    }

    /// Gives back what no replica has or is to have. While a change is under way it may be undone.
    pub(crate) fn give_back(&mut self, pool: &mut Pool) {
        let before = self.before.as_ref().filter(|_| !self.deleting());
        let before = before.map_or(0, |before| before.config.num_replicas);
        let more = if self.rolling() { wave(self.wanted()) } else { 0 };
        let wanted = self.wanted().max(before).saturating_add(more);
        let needed = usize::try_from(wanted).unwrap_or(usize::MAX).max(self.replicas.len());
        self.sort_claims();
        self.claims.keep(needed, pool);
        if self.settled() {
            self.claims.lessen(&self.config.resources, pool);
        }
    }

    /// Gives everything back: it was not made.
    pub(crate) fn give_all_back(&mut self, pool: &mut Pool) {
        self.claims.keep(0, pool);
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

#[cfg(test)]
mod tests;
