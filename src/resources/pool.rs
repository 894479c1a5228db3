//! `Pool`: what is claimed of a capacity. Never more than there is; what is given back is what was taken.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    amount::Amount,
    asked::Resources,
    capacity::{Capacity, FreeCapacity},
    gpus::Gpus,
    shortage::{Lack, Shortage, Unit},
};

/// What there is and what of it is free.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    total: Capacity,
    free: Free,
}

/// What is free; none is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Free {
    /// In ten-thousandths; less than nothing while some were let in beyond what there is.
    cpus: Option<i64>,
    memory_bytes: Option<u64>,
    custom: Option<BTreeMap<String, u64>>,
    gpus: Option<Gpus>,
}

/// How far CPUs count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cpus {
    /// As all else: what there is not is not given.
    Within,
    /// More may be taken than there is.
    Beyond,
}

/// What one replica has; held as long as the replica may be there, and given back to the pool that it is of.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claim {
    resources: Arc<Resources>,
    /// Indices of the GPUs that it has all or a share of.
    gpus: Vec<usize>,
}

impl Claim {
    /// Indices of the GPUs that it has all or a share of.
    pub(crate) fn gpus(&self) -> &[usize] {
        &self.gpus
    }
}

impl Pool {
    pub(crate) fn new(total: Capacity) -> Self {
        let parts = |map: &BTreeMap<String, Amount>| {
            map.iter().map(|(name, amount)| (name.clone(), amount.ten_thousandths())).collect()
        };
        let free = Free {
            cpus: total.num_cpus.map(|cpus| signed(cpus.ten_thousandths())),
            memory_bytes: total.memory_bytes,
            custom: total.custom.as_ref().map(parts),
            gpus: total.num_gpus.map(Gpus::counted),
        };
        Self { total, free }
    }

    /// All that there is.
    pub(crate) fn total(&self) -> &Capacity {
        &self.total
    }

    /// What of it is free.
    pub(crate) fn free(&self) -> FreeCapacity {
        let amounts = |map: &BTreeMap<String, u64>| {
            map.iter().map(|(name, parts)| (name.clone(), Amount::of_parts(*parts))).collect()
        };
        let gpus = self.free.gpus.as_ref().map(Gpus::free);
        FreeCapacity {
            num_cpus: self.free.cpus.map(|cpus| Amount::of_parts(left(cpus))),
            num_gpus: gpus.map(Amount::of_parts),
            memory_bytes: self.free.memory_bytes,
            custom: self.free.custom.as_ref().map(amounts),
        }
    }

    /// Claims for `n` replicas that ask for `asked` each; all of them or none.
    ///
    /// # Errors
    /// How many would fit, what is short and what there would have to be.
    pub(crate) fn admit(&mut self, asked: &Arc<Resources>, n: u32) -> Result<Vec<Claim>, Shortage> {
        let mut claims = Vec::new();
        self.exchange(&mut claims, asked, n, 0).map(|()| claims)
    }

    /// As many claims, up to `n`, as there are GPUs, memory and all else for; of CPUs more may be taken than there
    /// are, for a short time, until what has the others is gone.
    pub(crate) fn admit_beyond_cpus(&mut self, asked: &Arc<Resources>, n: u32) -> Vec<Claim> {
        (0..n).map_while(|_| self.free.take(asked, Cpus::Beyond, &[])).collect()
    }

    /// `n` claims of `asked` in the place of `claims`, and `beyond` others that may be beyond the CPUs that there are;
    /// all of them, or all stays as it is.
    ///
    /// # Errors
    /// How many would fit, what is short and what there would have to be.
    pub(crate) fn exchange(
        &mut self,
        claims: &mut Vec<Claim>,
        asked: &Arc<Resources>,
        n: u32,
        beyond: u32,
    ) -> Result<(), Shortage> {
        let all = n.saturating_add(beyond);
        let mut given = self.free.clone();
        claims.iter().for_each(|claim| given.give(claim));
        let mut free = given.clone();
        // Where those are that have GPUs already, if there is room.
        let at = |i: u32| claims.get(i as usize).map_or(&[] as &[usize], |claim| &claim.gpus);
        let limit = |i: u32| if i < n { Cpus::Within } else { Cpus::Beyond };
        let made: Vec<_> = (0..all).map_while(|i| free.take(asked, limit(i), at(i))).collect();
        if made.len() == all as usize {
            self.free = free;
            // What the old ones held is in it.
            *claims = made;
            return Ok(());
        }
        // Claims that were made in a copy of what is free hold nothing.
        let fit = made.len() as u32;
        Err(Shortage { fit, lacks: lacks(&self.total, &given, asked, if fit < n { n } else { all }) })
    }

    /// As many claims of `asked` in the place of `claims`, which are of no less of anything.
    pub(crate) fn lessen(&mut self, claims: &mut Vec<Claim>, asked: &Arc<Resources>) {
        claims.iter().for_each(|claim| self.free.give(claim));
        // CPUs that others have beyond what there is are no reason to have none of these.
        let made = claims.iter().map_while(|claim| self.free.take(asked, Cpus::Beyond, &claim.gpus));
        *claims = made.collect();
    }

    /// The GPUs are known now, each with the memory that it has for replicas; `most` is how many there would be if the
    /// capacity counted all, where somebody has looked. Nobody has a claim to any yet.
    #[cfg(feature = "gpu")]
    pub(crate) fn found_gpus(&mut self, memory_bytes: impl IntoIterator<Item = u64>, most: Option<u32>) {
        let gpus = Gpus::with_memory(memory_bytes, most);
        self.total = self.total.clone().num_gpus(gpus.len());
        self.free.gpus = Some(gpus);
    }

    /// Takes back what a replica had.
    #[expect(clippy::needless_pass_by_value, reason = "nobody has a claim that was given back")]
    pub(crate) fn release(&mut self, claim: Claim) {
        self.free.give(&claim);
    }

    /// CPUs that are free, in ten-thousandths; fewer than none where more were taken than there are.
    #[cfg(test)]
    pub(crate) fn cpus_left(&self) -> Option<i64> {
        self.free.cpus
    }

    /// All that there is, of which nobody has anything; whatever the memory of GPUs.
    pub(crate) fn unused(&self) -> Self {
        let mut pool = Self::new(self.total.clone());
        pool.free.gpus = self.free.gpus.as_ref().map(Gpus::unused);
        pool
    }

    /// What it will be when these have been given back.
    pub(crate) fn without<'a>(&self, claims: impl IntoIterator<Item = &'a Claim>) -> Self {
        let mut pool = self.clone();
        claims.into_iter().for_each(|claim| pool.free.give(claim));
        pool
    }
}

/// Everything of which there is too little for `n` replicas.
fn lacks(total: &Capacity, free: &Free, asked: &Resources, n: u32) -> Vec<Lack> {
    let counted = |key: &str, unit, each, free: Option<u64>, total: Option<u64>| {
        Lack::of(key, unit, (each, free?, total?), n)
    };
    let parts = |amount: Amount| amount.ten_thousandths();
    let (cpus, all_cpus) = (parts(asked.num_cpus), total.num_cpus.map(parts));
    let mut lacks = Vec::new();
    lacks.extend(counted("num_cpus", Unit::Parts, cpus, free.cpus.map(left), all_cpus));
    lacks.extend(free.gpus.as_ref().and_then(|gpus| gpus.lack(asked, n)));
    let memory = asked.memory_bytes;
    lacks.extend(counted("memory_bytes", Unit::Bytes, memory, free.memory_bytes, total.memory_bytes));
    for (name, amount) in &asked.custom {
        let left = free.custom.as_ref().map(|custom| custom.get(name).copied().unwrap_or(0));
        let all = total.custom.as_ref().map(|custom| custom.get(name).copied().map_or(0, parts));
        lacks.extend(counted(&format!("custom.{name}"), Unit::Parts, parts(*amount), left, all));
    }
    lacks
}

impl Free {
    /// Takes back what a claim holds.
    fn give(&mut self, claim: &Claim) {
        let Claim { resources, gpus } = claim;
        let Self { cpus, memory_bytes, custom, gpus: devices } = self;
        if let Some(cpus) = cpus {
            *cpus += signed(resources.num_cpus.ten_thousandths());
        }
        if let Some(bytes) = memory_bytes {
            *bytes += resources.memory_bytes;
        }
        for (name, amount) in &resources.custom {
            if let Some(free) = custom.as_mut().and_then(|custom| custom.get_mut(name)) {
                *free += amount.ten_thousandths();
            }
        }
        if let Some(devices) = devices {
            devices.release(resources, gpus);
        }
    }

    /// Takes what one replica asks for, all of it or nothing; of the GPUs `at` these places, if they have room.
    fn take(&mut self, asked: &Arc<Resources>, limit: Cpus, at: &[usize]) -> Option<Claim> {
        let cpus = self.cpus.map(|free| free - signed(asked.num_cpus.ten_thousandths()));
        // Who asks for none gets it, however little there is.
        if limit == Cpus::Within && asked.num_cpus != Amount::ZERO && cpus.is_some_and(|left| left < 0) {
            return None;
        }
        let memory_bytes = less(self.memory_bytes, asked.memory_bytes)?;
        let custom = self.custom.as_ref();
        let lacks = |(name, amount): (&String, &Amount)| {
            custom.is_some_and(|free| free.get(name).copied().unwrap_or(0) < amount.ten_thousandths())
        };
        if asked.custom.iter().any(lacks) {
            return None;
        }
        let gpus = match &mut self.gpus {
            Some(gpus) => gpus.place(asked, at)?,
            None => Vec::new(),
        };
        (self.cpus, self.memory_bytes) = (cpus, memory_bytes);
        for (name, amount) in &asked.custom {
            if let Some(free) = self.custom.as_mut().and_then(|custom| custom.get_mut(name)) {
                *free -= amount.ten_thousandths();
            }
        }
        Some(Claim { resources: Arc::clone(asked), gpus })
    }
}

/// Parts that are counted below nothing too; there are never nearly as many as would not fit.
fn signed(parts: u64) -> i64 {
    i64::try_from(parts).unwrap_or(i64::MAX)
}

/// What is left: nothing where more was taken than there is.
fn left(parts: i64) -> u64 {
    u64::try_from(parts).unwrap_or(0)
}

/// `free` without `asked`, where it is counted; none when there is less.
fn less(free: Option<u64>, asked: u64) -> Option<Option<u64>> {
    match free {
        Some(free) => free.checked_sub(asked).map(Some),
        None => Some(None),
    }
}
