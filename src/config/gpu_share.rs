//! `GpuShare`: what a replica gets of a GPU that nobody else wants.

use serde::Serialize;

/// What a replica gets of a GPU beyond its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuShare {
    /// At least its share while others want theirs, and what they leave.
    #[default]
    WorkConserving,
    /// Never more than its share, also on an idle device: so that nobody gets used to more than was promised.
    HardCap,
}

impl GpuShare {
    /// Every kind with its word in a file.
    pub(crate) const WORDS: [(&'static str, Self); 2] =
        [("work_conserving", Self::WorkConserving), ("hard_cap", Self::HardCap)];
}
