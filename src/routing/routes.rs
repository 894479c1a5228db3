//! The live HTTP routes: from a path to the endpoint behind it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    endpoint::Checked,
    error::ServeError,
    ids::EndpointName,
    metrics::route_counts::RouteCounts,
    route::{RoutePattern, RouteTable},
    routing::endpoint::EndpointSlot,
};

/// What stands behind a route.
pub(crate) struct RouteEntry {
    pub(crate) slot: Arc<EndpointSlot>,
    pub(crate) methods: Arc<[&'static str]>,
    /// Its answers.
    pub(crate) counts: RouteCounts,
}

impl RouteEntry {
    /// Whether the endpoint answers to `method`. As everywhere on the web, GET brings HEAD along.
    pub(crate) fn allows(&self, method: &str) -> bool {
        let method = if method == "HEAD" && self.methods.contains(&"GET") { "GET" } else { method };
        self.methods.contains(&method)
    }

    /// Every method it answers to, for the header `Allow`.
    pub(crate) fn allowed(&self) -> Vec<&'static str> {
        let mut allowed = Vec::new();
        for method in &*self.methods {
            allowed.push(*method);
            if *method == "GET" && !self.methods.contains(&"HEAD") {
                allowed.push("HEAD");
            }
        }
        allowed
    }
}

/// The live HTTP routes; readers see one whole table, a change swaps it.
#[derive(Default)]
pub(crate) struct Routes {
    table: ArcSwap<RouteTable<Arc<RouteEntry>>>,
    changing: Mutex<()>,
}

impl Routes {
    /// The table as it is now.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<RouteTable<Arc<RouteEntry>>>> {
        self.table.load()
    }

    /// Whether the route that an endpoint is to have is free, or its own already.
    ///
    /// # Errors
    /// [`ServeError::AlreadyExists`] with the route that matches the same paths.
    pub(crate) fn check(&self, name: &EndpointName, endpoint: &Checked) -> Result<(), ServeError> {
        let Some(route) = &endpoint.route else { return Ok(()) };
        let table = self.table.load();
        let mut others = table.iter().filter(|(_, entry)| entry.slot.name != *name);
        match others.find(|(other, _)| other.shape().eq(route.shape())) {
            Some((other, _)) => Err(ServeError::AlreadyExists { what: "route", name: other.as_str().into() }),
            None => Ok(()),
        }
    }

    /// Adds the route of an endpoint, if it has one.
    pub(crate) fn add(&self, slot: &Arc<EndpointSlot>, endpoint: &Checked) -> Result<(), ServeError> {
        let Some((route, entry)) = entry(slot, endpoint) else { return Ok(()) };
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = RouteTable::clone(&self.table.load());
        table.insert(route, entry)?;
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Takes the routes of `gone` out and puts those of `set` in the place of what they had, in one step. `ready` is
    /// run before callers see it, when nothing but this can refuse it any more.
    pub(crate) fn replace(
        &self,
        gone: &[EndpointName],
        set: &[(Arc<EndpointSlot>, &Checked)],
        ready: impl FnOnce() -> Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        let changed: BTreeSet<_> = gone.iter().chain(set.iter().map(|(slot, _)| &slot.name)).collect();
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = RouteTable::default();
        let old = self.table.load_full();
        for (route, entry) in old.iter().filter(|(_, entry)| !changed.contains(&entry.slot.name)) {
            table.insert(route.clone(), Arc::clone(entry))?;
        }
        for (route, entry) in set.iter().filter_map(|(slot, endpoint)| entry(slot, endpoint)) {
            table.insert(route, entry)?;
        }
        ready()?;
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Takes the route of an endpoint out.
    pub(crate) fn remove(&self, endpoint: &EndpointName) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = RouteTable::default();
        let kept = self.table.load();
        for (route, entry) in kept.iter().filter(|(_, entry)| entry.slot.name != *endpoint) {
            let route: &RoutePattern = route;
            // Routes that stood side by side do so again.
            let _ = table.insert(route.clone(), Arc::clone(entry));
        }
        self.table.store(Arc::new(table));
    }
}

/// The route of an endpoint, if it has one, and what stands behind it.
fn entry(slot: &Arc<EndpointSlot>, endpoint: &Checked) -> Option<(RoutePattern, Arc<RouteEntry>)> {
    let route = endpoint.route.clone()?;
    let entry = RouteEntry {
        slot: Arc::clone(slot),
        methods: endpoint.methods.as_slice().into(),
        counts: RouteCounts::new(route.as_str()),
    };
    Some((route, Arc::new(entry)))
}
