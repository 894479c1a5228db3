//! The OpenAPI document: the admin API, described for machines.

use actix_web::HttpResponse;

use super::{answer::Answered, ask::Ask};

/// Written by hand; tests hold it beside what is served.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn document(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(HttpResponse::Ok().content_type("application/json").body(DOCUMENT))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{super::RESOURCES, DOCUMENT};
    use crate::config::{BackendConfig, ServeConfig};

    #[test]
    fn every_route_and_method_is_described_and_nothing_else_is() {
        let served: BTreeSet<_> = RESOURCES
            .iter()
            .flat_map(|resource| {
                resource.methods.iter().map(|(method, _)| (resource.path.to_owned(), *method))
            })
            .map(|(path, method)| (path, method.to_lowercase()))
            .collect();
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|key| (path.clone(), key.clone())))
            .filter(|(_, key)| methods.contains(&key.as_str()))
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_key_of_a_configuration_is_described() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let endpoint = serde_json::json!({
            "backends": [{"name": "a", "registered": "a"}], "endpoints": [{"name": "a", "backend": "a"}],
        });
        let whole = ServeConfig::from_json(endpoint, std::path::Path::new("")).unwrap();
        for (schema, written) in [
            ("BackendOptions", serde_json::to_value(BackendConfig::default()).unwrap()),
            ("Endpoint", serde_json::to_value(&whole.endpoints[0]).unwrap()),
            ("ServeConfig", serde_json::to_value(&whole).unwrap()),
        ] {
            for key in written.as_object().unwrap().keys() {
                let described = &document["components"]["schemas"][schema]["properties"][key];
                assert!(described.is_object(), "{schema}: {key}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_parameter_of_a_path_is_described() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut rest = vec![&document];
        while let Some(value) = rest.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(target) = map.get("$ref") {
                        let pointer = target.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{pointer}");
                    }
                    rest.extend(map.values());
                }
                Value::Array(items) => rest.extend(items),
                _ => {}
            }
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            let named: BTreeSet<_> =
                path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect();
            let parameters = item["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.map(|parameter| match parameter["$ref"].as_str() {
                Some(pointer) => document.pointer(&pointer[1..]).unwrap(),
                None => parameter,
            });
            let in_path = parameters.filter(|parameter| parameter["in"] == "path");
            let described: BTreeSet<_> =
                in_path.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(named, described, "{path}");
        }
    }
}
