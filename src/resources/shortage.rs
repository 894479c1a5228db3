//! `Shortage`: why replicas do not fit, and what would make them.

use super::amount::Amount;

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
    /// GPUs that there have to be besides those that there are, where no setting gives them; else 0.
    pub(crate) more_gpus: u32,
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
        let gpus = match self.lacks.iter().map(|lack| lack.more_gpus).max() {
            None | Some(0) => None,
            Some(1) => Some("another GPU".to_owned()),
            Some(more) => Some(format!("{more} more GPUs")),
        };
        let settable = || self.lacks.iter().filter(|lack| lack.more_gpus == 0);
        let more: Option<Vec<_>> = settable().map(|lack| Some((lack, lack.total_min?))).collect();
        let more = more.filter(|more| !more.is_empty()).map(|more| {
            let shown = more
                .iter()
                .map(|(lack, min)| format!("capacity.{} to at least {}", lack.key, lack.unit.show(*min)));
            let with = gpus.as_ref().map(|gpus| format!(" with {gpus}")).unwrap_or_default();
            shown.collect::<Vec<_>>().join(" and ") + &with
        });
        cures.extend(more);
        let set = format!("set {}", cures.join(", or "));
        // Where GPUs alone are short, no capacity says so.
        match gpus.filter(|_| settable().next().is_none()) {
            Some(gpus) if cures.is_empty() => format!("it needs {gpus}"),
            Some(gpus) => format!("{set}; otherwise it needs {gpus}"),
            None if cures.is_empty() => "nothing that can be set would make them fit".into(),
            None => set,
        }
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
            more_gpus: 0,
        })
    }
}
