//! What the scheduler needs of a device: buffers, kernels, slices that end in order, and the news that it is lost.

mod adapter;
mod compile;
mod encode;
mod memory_size;
mod simulated;
mod wgpu_device;
mod wording;

use std::time::Duration;

use super::{error::GpuError, exclusive::ExclusiveDevice, kernel::KernelSpec};

pub use adapter::{AdapterFacts, adapters};
pub(crate) use simulated::Simulated;
pub use simulated::SimulatedDevice;
pub(crate) use wgpu_device::WgpuDevice;

/// Most slices that a device has at once.
pub(crate) const FLIGHTS_MAX: usize = 16;

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum DeviceSource {
    /// The first real GPU, or a software device when there is none.
    #[default]
    First,
    /// The adapter of this place in [`adapters`].
    Adapter(usize),
    /// A device of wgpu that keeps buffers and computes nothing. Needs no driver.
    Noop,
    /// A device that keeps buffers and takes its time over kernels without running them. Needs no driver.
    Simulated(SimulatedDevice),
}

/// Whose clock the time of slices is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceClock {
    /// A GPU's own; the host's for a software device, which has no other: its timestamps are the host's clock too, and
    /// asking for them stops its threads for as long as a small dispatch takes.
    #[default]
    Auto,
    /// The device's own timestamps, where it has any.
    Device,
    /// The host's, from the end of one slice to the end of the next. Good as long as slices follow each other: time
    /// that the device waits for the host counts as the slice's.
    Host,
}

/// What a device is and can do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceFacts {
    /// As its driver names it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether a processor pretends to be a GPU.
    pub software: bool,
    /// Whether it measures its own time; otherwise the host's clock does.
    pub timestamps: bool,
    /// Largest buffer that a kernel can be given, in bytes.
    pub buffer_bytes_max: u64,
    /// Largest block of immediates of a dispatch, in bytes; 0 when there are none, and then nothing is split.
    pub immediate_bytes_max: u32,
    /// Most workgroups along one axis of a grid.
    pub grid_max: u32,
    /// The device's memory in bytes.
    pub memory_bytes: u64,
    /// Where that number is from.
    pub memory_source: MemorySource,
}

/// Where the size of a device's memory is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// An option said so.
    Told,
    /// The driver said so.
    Driver,
    /// Nobody knows; a careful guess.
    Assumed,
}

/// A part of a slice. Offsets and sizes are multiples of 4 within the buffer: checked before.
pub(crate) enum Piece<'a, D: DeviceOps + ?Sized> {
    Dispatch { bound: &'a D::Bound, immediates: &'a [u8], grid: [u32; 3] },
    Write { buffer: &'a D::Buffer, offset: u64, bytes: &'a [u8] },
    Read { buffer: &'a D::Buffer, offset: u64, bytes: u64 },
}

/// A slice that ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ticket: u64,
    /// What it took of the device, without what ran before it.
    pub(crate) device_time: Duration,
    /// What its reads read, in their order.
    pub(crate) reads: Vec<Vec<u8>>,
}

/// Compiles kernels, on another thread than the device's: it takes long.
pub(crate) trait Compile: Send + 'static {
    type Kernel: Clone + Send + 'static;

    fn compile(&self, spec: &KernelSpec) -> Result<Self::Kernel, GpuError>;
}

/// A device. Slices end in the order of their submission; one thread calls all of it.
pub(crate) trait DeviceOps {
    type Buffer;
    type Kernel: Clone + Send + 'static;
    /// What compiles kernels for it.
    type Compiler: Compile<Kernel = Self::Kernel>;
    /// A kernel with its buffers.
    type Bound;

    fn facts(&self) -> &DeviceFacts;

    fn create_buffer(&mut self, bytes: u64) -> Result<Self::Buffer, GpuError>;

    fn compiler(&self) -> Self::Compiler;

    /// Binds buffers to a kernel; with each the bytes of it that are used.
    fn bind(
        &mut self,
        kernel: &Self::Kernel,
        buffers: &[(&Self::Buffer, u64)],
    ) -> Result<Self::Bound, GpuError>;

    /// Gives one slice to the device and returns its ticket.
    fn submit(&mut self, pieces: &[Piece<'_, Self>], now: Duration) -> Result<u64, GpuError>;

    /// Adds the slices that have ended to `done`, waiting up to `wait` for one.
    fn collect(&mut self, wait: Duration, now: Duration, done: &mut Vec<Done>);

    /// What code that brings its own calls is lent; `None` where there is nothing of the kind.
    fn lend(&self) -> Option<ExclusiveDevice>;

    /// Such code is done: listens again to what it may have had told to itself, and answers what was reported of it.
    fn take_back(&mut self) -> Option<GpuError>;

    /// Why the device is gone, if it is.
    fn lost(&self) -> Option<Box<str>>;

    /// Loses the device as a failing driver would.
    fn lose(&mut self);

    /// Opens the device again; everything made before is void.
    fn reopen(&mut self) -> Result<(), GpuError>;

    /// How many devices that were given up are not gone yet.
    fn abandoned(&self) -> usize;

    /// Bytes in buffers by the device's own count, without those it always holds; `None` when it does not count.
    fn counted_bytes(&self) -> Option<u64>;
}
