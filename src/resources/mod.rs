//! What replicas ask for and what there is, as exact numbers: pure, no clock, no threads, no actors.

mod amount;
mod asked;
mod capacity;
mod fraction;
mod gpus;
mod pool;
#[cfg(test)]
mod pool_tests;
mod shortage;

pub use amount::{AMOUNT_MAX, Amount, AmountError};
pub(crate) use asked::custom_name;
pub use asked::{CUSTOM_RESOURCES_MAX, Resources};
pub use capacity::{Capacity, FreeCapacity};
#[cfg(feature = "gpu")]
pub(crate) use fraction::WHOLE;
pub use fraction::{Fraction, FractionError, WHOLE_DEVICES_MAX};
pub(crate) use pool::{Claim, Pool};
pub(crate) use shortage::Shortage;
