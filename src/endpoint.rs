//! `Endpoint`: a name's route, methods and traffic policy, as its user declares them.

use crate::{
    error::{Problem, ServeError},
    http_call::ENDPOINT_METHODS,
    ids::BackendName,
    route::RoutePattern,
    traffic::{Affinity, ShadowRule, TrafficPolicy},
};

/// What an endpoint is made of: a traffic policy and, for HTTP, a route and methods.
///
/// ```
/// use greenroom::Endpoint;
/// let endpoint = Endpoint::new("digits").route("/digits").methods(["POST"]);
/// ```
#[derive(Clone, Debug)]
#[must_use = "an endpoint does nothing until it is created in a Serve"]
pub struct Endpoint {
    traffic: Result<TrafficPolicy, ServeError>,
    shadows: Vec<ShadowRule>,
    affinity: Affinity,
    route: Option<String>,
    methods: Vec<String>,
}

/// An endpoint whose parts have been checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) traffic: TrafficPolicy,
    /// At most one for each backend.
    pub(crate) shadows: Vec<ShadowRule>,
    pub(crate) affinity: Affinity,
    pub(crate) route: Option<RoutePattern>,
    /// Upper case, without duplicates.
    pub(crate) methods: Vec<&'static str>,
}

impl Endpoint {
    /// An endpoint that sends everything to one backend; no route, method GET.
    pub fn new(backend: impl AsRef<str>) -> Self {
        Self::of(BackendName::new(backend).map(TrafficPolicy::single))
    }

    fn of(traffic: Result<TrafficPolicy, ServeError>) -> Self {
        Self {
            traffic,
            shadows: Vec::new(),
            affinity: Affinity::default(),
            route: None,
            methods: vec!["GET".into()],
        }
    }

    /// An endpoint that splits its requests over backends.
    pub fn split(policy: TrafficPolicy) -> Self {
        Self::of(Ok(policy))
    }

    /// Copies of a share of its requests go to another backend as well.
    pub fn shadow(mut self, rule: ShadowRule) -> Self {
        self.shadows.push(rule);
        self
    }

    /// What stays the same for requests with the same shard key; default the backend.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.affinity = affinity;
        self
    }

    /// Its HTTP route: an exact path, or one with `{param}` segments.
    pub fn route(mut self, route: impl Into<String>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// The HTTP methods it answers to; default GET.
    pub fn methods<T: AsRef<str>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.methods = methods.into_iter().map(|m| m.as_ref().to_ascii_uppercase()).collect();
        self
    }

    /// Checks all parts; every mistake is told.
    pub(crate) fn check(self) -> Result<Checked, ServeError> {
        let mut problems = Vec::new();
        let traffic = self.traffic.map_err(|error| match error {
            ServeError::InvalidConfig(more) => problems.extend(more),
            other => problems.push(Problem { place: "backend".into(), what: other.to_string() }),
        });
        let route = self.route.map(RoutePattern::parse).transpose().map_err(|error| {
            problems.push(Problem { place: "route".into(), what: error.to_string() });
        });
        let mut methods = Vec::new();
        for method in &self.methods {
            match ENDPOINT_METHODS.iter().find(|known| *known == method) {
                Some(known) if !methods.contains(known) => methods.push(*known),
                Some(_) => {}
                None => problems.push(Problem {
                    place: "methods".into(),
                    what: format!("{method:?} is no method; allowed: {}", ENDPOINT_METHODS.join(", ")),
                }),
            }
        }
        if self.methods.is_empty() {
            problems.push(Problem { place: "methods".into(), what: "at least one is needed".into() });
        }
        let mut shadows: Vec<ShadowRule> = Vec::new();
        for rule in self.shadows {
            if shadows.iter().any(|known| known.backend() == rule.backend()) {
                let what = "this backend has two shadow rules; one is allowed".into();
                problems.push(Problem { place: format!("shadow.{}", rule.backend()), what });
            } else if rule.proportion() > 0.0 {
                shadows.push(rule);
            }
        }
        let affinity = self.affinity;
        match (traffic, route) {
            (Ok(traffic), Ok(route)) if problems.is_empty() => {
                Ok(Checked { traffic, shadows, affinity, route, methods })
            }
            _ => Err(ServeError::InvalidConfig(problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = Endpoint::new("no name").route("no-slash").methods(["FETCH"]).check().unwrap_err();
        let ServeError::InvalidConfig(problems) = error else { panic!("{error}") };
        let places: Vec<_> = problems.iter().map(|p| p.place.as_str()).collect();
        assert_eq!(places, ["backend", "route", "methods"]);
    }

    #[test]
    fn methods_are_upper_cased_and_unique() {
        let checked = Endpoint::new("a").methods(["post", "POST", "Get"]).check().unwrap();
        assert_eq!(checked.methods, ["POST", "GET"]);
    }
}
