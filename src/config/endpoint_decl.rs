//! `EndpointDecl`: an endpoint as it is declared.

use serde::{Serialize, Serializer};

use super::{compare, fields::Fields, item::Item, known::Known};
use crate::{
    error::ServeError,
    http_call::ENDPOINT_METHODS,
    ids::{BackendName, EndpointName},
    route::RoutePattern,
    traffic::{Affinity, ShadowRule, TrafficPolicy},
};

/// An endpoint as it is declared: its name, where it is found, which backends answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointDecl {
    /// Its name, which no other endpoint has.
    pub name: EndpointName,
    /// The path that it answers; none: it is reached by handles alone.
    pub route: Option<RoutePattern>,
    /// The methods that it answers, in capitals, each once; `GET`, or `POST` when an ONNX model is behind it.
    pub methods: Vec<String>,
    /// Which share of its requests each backend gets.
    pub traffic: TrafficPolicy,
    /// Which backends get copies of its requests, and of how many; read in the order of their names.
    #[serde(serialize_with = "shadow_map")]
    pub shadow: Vec<ShadowRule>,
    /// What stays the same for requests with the same shard key.
    pub affinity: Affinity,
}

/// As a map from backends to rules, the form in which they are read.
fn shadow_map<S: Serializer>(rules: &[ShadowRule], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(rules.iter().map(|rule| (rule.backend(), rule)))
}

impl EndpointDecl {
    /// Reads a declaration; its name and route become known even where the rest is wrong.
    pub(crate) fn read(item: Item<'_>, known: &mut Known) -> Option<Self> {
        let mut fields = item.fields()?;
        let name = fields.required("name", |item| {
            let name = item.clone().parsed(EndpointName::new)?;
            known.endpoint(&name, &item);
            Some(name)
        });
        let route = fields.nullable("route", |item| {
            let route = item.clone().parsed(RoutePattern::parse)?;
            known.route(&route, &item);
            Some(route)
        });
        let methods = fields.read("methods", methods);
        let traffic = traffic(&mut fields, known);
        let shadow = fields.nullable("shadow", |item| {
            let of = traffic.as_ref().map(|traffic| (name.as_ref(), traffic));
            shadow(item, known, of)
        });
        let shadow = shadow.flatten().unwrap_or_default();
        let affinities = [("backend", Affinity::Backend), ("replica", Affinity::Replica)];
        let affinity = fields.read("affinity", |item| item.word(&affinities)).unwrap_or_default();
        fields.finish();
        let (name, traffic) = (name?, traffic?);
        let methods = methods.unwrap_or_else(|| {
            let onnx = traffic.iter().any(|(backend, _)| known.is_onnx(backend));
            vec![if onnx { "POST" } else { "GET" }.into()]
        });
        Some(Self { name, route: route.flatten(), methods, traffic, shadow, affinity })
    }
}

fn methods(item: Item<'_>) -> Option<Vec<String>> {
    let items = item.clone().items()?;
    if items.is_empty() {
        return item.refuse(format!("no method was given; allowed: {}", ENDPOINT_METHODS.join(", ")));
    }
    let mut methods: Vec<String> = Vec::new();
    for method in items.into_iter().filter_map(|item| item.parsed(method)) {
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Some(methods)
}

fn method(text: &str) -> Result<String, ServeError> {
    let method = text.to_ascii_uppercase();
    if ENDPOINT_METHODS.contains(&method.as_str()) {
        return Ok(method);
    }
    let why = format!(
        "the method {:?} is not allowed; allowed: {}",
        super::node::shown(text),
        ENDPOINT_METHODS.join(", ")
    );
    Err(ServeError::invalid("method", why))
}

/// The shadow rules: from each backend to a proportion, or to an object with a proportion. `of`: the endpoint that they
/// are of.
pub(super) fn shadow(
    item: Item<'_>,
    known: &Known,
    of: Option<(Option<&EndpointName>, &TrafficPolicy)>,
) -> Option<Vec<ShadowRule>> {
    let entries = item.entries()?;
    let rules = entries.into_iter().filter_map(|(name, item)| {
        let backend = match BackendName::new(name) {
            Ok(backend) => backend,
            Err(error) => return item.refuse(error.to_string()),
        };
        known.find(&backend, &item);
        let itself = |(endpoint, traffic): (_, &TrafficPolicy)| {
            traffic.serves_all(&backend) && !known.may_rest(endpoint, &backend)
        };
        if of.is_some_and(itself) {
            item.problem(format!(
                "backend {backend} serves all of the endpoint; it cannot be its shadow too"
            ));
        }
        let rule = |item: Item<'_>| {
            let proportion = item.clone().number()?;
            let why = |error| match error {
                ServeError::Invalid { why, .. } => why.into(),
                other => other.to_string(),
            };
            ShadowRule::new(name, proportion).map_err(|error| item.problem(why(error))).ok()
        };
        if !item.is_map() {
            return rule(item);
        }
        let mut fields = item.fields()?;
        let rule = fields.required("proportion", rule);
        let compare = fields.nullable("compare", compare::read).flatten();
        fields.finish();
        match compare {
            None => rule,
            // Every part of it was checked where it stands.
            Some(compare) => rule?.compare(compare).ok(),
        }
    });
    let mut rules: Vec<ShadowRule> = rules.collect();
    // A map has no order: what is written and read again is the same.
    rules.sort_by(|a, b| a.backend().cmp(b.backend()));
    Some(rules)
}

/// The policy under `traffic`, or all to the one `backend`.
fn traffic(fields: &mut Fields<'_>, known: &Known) -> Option<TrafficPolicy> {
    match (fields.get("traffic"), fields.get("backend")) {
        (Some(traffic), None) => policy(traffic, known),
        (None, Some(backend)) => {
            let name = backend.clone().parsed(BackendName::new)?;
            known.find(&name, &backend);
            Some(TrafficPolicy::single(name))
        }
        (None, None) => {
            fields.problem("which backend answers is missing; one of traffic and backend is needed");
            None
        }
        (Some(_), Some(backend)) => backend.refuse("traffic and backend were both given; one is needed"),
    }
}

/// The weights of backends.
pub(super) fn policy(item: Item<'_>, known: &Known) -> Option<TrafficPolicy> {
    let entries = item.clone().entries()?;
    let mut weights = Vec::new();
    for (name, item) in &entries {
        let weight = item.clone().number();
        match BackendName::new(name) {
            Ok(name) => {
                known.find(&name, item);
                weights.extend(weight.map(|weight| (name, weight)));
            }
            Err(error) => item.problem(error.to_string()),
        }
    }
    if weights.len() < entries.len() {
        return None;
    }
    let mistakes = match TrafficPolicy::checked(&weights) {
        Ok(policy) => return Some(policy),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        let place = mistake.entry.map_or(&item, |entry| &entries[entry].1);
        place.problem(mistake.what);
    }
    None
}
