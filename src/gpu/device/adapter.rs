//! The adapters of this machine, hardware first.

use std::time::Duration;

use futures_util::FutureExt;

use super::{DeviceSource, memory_size};
use crate::gpu::error::GpuError;

/// An adapter as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterFacts {
    /// As its driver names it.
    pub name: String,
    /// Whether a processor pretends to be a GPU.
    pub software: bool,
    /// Its memory in bytes, where the driver tells.
    pub memory_bytes: Option<u64>,
}

/// The devices that can be opened, hardware before software. Takes tens of milliseconds: not for a serving thread.
pub fn adapters() -> Vec<AdapterFacts> {
    let describe = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        AdapterFacts {
            software: is_software(&info),
            memory_bytes: memory_size::of_adapter(&info, Duration::from_secs(5)),
            name: info.name,
        }
    };
    found().1.iter().map(describe).collect()
}

pub(super) fn is_software(info: &wgpu::AdapterInfo) -> bool {
    info.device_type == wgpu::DeviceType::Cpu
}

/// The adapter to open.
pub(super) fn pick(source: &DeviceSource) -> Result<(wgpu::Instance, wgpu::Adapter), GpuError> {
    if *source == DeviceSource::Noop {
        return noop();
    }
    let (instance, mut all) = found();
    let place = if let DeviceSource::Adapter(place) = source { *place } else { 0 };
    if place < all.len() {
        return Ok((instance, all.swap_remove(place)));
    }
    let why = format!("adapter {place} was asked for, {} found through Vulkan", all.len());
    Err(GpuError::NoDevice { why: why.into() })
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    descriptor.backend_options.noop.enable = backends == wgpu::Backends::NOOP;
    wgpu::Instance::new(descriptor)
}

fn found() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let backends = wgpu::Backends::VULKAN;
    // On native platforms the future is ready at once.
    let instance = instance(backends);
    let mut all = instance.enumerate_adapters(backends).now_or_never().unwrap_or_default();
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu => 1,
        wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    };
    all.sort_by_key(rank);
    (instance, all)
}

fn noop() -> Result<(wgpu::Instance, wgpu::Adapter), GpuError> {
    let options = wgpu::RequestAdapterOptions::default();
    let instance = instance(wgpu::Backends::NOOP);
    let adapter = instance.request_adapter(&options).now_or_never();
    let none = || GpuError::NoDevice { why: "wgpu has no noop adapter".into() };
    adapter.and_then(Result::ok).map(|adapter| (instance, adapter)).ok_or_else(none)
}
