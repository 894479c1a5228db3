//! Where a request goes: decisions without actors, clocks or randomness of their own.

mod affinity;
pub(crate) mod balance;
pub(crate) mod compare;
mod policy;
pub(crate) mod rendezvous;
mod shadow;
pub(crate) mod window;

pub use affinity::Affinity;
pub use compare::{COMPARE_SAMPLE_MAX, Compare};
pub use policy::{TrafficPolicy, WEIGHT_SUM_TOLERANCE};
pub use shadow::ShadowRule;
