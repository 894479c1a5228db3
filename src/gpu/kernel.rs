//! Kernels: WGSL with an entry point, and the axis along which their grid may be cut.

use std::sync::Arc;

use super::link::{Dropped, Link};

/// Longest text of a kernel, in bytes: how deep the compiler goes is bounded by it.
pub const WGSL_BYTES_MAX: usize = 64 << 10;

/// An axis of a dispatch's grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The first.
    X,
    /// The second.
    Y,
    /// The third.
    Z,
}

impl Axis {
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Where a kernel lets its grid be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) axis: Axis,
    pub(crate) immediate_offset: u32,
}

/// A compute kernel to make: the buffers of a dispatch are bound to `@group(0)` in their order.
///
/// A kernel whose workgroups do not depend on each other can say where it may be cut: a long dispatch is then
/// run in slices, between which other leases get their turn, and its results are the same to the bit. The kernel adds
/// a `u32` of its immediates to the workgroup's index on that axis.
///
/// ```
/// use greenroom::gpu::{Axis, KernelSpec};
/// let double = KernelSpec::new(
///     "var<immediate> first: u32;
///      @group(0) @binding(0) var<storage, read_write> data: array<f32>;
///      @compute @workgroup_size(64)
///      fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
///          let at = (group.x + first) * 64 + i;
///          if at < arrayLength(&data) { data[at] *= 2.0; }
///      }",
/// )
/// .split(Axis::X, 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KernelSpec {
    pub(crate) wgsl: Arc<str>,
    pub(crate) entry: Arc<str>,
    pub(crate) split: Option<Split>,
}

impl KernelSpec {
    /// A kernel with the entry point `main`, never cut. The text has [`WGSL_BYTES_MAX`] bytes at most.
    pub fn new(wgsl: impl Into<Arc<str>>) -> Self {
        Self { wgsl: wgsl.into(), entry: "main".into(), split: None }
    }

    /// Another entry point.
    #[must_use]
    pub fn entry(self, name: impl Into<Arc<str>>) -> Self {
        Self { entry: name.into(), ..self }
    }

    /// Whether it compiles to the same, or is refused as the same.
    pub(crate) fn same_code(&self, other: &Self) -> bool {
        self.wgsl == other.wgsl && self.entry == other.entry && self.split == other.split
    }

    /// The grid may be cut along `axis`. The first workgroup of a piece is written as a `u32` at
    /// `immediate_offset` bytes into the immediates, a multiple of 4. A text that has no immediates there is refused.
    #[must_use]
    pub fn split(self, axis: Axis, immediate_offset: u32) -> Self {
        Self { split: Some(Split { axis, immediate_offset }), ..self }
    }
}

/// A compiled kernel of a lease. Clones are the same kernel; it goes with the last.
#[derive(Clone, Debug)]
pub struct GpuKernel(pub(crate) Arc<KernelHandle>);

#[derive(Debug)]
pub(crate) struct KernelHandle {
    pub(crate) id: u64,
    pub(crate) lease: u64,
    pub(crate) epoch: u64,
    pub(crate) split: Option<Split>,
    pub(crate) link: Arc<Link>,
}

impl Drop for KernelHandle {
    fn drop(&mut self) {
        self.link.dropped(Dropped::Kernel(self.id));
    }
}
