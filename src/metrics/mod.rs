//! Metrics of one Serve: its own counters for what every request touches, an exporter for what users count.

pub(crate) mod cells;
pub(crate) mod clock;
pub(crate) mod comparison;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
#[cfg(feature = "gpu")]
mod gpu_text;
pub(crate) mod in_flight;
mod labelled;
mod names;
pub(crate) mod registry;
pub(crate) mod route_counts;
pub(crate) mod shadow;
pub(crate) mod spread;
mod text;

use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::{
    ids::{BackendName, ReplicaId},
    metrics::registry::Registry,
};

/// What is told with the counters and kept elsewhere.
pub(crate) struct Aside {
    /// Restarts of the runtime's own actors, by kind.
    pub(crate) own_restarts: Vec<(&'static str, u64)>,
    /// Calls that wait for the next replica of each backend.
    pub(crate) waiting: Vec<(BackendName, usize)>,
}

/// All metrics of one Serve. The process's global recorder is never touched.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    users: Arc<PrometheusRecorder>,
    names: Arc<names::UserNames>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let users = Arc::new(PrometheusBuilder::new().build_recorder());
        Self { registry: Registry::default(), users, names: Arc::default() }
    }

    /// Where the metrics that user code makes inside this replica go: they get its labels.
    pub(crate) fn recorder_for(&self, replica: &ReplicaId) -> Arc<dyn metrics::Recorder + Send + Sync> {
        Arc::new(labelled::Labelled::new(Arc::clone(&self.users), Arc::clone(&self.names), replica))
    }

    /// Folds what users' histograms have gathered, so that they do not grow while nobody scrapes.
    pub(crate) fn upkeep(&self) {
        self.users.handle().run_upkeep();
    }

    /// Everything as Prometheus text.
    pub(crate) fn render(
        &self,
        aside: &Aside,
        #[cfg(feature = "gpu")] devices: &[crate::gpu::GpuDevice],
    ) -> String {
        let mut out = text::render(&self.registry, aside);
        #[cfg(feature = "gpu")]
        if !devices.is_empty() {
            gpu_text::render(&mut out, &self.registry, devices);
        }
        out.push_str(&self.users.handle().render());
        out
    }
}
