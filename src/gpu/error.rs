//! What can go wrong with a share of a GPU, typed; an error reaches the caller that caused it, and no other.

use std::time::Duration;

use crate::{
    error::{GpuFailure, ServeError},
    resources::{Fraction, FractionError},
};

/// Why a lease, a buffer, a kernel or a job was refused or failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The number asked for is no share of a device.
    #[error(transparent)]
    Fraction(#[from] FractionError),
    /// No device of that kind can be opened here.
    #[error("no GPU device: {why}")]
    NoDevice {
        /// What was looked for and what was found.
        why: Box<str>,
    },
    /// The share does not fit on any device.
    #[error("a share of {asked} with {memory_bytes} bytes fits on no device; free: {free}")]
    Unplaceable {
        /// The share asked for.
        asked: Fraction,
        /// The memory asked for, in bytes.
        memory_bytes: u64,
        /// What each device has left.
        free: Box<str>,
    },
    /// The lease's memory would pass its quota.
    #[error(
        "{requested_bytes} bytes more would pass the lease's quota: {used_bytes} of {quota_bytes} in use"
    )]
    QuotaExceeded {
        /// Asked for, rounded up as the device allocates.
        requested_bytes: u64,
        /// In use or being made.
        used_bytes: u64,
        /// The most this lease may hold.
        quota_bytes: u64,
    },
    /// The driver has no memory left, although the quota has.
    #[error("the device is out of memory")]
    DeviceOutOfMemory,
    /// A buffer larger than the device binds.
    #[error("a buffer of {requested_bytes} bytes is above the device's limit of {max_bytes}")]
    BufferTooLarge {
        /// Asked for.
        requested_bytes: u64,
        /// Largest buffer of this device.
        max_bytes: u64,
    },
    /// The kernel's text does not compile.
    #[error("WGSL, line {line}, column {column}: {message}")]
    Wgsl {
        /// First line that is wrong, from 1.
        line: u32,
        /// First column that is wrong, in bytes from 1.
        column: u32,
        /// What is wrong.
        message: Box<str>,
    },
    /// The request is wrong in itself: bindings, ranges, grid, immediates.
    #[error("refused: {what}")]
    Invalid {
        /// What is wrong and what is allowed.
        what: Box<str>,
    },
    /// As many jobs as this lease may have wait or run.
    #[error("{limit} jobs of this lease wait or run, the most it may have")]
    QueueFull {
        /// Jobs that a lease may have at once.
        limit: usize,
    },
    /// The lease was released.
    #[error("the lease was released")]
    Released,
    /// The lease was taken back: its replica is gone, or was given up because its thread hangs.
    #[error("the lease was taken back; its replica is gone")]
    Revoked,
    /// The lease, buffer or kernel belongs to a device that was lost and replaced.
    #[error(
        "made in epoch {own} of the device, which is in epoch {current} now; renew the lease and make it again"
    )]
    OtherEpoch {
        /// Where it was made.
        own: u64,
        /// The device now.
        current: u64,
    },
    /// The device was lost while the job waited or ran. What the job wrote may be half done.
    #[error("the device of epoch {epoch} was lost: {reason}")]
    DeviceLost {
        /// The epoch that ended.
        epoch: u64,
        /// What was seen.
        reason: Box<str>,
    },
    /// A slice of the job, or its closure, ran longer than any may; its device was given up and replaced. A job of many
    /// slices may run longer.
    #[error("a slice of the job did not end within {after:?}; its device was given up")]
    Watchdog {
        /// How long no slice had ended.
        after: Duration,
    },
    /// The lease has ended: closures that had the device to themselves left more memory in use than its quota.
    #[error("the lease has ended: its closures left {used_bytes} bytes in use, its quota is {quota_bytes}")]
    OverQuota {
        /// In use, buffers of the lease included.
        used_bytes: u64,
        /// The most it may hold.
        quota_bytes: u64,
    },
    /// A closure had its turn and did not begin: its thread was busy with something else.
    #[error("the closure did not begin within {within:?} of its turn")]
    TurnMissed {
        /// How long the device was held for it.
        within: Duration,
    },
    /// The device's thread has ended.
    #[error("the device was closed")]
    Closed,
    /// This replica has no share of a GPU.
    #[error("no share of a GPU: {why}")]
    NoLease {
        /// What to change.
        why: Box<str>,
    },
}

impl GpuError {
    /// Wrong in itself.
    pub(crate) fn invalid(what: impl Into<Box<str>>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// Whether it will be so again whenever the same is tried.
    pub(crate) fn permanent(&self) -> bool {
        match self {
            // However much of the lease is free.
            Self::QuotaExceeded { requested_bytes, quota_bytes, .. } => requested_bytes > quota_bytes,
            Self::Fraction(_)
            | Self::BufferTooLarge { .. }
            | Self::Wgsl { .. }
            | Self::Invalid { .. }
            | Self::NoLease { .. } => true,
            _ => false,
        }
    }

    /// Whether the same request can succeed on a renewed lease or a little later. This is the lease's view: with one
    /// that was taken back ([`Revoked`](Self::Revoked)), or whose device was closed ([`Closed`](Self::Closed)), nothing
    /// succeeds any more, while a caller of the backend may try again, as [`ServeError::retryable`] says.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::OtherEpoch { .. }
                | Self::DeviceLost { .. }
                | Self::NoDevice { .. }
                | Self::Unplaceable { .. }
                | Self::TurnMissed { .. }
        )
    }
}

impl From<GpuError> for ServeError {
    fn from(error: GpuError) -> Self {
        let failure = match &error {
            GpuError::NoDevice { .. }
            | GpuError::Unplaceable { .. }
            | GpuError::Revoked
            | GpuError::Closed => GpuFailure::Unavailable,
            GpuError::DeviceLost { .. } | GpuError::OtherEpoch { .. } => GpuFailure::Lost,
            GpuError::QuotaExceeded { .. } | GpuError::DeviceOutOfMemory | GpuError::OverQuota { .. } => {
                GpuFailure::OutOfMemory
            }
            GpuError::QueueFull { .. } | GpuError::TurnMissed { .. } => GpuFailure::Overloaded,
            GpuError::Watchdog { .. } => GpuFailure::TooLong,
            GpuError::Fraction(_)
            | GpuError::BufferTooLarge { .. }
            | GpuError::Wgsl { .. }
            | GpuError::Invalid { .. }
            | GpuError::Released
            | GpuError::NoLease { .. } => GpuFailure::Refused,
        };
        Self::Gpu { failure, why: error.to_string().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<GpuError> {
        let (bytes, second) = (256, Duration::from_secs(1));
        vec![
            Fraction::parse(-1.0).unwrap_err().into(),
            GpuError::NoDevice { why: "".into() },
            GpuError::Unplaceable { asked: Fraction::ONE, memory_bytes: bytes, free: "".into() },
            GpuError::QuotaExceeded { requested_bytes: bytes, used_bytes: bytes, quota_bytes: bytes },
            GpuError::DeviceOutOfMemory,
            GpuError::BufferTooLarge { requested_bytes: bytes, max_bytes: 4 },
            GpuError::Wgsl { line: 1, column: 1, message: "".into() },
            GpuError::invalid(""),
            GpuError::QueueFull { limit: 1 },
            GpuError::Released,
            GpuError::OtherEpoch { own: 1, current: 2 },
            GpuError::DeviceLost { epoch: 1, reason: "".into() },
            GpuError::Watchdog { after: second },
            GpuError::OverQuota { used_bytes: bytes, quota_bytes: 4 },
            GpuError::TurnMissed { within: second },
            GpuError::NoLease { why: "".into() },
        ]
    }

    #[test]
    fn a_lease_and_its_callers_are_told_the_same_of_trying_again_but_for_what_has_ended() {
        for error in all() {
            assert_eq!(ServeError::from(error.clone()).retryable(), error.retryable(), "{error:?}");
        }
        for ended in [GpuError::Revoked, GpuError::Closed] {
            assert!(!ended.retryable() && ServeError::from(ended).retryable());
        }
    }

    #[test]
    fn a_closure_that_missed_its_turn_is_told_as_overload() {
        let missed = ServeError::from(GpuError::TurnMissed { within: Duration::from_secs(1) });
        assert!(matches!(missed, ServeError::Gpu { failure: GpuFailure::Overloaded, .. }), "{missed}");
    }

    #[test]
    fn more_than_the_whole_quota_is_refused_for_ever_and_less_only_now() {
        let exceeded =
            |requested_bytes| GpuError::QuotaExceeded { requested_bytes, used_bytes: 512, quota_bytes: 1024 };
        assert!(exceeded(1280).permanent());
        assert!(!exceeded(1024).permanent());
    }
}
