//! Which GPUs a Serve gives shares of.

use crate::{
    actors::gpus::GpuSource,
    gpu::{DetectGpus, GpuManager},
    serve::ServeOptions,
};

impl ServeOptions {
    /// Replicas get their shares of these devices, which are open; the capacity counts them all unless it says a smaller
    /// number. Whoever gave them closes them, after the Serve has shut down.
    pub fn gpus(mut self, devices: GpuManager) -> Self {
        self.gpus = GpuSource::Given(devices);
        self
    }

    /// The GPUs of this machine are found and opened in this way, when a backend first asks for one; by default those
    /// that are no software devices. They are closed by [`Serve::shutdown`](crate::Serve::shutdown).
    pub fn detect_gpus(mut self, detect: DetectGpus) -> Self {
        self.gpus = GpuSource::Detected(detect);
        self
    }

    /// GPUs are only counted, by what the capacity says, and none is opened: for replicas that use them by other means.
    /// [`ReplicaContext::gpu`](crate::ReplicaContext::gpu) has nothing then.
    pub fn count_gpus(mut self) -> Self {
        self.gpus = GpuSource::Counted;
        self
    }

    /// Whether they are open from the start.
    pub(super) fn has_gpus(&self) -> bool {
        matches!(self.gpus, GpuSource::Given(_))
    }
}
