//! `Resolved`: the backends that an endpoint names, found and checked, and what the endpoint means with them.

use std::sync::Arc;

use crate::{
    actors::{
        controller::{Office, Outcome},
        fleet::Fleet,
    },
    comparison::Comparison,
    endpoint::Checked,
    error::ServeError,
    http_call::HttpCall,
    ids::{BackendName, EndpointName},
    routing::{
        backend_routes::BackendRoutes,
        endpoint::{EndpointState, Routed},
        shadows::{self, Shadow},
    },
    traffic::ShadowRule,
};

/// The backends that a declared endpoint names, in its order, once all of it is found to be possible.
pub(crate) struct Resolved {
    served: Vec<Arc<BackendRoutes>>,
    shadows: Vec<Arc<BackendRoutes>>,
}

impl Resolved {
    /// The backends that it names. Where the code of one is not there yet, nothing can be said of what it takes.
    pub(super) fn find(fleet: &Fleet, declared: &Checked) -> Result<Self, ServeError> {
        Self::among(declared, |backend| {
            if let Some(awaiting) = fleet.awaiting.get(backend) {
                return Ok(Arc::clone(&awaiting.routes));
            }
            let entry = fleet.backends.get(backend).filter(|entry| !entry.deleting());
            let entry = entry.ok_or_else(|| ServeError::UnknownBackend(backend.clone()))?;
            if !entry.created() {
                return Err(ServeError::invalid(
                    backend.as_str(),
                    "it is still being created; use it afterwards",
                ));
            }
            Ok(Arc::clone(&entry.routes))
        })
    }

    /// The same among backends that `routes` knows.
    pub(crate) fn among(
        declared: &Checked,
        routes: impl Fn(&BackendName) -> Result<Arc<BackendRoutes>, ServeError>,
    ) -> Result<Self, ServeError> {
        let served = declared.traffic.iter().map(|(backend, _)| routes(backend)).collect::<Result<_, _>>()?;
        let shadows = declared.shadows.iter().map(|rule| routes(rule.backend())).collect::<Result<_, _>>()?;
        Ok(Self { served, shadows })
    }

    /// Whether the backends take what the endpoint would send them.
    pub(crate) fn check(self, declared: &Checked) -> Result<Self, ServeError> {
        let has_route = declared.route.is_some();
        let known: Vec<_> = self.served.iter().filter(|routes| !routes.is_awaited()).cloned().collect();
        if has_route {
            known.iter().try_for_each(|routes| routes.port_of::<HttpCall>().map(drop))?;
        }
        if known.len() == self.served.len() {
            for (rule, shadow) in declared.shadows.iter().zip(&self.shadows).filter(|(_, s)| !s.is_awaited())
            {
                shadows::check(shadow, rule.compared().is_some(), &known, has_route)?;
            }
        }
        Ok(self)
    }

    /// What the endpoint means now. Its counters are made here, when nothing can be refused any more.
    pub(super) fn state(
        self,
        office: &Office,
        fleet: &Fleet,
        name: &EndpointName,
        declared: &Checked,
    ) -> EndpointState {
        let registry = &office.metrics.registry;
        let routed =
            |routes: Arc<BackendRoutes>| Routed { requests: registry.routed(name, &routes.name), routes };
        let before = fleet.endpoints.get(name).map(|entry| entry.slot.meaning());
        let before = before.as_deref().and_then(|state| state.as_deref());
        let shadow = |(rule, routes): (&ShadowRule, Arc<BackendRoutes>)| {
            let counts = registry.shadow(name, rule.backend());
            // A rule that stays as it is goes on comparing where it was.
            let known = before.and_then(|state| state.shadows.iter().find(|shadow| shadow.rule == *rule));
            let comparison = rule.compared().map(|compare| {
                let known = known.and_then(|shadow| shadow.comparison.clone());
                known.unwrap_or_else(|| {
                    let total = registry.comparison(name, rule.backend());
                    Arc::new(Comparison::new(compare.clone(), &office.comparer, total))
                })
            });
            Shadow { rule: rule.clone(), routes, counts, comparison }
        };
        EndpointState {
            policy: declared.traffic.clone(),
            affinity: declared.affinity,
            backends: self.served.into_iter().map(routed).collect(),
            shadows: declared.shadows.iter().zip(self.shadows).map(shadow).collect(),
        }
    }
}

/// Starts what compares answers, if a rule asks for that.
pub(super) fn start_comparing(office: &Office, endpoint: &Checked) -> Outcome {
    if endpoint.shadows.iter().any(|rule| rule.compared().is_some()) {
        office.comparer.start()?;
    }
    Ok(())
}
