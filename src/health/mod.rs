//! Pure: when a replica is unhealthy by its checks, and which replicas fail what their siblings do not.

mod ejection;
mod record;

pub(crate) use ejection::{Answers, Ejector, Recent, Tally};
pub(crate) use record::{FAILURES_MAX, Record, Standing};
