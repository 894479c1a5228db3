//! `Shortage`: why replicas do not fit, and what would make them.

use super::{amount::Amount, fraction::WHOLE};

/// Replicas that do not fit: nothing was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// How many of them would fit.
    pub(crate) fit: u32,
    /// Each resource of which there is too little.
    pub(crate) lacks: Vec<Lack>,
}

/// One resource of which there is too little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    /// Its key, such as `num_cpus` or `custom.license`.
    pub(crate) key: String,
    /// How it is counted.
    pub(crate) unit: Unit,
    /// What one replica asks for.
    pub(crate) each: u64,
    /// What is free.
    pub(crate) free: u64,
    /// What there is.
    pub(crate) total: u64,
    /// The most that each replica might ask for so that all fit; none where that is not to be said.
    pub(crate) each_max: Option<u64>,
    /// The least that there has to be so that all fit; none where nobody can set that.
    pub(crate) total_min: Option<u64>,
}

/// How a resource is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Ten-thousandths.
    Parts,
    Bytes,
}

impl Unit {
    fn show(self, count: u64) -> String {
        match self {
            Self::Parts => Amount::of_parts(count).to_string(),
            Self::Bytes => count.to_string(),
        }
    }
}

impl Shortage {
    /// What each replica asks for of what lacks: `num_cpus 1`.
    pub(crate) fn asked(&self) -> String {
        self.each(|lack| format!("{} {}", lack.key, lack.unit.show(lack.each)))
    }

    /// What is free of it: `num_cpus 0.5 of 2`.
    pub(crate) fn free(&self) -> String {
        self.each(|lack| {
            let (free, total) = (lack.unit.show(lack.free), lack.unit.show(lack.total));
            format!("{} {free} of {total}", lack.key)
        })
    }

    /// What to change so that all fit; `replicas_max` is the number of replicas that does.
    pub(crate) fn cures(&self, replicas_max: u32) -> String {
        let fewer = (replicas_max > 0).then(|| format!("num_replicas to at most {replicas_max}"));
        let mut cures: Vec<_> = fewer.into_iter().collect();
        let less: Option<Vec<_>> = self.lacks.iter().map(|lack| Some((lack, lack.each_max?))).collect();
        let less = less.map(|less| {
            let shown = less
                .iter()
                .map(|(lack, max)| format!("resources.{} to at most {}", lack.key, lack.unit.show(*max)));
            shown.collect::<Vec<_>>().join(" and ")
        });
        cures.extend(less);
        let more: Option<Vec<_>> = self.lacks.iter().map(|lack| Some((lack, lack.total_min?))).collect();
        let more = more.map(|more| {
            let shown = more
                .iter()
                .map(|(lack, min)| format!("capacity.{} to at least {}", lack.key, lack.unit.show(*min)));
            shown.collect::<Vec<_>>().join(" and ")
        });
        cures.extend(more);
        if cures.is_empty() {
            return "nothing that can be set would make them fit".into();
        }
        format!("set {}", cures.join(", or "))
    }

    fn each(&self, show: impl Fn(&Lack) -> String) -> String {
        self.lacks.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

impl Lack {
    /// A resource of which any part can be given to any replica; none when there is enough.
    pub(super) fn of(key: &str, unit: Unit, (each, free, total): (u64, u64, u64), n: u32) -> Option<Self> {
        let wanted = each.saturating_mul(n.into());
        let total_min = total.saturating_add(wanted.saturating_sub(free));
        let each_max = Some(free / u64::from(n.max(1)));
        (wanted > free).then(|| Self {
            key: key.into(),
            unit,
            each,
            free,
            total,
            each_max,
            total_min: Some(total_min),
        })
    }

    /// GPUs of which `more` are needed; how much less each might ask for depends on how they are taken.
    pub(super) fn of_gpus(each: u32, free: u32, total: u32, more: u32) -> Self {
        let (key, unit) = ("num_gpus".into(), Unit::Parts);
        let (each, free) = (each.into(), free.into());
        let parts = |gpus: u32| u64::from(gpus) * u64::from(WHOLE);
        let total_min = Some(parts(total.saturating_add(more)));
        Self { key, unit, each, free, total: parts(total), each_max: None, total_min }
    }
}
