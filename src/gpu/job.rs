//! Jobs: writes, dispatches and reads that run in order and are answered together.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{buffer::GpuBuffer, error::GpuError, gpu_device::GpuDevice, kernel::GpuKernel, link::Link};

/// Most steps of one job.
pub const JOB_STEPS_MAX: usize = 4096;

/// Steps for the device, run in order. A whole inference is best one job: its input written, its kernels, its output
/// read, with a single round trip.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Dispatch {
        kernel: GpuKernel,
        buffers: SmallVec<[GpuBuffer; 4]>,
        grid: [u32; 3],
        immediates: SmallVec<[u8; 32]>,
    },
    Write {
        buffer: GpuBuffer,
        offset: u64,
        bytes: Bytes,
    },
    Read {
        buffer: GpuBuffer,
        offset: u64,
        bytes: u64,
    },
}

/// A job that ended well.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobDone {
    /// What was read, in the order of the reads.
    pub reads: Vec<Vec<u8>>,
    /// What it took of the device, without what ran before it.
    pub device_time: Duration,
    /// From its arrival to its first slice.
    pub queue_wait: Duration,
    /// Pieces that it ran in.
    pub slices: u32,
}

impl Job {
    /// A job without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a kernel over a grid of workgroups, with `buffers` bound to `@group(0)` in their order.
    #[must_use]
    pub fn dispatch(self, kernel: &GpuKernel, buffers: &[&GpuBuffer], grid: [u32; 3]) -> Self {
        self.dispatch_with(kernel, buffers, grid, &[])
    }

    /// Runs a kernel that takes immediates. The bytes that its split axis uses are filled in.
    #[must_use]
    pub fn dispatch_with(
        mut self,
        kernel: &GpuKernel,
        buffers: &[&GpuBuffer],
        grid: [u32; 3],
        immediates: &[u8],
    ) -> Self {
        self.steps.push(Step::Dispatch {
            kernel: kernel.clone(),
            buffers: buffers.iter().copied().cloned().collect(),
            grid,
            immediates: immediates.into(),
        });
        self
    }

    /// Writes bytes into a buffer. Offset and length are multiples of 4.
    #[must_use]
    pub fn write(mut self, buffer: &GpuBuffer, offset: u64, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Write { buffer: buffer.clone(), offset, bytes: bytes.into() });
        self
    }

    /// Reads bytes of a buffer. Offset and length are multiples of 4.
    #[must_use]
    pub fn read(mut self, buffer: &GpuBuffer, offset: u64, bytes: u64) -> Self {
        self.steps.push(Step::Read { buffer: buffer.clone(), offset, bytes });
        self
    }

    /// Whether a lease of this device and epoch may run it.
    pub(crate) fn check(&self, lease: u64, epoch: u64, device: &GpuDevice) -> Result<(), GpuError> {
        let facts = device.facts();
        if self.steps.is_empty() || self.steps.len() > JOB_STEPS_MAX {
            let what = format!("a job has 1 to {JOB_STEPS_MAX} steps, this one {}", self.steps.len());
            return Err(GpuError::invalid(what));
        }
        let own = |of: u64, made: u64, on: &Arc<Link>, what: &str| {
            // Numbers of leases and buffers are a device's own.
            if !Arc::ptr_eq(on, device.link()) {
                return Err(GpuError::invalid(format!("a {what} of another device")));
            }
            if made != epoch {
                return Err(GpuError::OtherEpoch { own: made, current: epoch });
            }
            (of == lease).then_some(()).ok_or_else(|| GpuError::invalid(format!("a {what} of another lease")))
        };
        for step in &self.steps {
            match step {
                Step::Dispatch { kernel, buffers, grid, immediates } => {
                    own(kernel.0.lease, kernel.0.epoch, &kernel.0.link, "kernel")?;
                    for buffer in buffers {
                        own(buffer.0.lease, buffer.0.epoch, &buffer.0.link, "buffer")?;
                    }
                    check_grid(*grid, facts.grid_max)?;
                    check_immediates(immediates.len(), facts.immediate_bytes_max)?;
                }
                Step::Write { buffer, offset, bytes } => {
                    own(buffer.0.lease, buffer.0.epoch, &buffer.0.link, "buffer")?;
                    check_range(buffer, *offset, bytes.len() as u64)?;
                }
                Step::Read { buffer, offset, bytes } => {
                    own(buffer.0.lease, buffer.0.epoch, &buffer.0.link, "buffer")?;
                    check_range(buffer, *offset, *bytes)?;
                }
            }
        }
        Ok(())
    }
}

fn check_grid(grid: [u32; 3], max: u32) -> Result<(), GpuError> {
    let fits = grid.iter().all(|n| (1..=max).contains(n));
    fits.then_some(()).ok_or_else(|| {
        GpuError::invalid(format!("a grid of {grid:?} workgroups; allowed: 1 to {max} an axis"))
    })
}

fn check_immediates(bytes: usize, max: u32) -> Result<(), GpuError> {
    let fits = bytes.is_multiple_of(4) && bytes <= max as usize;
    let what =
        || GpuError::invalid(format!("{bytes} bytes of immediates; allowed: a multiple of 4, up to {max}"));
    fits.then_some(()).ok_or_else(what)
}

fn check_range(buffer: &GpuBuffer, offset: u64, bytes: u64) -> Result<(), GpuError> {
    let inside = offset.checked_add(bytes).is_some_and(|end| end <= buffer.bytes());
    if inside && bytes > 0 && offset.is_multiple_of(4) && bytes.is_multiple_of(4) {
        return Ok(());
    }
    Err(GpuError::invalid(format!(
        "{bytes} bytes from {offset} on, in a buffer of {}; allowed: multiples of 4 inside it, not nothing",
        buffer.bytes()
    )))
}
