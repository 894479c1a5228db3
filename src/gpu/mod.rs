//! Shares of a GPU that are enforced: leases on a device whose compute time is scheduled and whose memory is counted.
//!
//! `docs/gpu.md` says what is promised and what is not.

mod buffer;
mod capacity;
mod core;
mod counts;
mod detect;
mod device;
mod error;
mod exclusive;
mod gpu_device;
mod job;
mod kernel;
mod lease;
mod link;
mod manager;
mod memory;
mod pending;
mod shares;
mod slices;
mod status;
mod ticket;

pub use crate::resources::{Fraction, FractionError, WHOLE_DEVICES_MAX};
pub use buffer::GpuBuffer;
pub use capacity::{Free, place};
pub(crate) use counts::DeviceHealth;
pub use detect::DetectGpus;
pub use device::{
    AdapterFacts, DeviceClock, DeviceFacts, DeviceSource, MemorySource, SimulatedDevice, adapters,
};
pub use error::GpuError;
pub use exclusive::{ExclusiveDevice, PendingTurn};
pub use gpu_device::{DeviceOptions, GpuDevice};
pub use job::{JOB_STEPS_MAX, Job, JobDone};
pub use kernel::{Axis, GpuKernel, KernelSpec, WGSL_BYTES_MAX};
pub(crate) use lease::LeaseGauge;
pub use lease::{GpuLease, LeaseRequest};
pub use manager::GpuManager;
pub use pending::Pending;
pub use shares::{Order, ShareOptions, SharePolicy};
pub use status::{DeviceStatus, LeaseStatus};
pub(crate) use ticket::CapacityTicket;
/// What devices are driven by, for [`GpuLease::exclusive`].
pub use wgpu;
