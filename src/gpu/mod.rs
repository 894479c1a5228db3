//! Shares of a GPU that are enforced: leases on a device whose compute time is scheduled and whose memory is counted.

mod error;
mod fraction;
mod memory;
mod shares;
mod slices;

pub use error::GpuError;
pub use fraction::{Fraction, FractionError, WHOLE_DEVICES_MAX};
pub use shares::{Order, ShareOptions, SharePolicy};
