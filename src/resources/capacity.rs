//! `Capacity`: how much of everything there is for replicas to ask for.

use std::{collections::BTreeMap, num::NonZeroUsize};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    amount::Amount,
    asked::{accept, custom_name, too_many, too_many_bytes},
    fraction::WHOLE_DEVICES_MAX,
};
use crate::error::{Problem, ServeError};

/// How much there is of what replicas ask for; by default the machine's cores and GPUs, and nothing custom.
///
/// What is `None` is not counted: any amount of it fits. Memory is not counted unless it is set.
///
/// ```
/// use greenroom::{Capacity, ServeOptions};
/// let eight = ServeOptions::default().capacity(Capacity::default().num_cpus(8.0).custom("license", 2.0));
/// # let _ = eight;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// CPUs; as many as the machine has cores for this process.
    pub num_cpus: Option<Amount>,
    /// GPUs; those that are found when a backend first asks for one, until then 0. A number that is set counts the
    /// first so many of them.
    ///
    /// Without the feature `gpu` none are looked for: 0 unless it is set, and then they are only counted.
    pub num_gpus: Option<u32>,
    /// Memory in bytes; not counted.
    pub memory_bytes: Option<u64>,
    /// Everything else that is counted, by name; what has no name here is not there.
    pub custom: Option<BTreeMap<String, Amount>>,
    /// Nobody has said how many GPUs there are.
    gpus_unset: bool,
    /// Values that a setter was given and no field can hold; told by `check`.
    refused: Vec<Problem>,
}

impl Serialize for Capacity {
    /// As it is declared: without GPUs that nobody has set.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Capacity", 4)?;
        fields.serialize_field("num_cpus", &self.num_cpus)?;
        if self.finds_gpus() {
            fields.skip_field("num_gpus")?;
        } else {
            fields.serialize_field("num_gpus", &self.num_gpus)?;
        }
        fields.serialize_field("memory_bytes", &self.memory_bytes)?;
        fields.serialize_field("custom", &self.custom)?;
        fields.end()
    }
}

/// What of a [`Capacity`] no replica has a claim to; `None` is not counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FreeCapacity {
    /// CPUs.
    pub num_cpus: Option<Amount>,
    /// GPUs, parts of them added up; a share is one of a single GPU, so not every such part is one.
    pub num_gpus: Option<Amount>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Everything else that is counted.
    pub custom: Option<BTreeMap<String, Amount>>,
}

impl Default for Capacity {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            num_cpus: Some(Amount::whole(u32::try_from(cores).unwrap_or(u32::MAX))),
            num_gpus: Some(0),
            memory_bytes: None,
            custom: Some(BTreeMap::new()),
            gpus_unset: true,
            refused: Vec::new(),
        }
    }
}

impl Capacity {
    /// Nothing is counted, and nothing refused for want of it.
    pub fn unlimited() -> Self {
        let refused = Vec::new();
        Self { num_cpus: None, num_gpus: None, memory_bytes: None, custom: None, gpus_unset: false, refused }
    }

    /// Sets [`num_cpus`](field@Self::num_cpus), which may be more or less than the machine has; `None`: not
    /// counted.
    pub fn num_cpus(mut self, cpus: impl Into<Option<f64>>) -> Self {
        let cpus = cpus.into().map(Amount::parse).transpose();
        if let Some(cpus) = accept(&mut self.refused, "num_cpus", cpus) {
            self.num_cpus = cpus;
        }
        self
    }

    /// Sets [`num_gpus`](field@Self::num_gpus), 64 at most; `None`: not counted.
    pub fn num_gpus(mut self, gpus: impl Into<Option<u32>>) -> Self {
        let gpus = gpus.into();
        let allowed = match gpus {
            Some(gpus) if gpus > WHOLE_DEVICES_MAX => {
                Err(format!("{gpus} was given; at most {WHOLE_DEVICES_MAX} is allowed"))
            }
            _ => Ok(gpus),
        };
        if let Some(gpus) = accept(&mut self.refused, "num_gpus", allowed) {
            self.num_gpus = gpus;
            self.gpus_unset = false;
        }
        self
    }

    /// How many GPUs it counts by its own word; none where it counts those that are found.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpus_set(&self) -> Option<u32> {
        self.num_gpus.filter(|_| !self.finds_gpus())
    }

    fn finds_gpus(&self) -> bool {
        self.gpus_unset && self.num_gpus == Some(0)
    }

    /// Sets [`memory_bytes`](field@Self::memory_bytes); `None`: not counted.
    pub fn memory_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_bytes = bytes.into();
        self
    }

    /// So much there is of a resource of this name, which is as in
    /// [`Resources::custom`](crate::Resources::custom).
    pub fn custom(mut self, name: impl AsRef<str>, amount: f64) -> Self {
        let name = name.as_ref();
        let amount = custom_name(name).and_then(|()| Amount::parse(amount).map_err(|why| why.to_string()));
        if let Some(amount) = accept(&mut self.refused, &format!("custom.{name}"), amount) {
            self.custom.get_or_insert_default().insert(name.to_owned(), amount);
        }
        self
    }

    /// Whether all values can be.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake; the place of each is the key in a file.
    pub fn check(&self) -> Result<(), ServeError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(ServeError::InvalidConfig(problems)) }
    }

    /// Every mistake; each place is a key below `capacity`.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.refused.clone();
        problems.extend(self.memory_bytes.and_then(|bytes| too_many_bytes("memory_bytes", bytes)));
        problems.extend(too_many(self.custom.as_ref().map_or(0, BTreeMap::len)));
        let below = |problem: Problem| Problem { place: format!("capacity.{}", problem.place), ..problem };
        problems.into_iter().map(below).collect()
    }
}
