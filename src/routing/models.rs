//! The live inference models: backends that the Open Inference Protocol reaches by their own name.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{ids::BackendName, routing::backend_routes::BackendRoutes};

/// The live inference models; readers see one whole table, a change swaps it.
#[derive(Default)]
pub(crate) struct Models(ArcSwap<BTreeMap<BackendName, Arc<BackendRoutes>>>);

impl Models {
    /// The model of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<BackendRoutes>> {
        self.0.load().get(name).cloned()
    }

    /// Every model there is.
    pub(crate) fn all(&self) -> Vec<Arc<BackendRoutes>> {
        self.0.load().values().cloned().collect()
    }

    /// Adds a backend, if it is a model; else it is none here either.
    pub(crate) fn update(&self, backend: &Arc<BackendRoutes>) {
        if backend.model().is_none() {
            return self.remove(&backend.name);
        }
        self.0.rcu(|table| {
            let mut table = BTreeMap::clone(table);
            table.insert(backend.name.clone(), Arc::clone(backend));
            table
        });
    }

    /// Takes a backend out.
    pub(crate) fn remove(&self, name: &BackendName) {
        self.0.rcu(|table| {
            let mut table = BTreeMap::clone(table);
            table.remove(name);
            table
        });
    }
}
