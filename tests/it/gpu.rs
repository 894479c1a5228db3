//! Shares of a GPU: leases, memory, jobs, loss and recovery; on a software device where there is one.

mod admin;
mod backends;
mod bad_input;
mod dashboard;
// The digits are those of the ONNX tests.
#[cfg(feature = "onnx")]
mod examples;
mod exclusive;
mod exclusive_memory;
mod given_up;
mod kernels;
mod leases;
mod loss;
mod matmul;
mod metrics;
mod on_device;
mod placement;
mod refusals;
mod replicas;
mod shares;
mod transformer;
mod under_load;
mod watchdog;
mod wgsl;
mod work;

use std::{
    ops::Deref,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use greenroom::{
    ServeError,
    gpu::{
        DeviceOptions, DeviceSource, Fraction, GpuDevice, GpuLease, LeaseRequest, SimulatedDevice, adapters,
    },
};

/// A share as people write it.
pub fn share(value: f64) -> Fraction {
    Fraction::parse(value).unwrap().unwrap()
}

/// A device that computes nothing.
pub fn noop() -> GpuDevice {
    let options =
        DeviceOptions { source: DeviceSource::Noop, memory_bytes: Some(1 << 20), ..Default::default() };
    GpuDevice::open(options).wait().unwrap()
}

/// A device that takes its time.
pub fn simulated(spec: SimulatedDevice) -> GpuDevice {
    open_simulated(spec, DeviceOptions::default())
}

pub fn open_simulated(spec: SimulatedDevice, options: DeviceOptions) -> GpuDevice {
    let options = DeviceOptions { source: DeviceSource::Simulated(spec), ..options };
    GpuDevice::open(options).wait().unwrap()
}

/// A lease of this share with a quota.
pub fn lease(device: &GpuDevice, value: f64, bytes: u64) -> GpuLease {
    device.lease(LeaseRequest::new(share(value)).memory_bytes(bytes)).wait().unwrap()
}

/// A Vulkan device with these options; without one the test says loudly that it did not run.
pub fn vulkan(options: DeviceOptions) -> Option<Opened> {
    static FOUND: OnceLock<usize> = OnceLock::new();
    if *FOUND.get_or_init(|| adapters().len()) == 0 {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("SKIPPED {test}: no Vulkan device; tests/setup.sh installs one in software");
        return None;
    }
    Some(Opened(GpuDevice::open(DeviceOptions { source: DeviceSource::First, ..options }).wait().unwrap()))
}

/// A device of a driver, which is gone before the test's process ends.
pub struct Opened(GpuDevice);

impl Deref for Opened {
    type Target = GpuDevice;
    fn deref(&self) -> &GpuDevice {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.0.status().wait().is_ok_and(|status| status.abandoned > 0) && Instant::now() < end {
            thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.0.close().wait();
    }
}

/// Numbers as a device has them.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// And back.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// A message that nobody sends.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Nothing;

/// A device with little memory.
pub fn small() -> GpuDevice {
    simulated(SimulatedDevice { memory_bytes: 1 << 20, ..Default::default() })
}
