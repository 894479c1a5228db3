//! One part of a configuration by itself, as JSON: a backend, an endpoint, a traffic policy, a shadow rule.

use std::path::Path;

use serde_json::Value as Json;

use super::{
    backend_decl::BackendDecl,
    endpoint_decl::{self, EndpointDecl},
    item::Item,
    known::Known,
    node::{Node, place},
    problems::Problems,
};
use crate::{
    error::{Problem, ServeError},
    ids::{BackendName, EndpointName},
    traffic::{ShadowRule, TrafficPolicy},
};

impl BackendDecl {
    /// The backend `name`, declared as in a file; its name need not be told again. A relative path starts from
    /// `base_dir`.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub(crate) fn from_json(name: &BackendName, json: Json, base_dir: &Path) -> Result<Self, ServeError> {
        read("backend", named(name.as_str(), json)?, |item| Self::read(item, base_dir, &mut Known::default()))
    }
}

impl EndpointDecl {
    /// The endpoint `name` over `backends`, declared as in a file; its name need not be told again.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub(crate) fn from_json(
        name: &EndpointName,
        json: Json,
        backends: &[BackendDecl],
    ) -> Result<Self, ServeError> {
        read("endpoint", named(name.as_str(), json)?, |item| Self::read(item, &mut Known::served(backends)))
    }

    /// A traffic policy over `backends`: what stands under `traffic` in a file.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub(crate) fn traffic_from_json(
        json: Json,
        backends: &[BackendDecl],
    ) -> Result<TrafficPolicy, ServeError> {
        read("traffic", json, |item| endpoint_decl::policy(item, &Known::served(backends)))
    }

    /// The shadow rule for `backend`: what stands under its name in a file.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub(crate) fn shadow_from_json(
        backend: &BackendName,
        json: Json,
        backends: &[BackendDecl],
    ) -> Result<ShadowRule, ServeError> {
        let rules = Json::Object([(backend.as_str().to_owned(), json)].into_iter().collect());
        read("shadow", rules, |item| endpoint_decl::shadow(item, &Known::served(backends), None)?.pop())
    }
}

/// Which applied configuration to go back to.
pub(crate) struct RollbackTo(pub(crate) Option<u64>);

impl RollbackTo {
    /// `{"to": 3}`, or `{}` for the one before.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub(crate) fn from_json(json: Json) -> Result<Self, ServeError> {
        read("rollback", json, |item| {
            let mut fields = item.fields()?;
            let to = fields.nullable("to", |item| item.whole(1, i64::MAX));
            fields.finish();
            Some(Self(to.flatten()))
        })
    }
}

/// Reads one of what `kind` says, which is the place of its whole.
fn read<T>(kind: &str, json: Json, read: impl FnOnce(Item<'_>) -> Option<T>) -> Result<T, ServeError> {
    let node = Node::from_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
    let problems = Problems::default();
    let value = read(Item::root(&node, &problems));
    problems.unless(value).map_err(|error| match error {
        ServeError::InvalidConfig(mut problems) => {
            let whole = place("", None);
            problems.iter_mut().filter(|problem| problem.place == whole).for_each(|problem| {
                problem.place = kind.into();
            });
            ServeError::InvalidConfig(problems)
        }
        other => other,
    })
}

/// The declaration with its name, which may be told once more but not otherwise.
fn named(name: &str, mut json: Json) -> Result<Json, ServeError> {
    if let Json::Object(map) = &mut json {
        match map.get("name") {
            Some(told) if told.as_str() != Some(name) => {
                let what = format!("{told} was given; it has to be {name:?}, as in the path, or absent");
                return Err(ServeError::InvalidConfig(vec![Problem { place: "name".into(), what }]));
            }
            _ => drop(map.insert("name".into(), name.into())),
        }
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems<T>(result: Result<T, ServeError>) -> Vec<String> {
        match result.map(drop) {
            Err(ServeError::InvalidConfig(problems)) => problems.iter().map(Problem::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn backend(json: Json) -> Result<BackendDecl, ServeError> {
        BackendDecl::from_json(&BackendName::new("a").unwrap(), json, Path::new("/models"))
    }

    #[test]
    fn a_backend_has_the_name_that_it_is_asked_by() {
        let decl = backend(json!({"onnx": "a.onnx", "num_replicas": 2})).unwrap();
        assert_eq!((decl.name.as_str(), decl.config.num_replicas), ("a", 2));
        assert_eq!(backend(serde_json::to_value(&decl).unwrap()).unwrap(), decl, "what is told is taken");
        let told = problems(backend(json!({"name": "b", "onnx": "a.onnx"})));
        assert_eq!(told, ["name: \"b\" was given; it has to be \"a\", as in the path, or absent"]);
        let told = problems(backend(json!({"num_replicas": -1, "colour": 1})));
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(problems(backend(json!([]))).len(), 1);
    }

    #[test]
    fn an_endpoint_knows_the_backends_that_there_are() {
        let backends = [backend(json!({"onnx": "a.onnx"})).unwrap()];
        let name = EndpointName::new("e").unwrap();
        let decl = EndpointDecl::from_json(&name, json!({"backend": "a", "route": "/e"}), &backends).unwrap();
        assert_eq!(decl.methods, ["POST"], "a model is behind it");
        let again = EndpointDecl::from_json(&name, serde_json::to_value(&decl).unwrap(), &backends);
        assert_eq!(again.unwrap(), decl);
        let told =
            problems(EndpointDecl::from_json(&name, json!({"traffic": {"b": 1}, "route": 1}), &backends));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().any(|told| told.contains("there is no backend b; there are: a")), "{told:?}");
    }

    #[test]
    fn a_policy_and_a_rule_are_read_as_in_a_file() {
        let backends = [backend(json!({"onnx": "a.onnx"})).unwrap()];
        let policy = EndpointDecl::traffic_from_json(json!({"a": 1.0}), &backends).unwrap();
        assert_eq!(policy.len(), 1);
        let told = problems(EndpointDecl::traffic_from_json(json!({"a": 0.5}), &backends));
        assert!(told[0].starts_with("traffic: the weights add up to 0.5"), "{told:?}");
        let a = BackendName::new("a").unwrap();
        for json in [json!(0.25), json!({"proportion": 0.25})] {
            let rule = EndpointDecl::shadow_from_json(&a, json, &backends).unwrap();
            assert_eq!(rule.proportion(), 0.25);
        }
        let told = problems(EndpointDecl::shadow_from_json(&a, json!({"proportion": 2}), &backends));
        assert!(told[0].starts_with("a.proportion: a proportion of 2"), "{told:?}");
        let b = BackendName::new("b").unwrap();
        assert_eq!(problems(EndpointDecl::shadow_from_json(&b, json!(0.1), &backends)).len(), 1);
    }

    #[test]
    fn a_rollback_names_a_number_or_nothing() {
        let to = |json| RollbackTo::from_json(json).map(|to| to.0);
        assert_eq!(to(json!({})).unwrap(), None);
        assert_eq!(to(json!({"to": null})).unwrap(), None);
        assert_eq!(to(json!({"to": 3})).unwrap(), Some(3));
        for wrong in [json!({"to": 0}), json!({"to": "3"}), json!({"id": 3}), json!(3)] {
            assert_eq!(problems(to(wrong)).len(), 1);
        }
    }
}
