//! The OpenAPI document: all that it describes is there, and its examples are taken.

use serde_json::Value;

use super::service;

/// The document, as it is served.
async fn document(api: super::Api) -> Value {
    let answer = api.get("/api/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let methods = ["get", "put", "post", "patch", "delete"];
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter().filter(|(key, _)| methods.contains(&key.as_str()));
        operations.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    all.collect()
}

#[actix_web::test]
async fn every_operation_is_there_and_every_other_method_is_405() {
    let (serve, _, api) = service().await;
    let document = document(api).await;
    let described = operations(&document);
    assert!(described.len() >= 20);
    for path in document["paths"].as_object().unwrap().keys() {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
            let there = described.iter().any(|(known, of, _)| known == path && of == method);
            let at = path.replace("{name}", "none").replace("{backend}", "none");
            if there && at.ends_with("/shutdown") {
                continue;
            }
            let answer = api.ask(method, &at, &["content-type: application/json"], "").await;
            assert_eq!(answer.status == 405, !there, "{method} {path}: {}", answer.status);
            assert!(there || answer.code() == "method_not_allowed", "{method} {path}");
            let known = answer.status != 404 || answer.code() != "unknown_path";
            assert!(known, "{method} {path}");
        }
    }
    let mut names: Vec<_> =
        described.iter().map(|(_, _, operation)| operation["operationId"].to_string()).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "each has a name of its own");
    serve.shutdown().await.unwrap();
}

#[cfg(feature = "onnx")]
#[actix_web::test]
async fn every_example_is_taken() {
    let (serve, _, api) = service().await;
    let document = document(api).await;
    let mut examples = Vec::new();
    for (path, method, operation) in operations(&document) {
        let body = &operation["requestBody"]["content"]["application/json"];
        for (name, example) in body["examples"].as_object().into_iter().flatten() {
            let at = path.replace("{name}", "digits").replace("{backend}", "next");
            examples.push((at, method.clone(), name.clone(), example["value"].clone()));
        }
        assert_eq!(
            operation["requestBody"].is_null(),
            body["examples"].is_null(),
            "{method} {path} has no example"
        );
    }
    // The whole configuration first: the others are about what it declares. To go back there has to be one before.
    let rank = |path: &str| match path {
        "/api/serve/config" => 0,
        "/api/serve/rollback" => 2,
        _ => 1,
    };
    examples.sort_by_key(|(path, ..)| rank(path));
    for (path, method, name, example) in examples {
        let answer = api.send(&method, &path, &example).await;
        assert_eq!(answer.status, 200, "{method} {path} {name}: {}", answer.text());
        assert!(answer.json()["changed"].is_array());
    }
    serve.shutdown().await.unwrap();
}
