//! GPUs without the feature `gpu`: there are none, and replicas have no leases.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    actors::controller::Office,
    config::BackendConfig,
    error::ServeError,
    metrics::{Aside, Metrics, registry::BackendMetrics},
    resources::{Capacity, Resources},
};

/// Whose GPUs they are: nobody's.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuSource(());

/// The GPUs of a Serve: none.
pub(crate) struct Gpus;

impl Gpus {
    pub(crate) fn new(_: GpuSource, _: &Capacity) -> Self {
        Self
    }

    pub(crate) fn are_missing_for(&self, _: &Resources) -> bool {
        false
    }

    pub(crate) fn leases(&self, _: &BackendConfig, _: &[usize], _: u32, _: &Arc<BackendMetrics>) -> Leases {
        Leases(())
    }

    /// All metrics as Prometheus text.
    pub(crate) fn render(&self, metrics: &Metrics, aside: &Aside) -> String {
        metrics.render(aside)
    }

    pub(crate) fn close(&self) -> Ready<()> {
        ready(())
    }
}

/// The leases of a replica: none.
#[derive(Default)]
pub(crate) struct Leases(());

/// What holds a replica's places on devices: it has none.
pub(crate) struct Tenure;

impl Tenure {
    pub(crate) fn end(&self) {}
}

impl Leases {
    pub(crate) fn tenure(&self) -> Tenure {
        Tenure
    }

    pub(crate) fn are_ready(&self) -> bool {
        true
    }

    pub(crate) fn poll_get(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_lost(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    pub(crate) fn give_back(&mut self) {}
}

impl Office {
    /// There are none to open.
    pub(crate) fn open_gpus(&self) -> Ready<Result<(), ServeError>> {
        ready(Ok(()))
    }
}
