//! Declarations as fields with values, so that every option is compared, also one that is added later.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::step::PlanReason;
use crate::{
    config::{BackendDecl, EndpointDecl},
    traffic::ShadowRule,
};

/// Longest value that a reason shows whole, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Options that hold others; each of those is a field of its own.
const NESTED: [&str; 3] = ["resources", "resources.custom", "restart"];

/// Fields by their keys in a file.
pub(super) type Fields = BTreeMap<String, Value>;

/// Everything that a backend is declared with but its name.
pub(super) fn of_backend(decl: &BackendDecl) -> Fields {
    let mut fields = Fields::new();
    flatten("", object(decl), &mut fields);
    fields.remove("name");
    fields
}

/// Every field of which the values differ.
pub(super) fn changes(from: &Fields, to: &Fields) -> Vec<PlanReason> {
    let keys: std::collections::BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let value = |fields: &Fields, key: &str| fields.get(key).cloned().unwrap_or_default();
    let change = |key: &String| {
        let (from, to) = (value(from, key), value(to, key));
        (from != to).then(|| PlanReason::change(key, from, to))
    };
    keys.into_iter().filter_map(change).collect()
}

/// What differs between two endpoints of one name, field by field.
pub(super) fn endpoint_changes(from: &EndpointDecl, to: &EndpointDecl) -> Vec<PlanReason> {
    let mut why = Vec::new();
    let mut note = |field, from, to| why.push(PlanReason::change(field, from, to));
    if from.route != to.route {
        note("route", value(&from.route), value(&to.route));
    }
    if sorted(&from.methods) != sorted(&to.methods) {
        note("methods", value(&from.methods), value(&to.methods));
    }
    if from.affinity != to.affinity {
        note("affinity", value(&from.affinity), value(&to.affinity));
    }
    if from.traffic != to.traffic {
        note("traffic", value(&from.traffic), value(&to.traffic));
    }
    if rules(from) != rules(to) {
        note("shadow", shadow(from), shadow(to));
    }
    why
}

/// The rules that do something, by backend.
pub(super) fn rules(decl: &EndpointDecl) -> BTreeMap<&str, &ShadowRule> {
    let acting = decl.shadow.iter().filter(|rule| rule.proportion() > 0.0);
    acting.map(|rule| (rule.backend().as_str(), rule)).collect()
}

fn shadow(decl: &EndpointDecl) -> Value {
    Value::Object(rules(decl).into_iter().map(|(name, rule)| (name.into(), value(rule))).collect())
}

pub(super) fn sorted(methods: &[String]) -> Vec<&String> {
    let mut methods: Vec<_> = methods.iter().collect();
    methods.sort();
    methods
}

/// A value as people read it: its JSON, cut when it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".into(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn flatten(path: &str, map: Map<String, Value>, into: &mut Fields) {
    for (key, value) in map {
        let key = if path.is_empty() { key } else { format!("{path}.{key}") };
        match value {
            Value::Object(inner) if NESTED.contains(&key.as_str()) => flatten(&key, inner, into),
            value => drop(into.insert(key, value)),
        }
    }
}

/// Its JSON; what we declare has one.
fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn object(of: &impl Serialize) -> Map<String, Value> {
    match value(of) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
