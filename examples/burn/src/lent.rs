//! A Burn runtime on a device that is lent.

use burn::tensor::{
    Device,
    wgpu::{MemoryConfiguration, WgpuInitError, WgpuSetup},
};
use greenroom::gpu::{ExclusiveDevice, wgpu};

/// A runtime of its own for who asks, with pools of its own: to be called in a turn, once for each opening of the
/// device, as Burn keeps it until the process ends.
pub fn runtime(lent: &ExclusiveDevice) -> Result<Device, WgpuInitError> {
    let setup = WgpuSetup {
        instance: lent.instance().clone(),
        adapter: lent.adapter().clone(),
        device: lent.device().clone(),
        queue: lent.queue().clone(),
        backend: wgpu::Backend::Vulkan,
    };
    // Pages are given back one by one; pools would hold more than the lease may have.
    Device::wgpu_options().memory_config(MemoryConfiguration::ExclusivePages).setup(setup).init()
}
