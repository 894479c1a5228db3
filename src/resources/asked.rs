//! `Resources`: what each replica of a backend asks for.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{amount::Amount, fraction::Fraction};
use crate::error::{Problem, ServeError};

/// Most kinds of custom resources in one place.
pub const CUSTOM_RESOURCES_MAX: usize = 32;

/// Longest name of a custom resource, in bytes.
const CUSTOM_NAME_BYTES_MAX: usize = 64;

/// What each replica asks for; 1 CPU unless told otherwise. CPUs, memory and custom resources are only counted: nothing
/// keeps a replica from using more. A share of a GPU, with the feature `gpu`, is a lease that holds what the replica
/// computes on it to its share ([`ReplicaContext::gpu`](crate::ReplicaContext)); without the feature it is only
/// counted too.
///
/// Setters chain and take numbers as people write them; [`check`](Self::check), which everything that takes
/// resources calls, tells every value that cannot be.
///
/// ```
/// use greenroom::Resources;
/// let asked = Resources::default().num_cpus(0.5).custom("license", 1.0);
/// asked.check()?;
/// assert!(asked.num_gpus(1.5).check().is_err(), "a part of a GPU, or whole ones");
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resources {
    /// CPUs; 1. Four decimals at most.
    pub num_cpus: Amount,
    /// A part of one GPU, or whole ones; none.
    #[serde(serialize_with = "share")]
    pub num_gpus: Option<Fraction>,
    /// Memory on each GPU, in bytes; 0: as large a share of its memory as of its time. Needs [`num_gpus`](field@Self::num_gpus).
    pub gpu_memory_bytes: u64,
    /// Memory in bytes; 0: none is asked for.
    pub memory_bytes: u64,
    /// Anything else that is counted, by name; nothing.
    pub custom: BTreeMap<String, Amount>,
    /// Values that a setter was given and no field can hold; told by `check`.
    #[serde(skip)]
    refused: Vec<Problem>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            num_cpus: Amount::ONE,
            num_gpus: None,
            gpu_memory_bytes: 0,
            memory_bytes: 0,
            custom: BTreeMap::new(),
            refused: Vec::new(),
        }
    }
}

impl Resources {
    /// Nothing at all: for backends that mostly wait, and are not to be counted.
    pub fn none() -> Self {
        Self { num_cpus: Amount::ZERO, ..Self::default() }
    }

    /// Sets [`num_cpus`](field@Self::num_cpus), from 0.
    pub fn num_cpus(mut self, cpus: f64) -> Self {
        if let Some(cpus) = accept(&mut self.refused, "num_cpus", Amount::parse(cpus)) {
            self.num_cpus = cpus;
        }
        self
    }

    /// Sets [`num_gpus`](field@Self::num_gpus): 0, a part of one, or a whole number.
    pub fn num_gpus(mut self, gpus: f64) -> Self {
        if let Some(gpus) = accept(&mut self.refused, "num_gpus", Fraction::parse(gpus)) {
            self.num_gpus = gpus;
        }
        self
    }

    /// Sets [`gpu_memory_bytes`](field@Self::gpu_memory_bytes).
    pub fn gpu_memory_bytes(mut self, bytes: u64) -> Self {
        self.gpu_memory_bytes = bytes;
        self
    }

    /// Sets [`memory_bytes`](field@Self::memory_bytes).
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Asks for so much of a resource of this name; 0 asks for none. A name has 1 to 64 letters, digits, `_`,
    /// `-` and `.`, and is none of the fields.
    pub fn custom(mut self, name: impl AsRef<str>, amount: f64) -> Self {
        let name = name.as_ref();
        let key = format!("custom.{name}");
        let amount = custom_name(name).and_then(|()| Amount::parse(amount).map_err(|why| why.to_string()));
        match accept(&mut self.refused, &key, amount) {
            Some(Amount::ZERO) => drop(self.custom.remove(name)),
            Some(amount) => drop(self.custom.insert(name.to_owned(), amount)),
            None => {}
        }
        self
    }

    /// Of each thing the larger amount: room for either of two kinds of replica.
    pub(crate) fn or_more(&self, other: &Self) -> Self {
        let mut most = self.clone();
        most.num_cpus = most.num_cpus.max(other.num_cpus);
        most.num_gpus = most.num_gpus.max(other.num_gpus);
        most.gpu_memory_bytes = most.gpu_memory_bytes.max(other.gpu_memory_bytes);
        most.memory_bytes = most.memory_bytes.max(other.memory_bytes);
        for (name, amount) in &other.custom {
            let larger = most.custom.get(name).map_or(*amount, |own| (*own).max(*amount));
            most.custom.insert(name.clone(), larger);
        }
        most
    }

    /// Whether all values can be and go together.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake; the place of each is the key in a file.
    pub fn check(&self) -> Result<(), ServeError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(ServeError::InvalidConfig(problems)) }
    }

    /// Every mistake; each place is a key.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.refused.clone();
        if self.gpu_memory_bytes > 0 && self.num_gpus.is_none() && self.refused.is_empty() {
            let what = format!(
                "{} was given and num_gpus is 0; memory of a GPU is only asked for with a GPU or a part of one",
                self.gpu_memory_bytes
            );
            problems.push(Problem { place: "gpu_memory_bytes".into(), what });
        }
        problems.extend(too_many_bytes("gpu_memory_bytes", self.gpu_memory_bytes));
        problems.extend(too_many_bytes("memory_bytes", self.memory_bytes));
        problems.extend(too_many(self.custom.len()));
        problems
    }
}

/// `given`, or nothing, noted under `key`; what was refused under it before is forgotten.
pub(super) fn accept<T, E: ToString>(
    refused: &mut Vec<Problem>,
    key: &str,
    given: Result<T, E>,
) -> Option<T> {
    refused.retain(|problem| problem.place != key);
    match given {
        Ok(value) => Some(value),
        Err(why) => {
            refused.push(Problem { place: key.into(), what: why.to_string() });
            None
        }
    }
}

/// The problem of more bytes than can be written down as a whole number everywhere; no machine has them.
pub(super) fn too_many_bytes(key: &str, given: u64) -> Option<Problem> {
    let what = format!("{given} was given; at most {} is allowed", i64::MAX);
    (given > i64::MAX as u64).then(|| Problem { place: key.into(), what })
}

/// The problem of more custom resources than there may be.
pub(super) fn too_many(custom: usize) -> Option<Problem> {
    let what = format!("{custom} were given; at most {CUSTOM_RESOURCES_MAX} are allowed");
    (custom > CUSTOM_RESOURCES_MAX).then(|| Problem { place: "custom".into(), what })
}

/// Refuses what cannot be the name of a custom resource.
pub(crate) fn custom_name(name: &str) -> Result<(), String> {
    let own = ["num_cpus", "num_gpus", "memory_bytes", "gpu_memory_bytes", "custom"];
    if own.contains(&name) {
        return Err(format!("{name} has a key of its own beside custom"));
    }
    let sign = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.is_empty() || name.len() > CUSTOM_NAME_BYTES_MAX || !name.bytes().all(sign) {
        return Err(format!(
            "a name of a resource has 1 to {CUSTOM_NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`"
        ));
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn share<S: Serializer>(share: &Option<Fraction>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(share.map_or(0.0, Fraction::as_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(asked: &Resources) -> Vec<String> {
        asked.problems().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn each_value_that_cannot_be_is_told_with_its_key() {
        let asked =
            Resources::default().num_cpus(-1.0).num_gpus(1.5).custom("a b", 1.0).custom("x", f64::NAN);
        assert_eq!(
            told(&asked),
            [
                "num_cpus: -1 was given; nobody can ask for less than 0",
                "num_gpus: 1.5 is above 1 and not whole; ask for a part of one device or for whole devices",
                "custom.a b: a name of a resource has 1 to 64 letters, digits, `_`, `-` and `.`",
                "custom.x: NaN was given; allowed: a number from 0 to 1000000",
            ]
        );
        let mended = asked.num_cpus(1.0).num_gpus(1.0).custom("x", 2.0);
        assert_eq!(told(&mended).len(), 1, "a value that can be takes the place of one that cannot");
    }

    #[test]
    fn memory_of_a_gpu_without_a_gpu_a_taken_name_and_too_many_names_are_refused() {
        let told = |asked: Resources| told(&asked).concat();
        assert!(
            told(Resources::default().gpu_memory_bytes(1)).starts_with("gpu_memory_bytes: 1 was given and")
        );
        assert_eq!(told(Resources::default().gpu_memory_bytes(1).num_gpus(0.1)), "");
        assert!(
            told(Resources::default().custom("num_cpus", 1.0))
                .ends_with("has a key of its own beside custom")
        );
        assert!(told(Resources::default().custom("", 1.0)).contains("1 to 64"));
        let many = (0..40).fold(Resources::default(), |asked, i| asked.custom(format!("r{i}"), 1.0));
        assert_eq!(told(many), "custom: 40 were given; at most 32 are allowed");
    }

    #[test]
    fn more_bytes_than_can_be_written_down_are_refused() {
        let most = i64::MAX as u64;
        assert_eq!(told(&Resources::default().memory_bytes(most)).len(), 0);
        let asked = Resources::default().memory_bytes(most + 1).num_gpus(1.0).gpu_memory_bytes(u64::MAX);
        assert_eq!(
            told(&asked),
            [
                "gpu_memory_bytes: 18446744073709551615 was given; at most 9223372036854775807 is allowed",
                "memory_bytes: 9223372036854775808 was given; at most 9223372036854775807 is allowed",
            ]
        );
    }

    #[test]
    fn nothing_of_a_custom_resource_is_not_kept() {
        assert_eq!(Resources::default().custom("x", 1.0).custom("x", 0.0), Resources::default());
    }
}
