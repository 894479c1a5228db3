//! The devices of this machine, found and opened when they are needed.

use std::thread;

use super::{
    device::{DeviceSource, adapters},
    error::GpuError,
    gpu_device::{DeviceOptions, GpuDevice},
    manager::GpuManager,
    pending::Pending,
};

/// Which devices are opened, and how each is shared.
///
/// ```
/// use greenroom::gpu::DetectGpus;
/// let also_in_software = DetectGpus::default().software();
/// # let _ = also_in_software;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct DetectGpus {
    software: bool,
    options: DeviceOptions,
}

impl DetectGpus {
    /// Where there is no GPU, a software device does for one: for development and tests.
    pub fn software(self) -> Self {
        Self { software: true, ..self }
    }

    /// How each device is opened and shared; its source does not count.
    pub fn options(self, options: DeviceOptions) -> Self {
        Self { options, ..self }
    }

    /// Opens every GPU of this machine, or else one software device if that may be. Takes 100 ms or more, on a thread
    /// of its own.
    ///
    /// # Errors
    /// [`GpuError::NoDevice`] with what was found, when none can be opened.
    pub fn open(&self) -> Pending<GpuManager> {
        let detect = self.clone();
        Pending::ask(|answer| {
            let run = move || {
                let opened = detect.open_here(|| answer.is_closed());
                drop(answer.send(opened));
            };
            let spawned = thread::Builder::new().name("greenroom-gpus".into()).spawn(run);
            spawned.map(drop).map_err(|error| GpuError::NoDevice { why: error.to_string().into() })
        })
    }

    fn open_here(self, left: impl Fn() -> bool) -> Result<GpuManager, GpuError> {
        let found = adapters();
        let hardware = found.iter().filter(|adapter| !adapter.software).count();
        let (mut devices, mut failed) = (Vec::new(), Vec::new());
        // They are listed hardware first.
        let count = if hardware == 0 && self.software { found.len().min(1) } else { hardware };
        for (place, adapter) in found.iter().enumerate().take(count) {
            if left() {
                // Nobody waits for the rest.
                break;
            }
            let options = DeviceOptions { source: DeviceSource::Adapter(place), ..self.options.clone() };
            match GpuDevice::open(options).wait() {
                Ok(device) => devices.push(device),
                Err(error) => failed.push(format!("{}: {error}", adapter.name)),
            }
        }
        if !devices.is_empty() {
            return Ok(GpuManager::new(devices));
        }
        let why = match found.first() {
            _ if !failed.is_empty() => failed.join(", "),
            None => "Vulkan lists none".to_owned(),
            Some(first) => format!(
                "Vulkan lists only {}, a software device; `DetectGpus::software` allows it",
                first.name
            ),
        };
        Err(GpuError::NoDevice { why: why.into() })
    }
}
