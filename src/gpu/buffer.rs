//! Memory on a device that belongs to a lease: counted when made, freed with the last handle.

use std::sync::Arc;

use super::link::{Dropped, Link};

/// A buffer of a lease, for kernels to read and write. Clones are the same buffer; it is freed with the last of them,
/// or with its lease.
#[derive(Clone, Debug)]
pub struct GpuBuffer(pub(crate) Arc<BufferHandle>);

#[derive(Debug)]
pub(crate) struct BufferHandle {
    pub(crate) id: u64,
    pub(crate) lease: u64,
    pub(crate) epoch: u64,
    pub(crate) bytes: u64,
    pub(crate) link: Arc<Link>,
}

impl GpuBuffer {
    /// Its length in bytes, as `arrayLength` counts; the quota is charged in steps of 256.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

impl Drop for BufferHandle {
    fn drop(&mut self) {
        self.link.dropped(Dropped::Buffer(self.id));
    }
}
