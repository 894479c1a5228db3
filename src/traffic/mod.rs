//! Where a request goes: decisions without actors, clocks or randomness of their own.

pub(crate) mod balance;
mod policy;

pub use policy::{TrafficPolicy, WEIGHT_SUM_TOLERANCE};
