//! `GpuFailure`: what kind of failure of a share of a GPU it is.

use super::Fault;

/// Why something that a backend asked of its share of a GPU failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuFailure {
    /// There is no device, or no room on it.
    Unavailable,
    /// The device was lost; the replica gets a new lease.
    Lost,
    /// The quota or the device has no memory left for it.
    OutOfMemory,
    /// As many jobs as the lease may have wait or run, or a closure's thread was too busy to take its turn.
    Overloaded,
    /// A slice of the job ran longer than any may; its device was given up.
    TooLong,
    /// What was asked cannot be: a kernel that does not compile, a range outside a buffer.
    Refused,
}

impl GpuFailure {
    /// Stable code for machines.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "gpu_unavailable",
            Self::Lost => "gpu_lost",
            Self::OutOfMemory => "gpu_out_of_memory",
            Self::Overloaded => "gpu_overloaded",
            Self::TooLong => "gpu_job_too_long",
            Self::Refused => "gpu_refused",
        }
    }

    /// Who has to do something about it.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Unavailable | Self::Lost | Self::Overloaded => Fault::Service,
            Self::OutOfMemory | Self::TooLong | Self::Refused => Fault::Backend,
        }
    }
}
