//! The dashboard: its files and their headers, who may have them, and that all it reads is really told.

use std::collections::BTreeSet;

use greenroom::{Backend, BackendConfig, Capacity, Endpoint, Listen, Resources, Serve, ServeOptions};
use serde_json::Value;

use super::{Api, Which, deployed, refused};
use crate::wire::get;

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/dashboard.js", "text/javascript; charset=utf-8"),
    ("/dashboard.css", "text/css; charset=utf-8"),
    ("/dashboard.svg", "image/svg+xml"),
];

async fn file(api: Api, path: &str) -> String {
    let answer = api.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    answer.text().to_owned()
}

#[actix_web::test]
async fn the_page_and_its_files_are_served_with_headers_that_allow_nothing_else() {
    let (serve, data, api) = deployed().await;
    for (path, kind) in FILES {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        let allowed: Vec<_> = policy.split("; ").collect();
        for rule in
            ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(allowed.contains(&rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        let head = api.ask("HEAD", path, &[], "").await;
        let length = answer.body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())), "{path}");
        let post = api.ask("POST", path, &["content-type: application/json"], "{}").await;
        assert_eq!((post.code().as_str(), post.header("allow")), ("method_not_allowed", Some("GET, HEAD")));
    }
    for path in ["/index.html", "/dashboard", "/dashboard.js/", "/favicon.ico"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"), "{path}");
    }
    assert_eq!(get(data, "/").await.code(), "no_route", "not where requests come in");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_page_is_for_this_machine_and_no_page_of_another_origin() {
    let (serve, _, api) = deployed().await;
    for (path, _) in FILES {
        let foreign = api.raw("GET", path, &["host: evil.example"], "").await;
        assert_eq!((foreign.status, refused(&foreign).1.as_str()), (403, "foreign_host"), "{path}");
        for method in ["GET", "HEAD"] {
            let foreign = api.ask(method, path, &["origin: http://evil.example"], "").await;
            assert_eq!(foreign.status, 403, "{method} {path}");
            assert_eq!(foreign.header("access-control-allow-origin"), None);
        }
        let own = format!("origin: http://{}", api.0);
        assert_eq!(api.ask("GET", path, &[&own], "").await.status, 200, "{path}");
        let link = api.ask("GET", path, &["sec-fetch-site: cross-site"], "").await;
        assert_eq!(link.status, 200, "a link leads there");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_page_asks_for_its_own_files_alone_and_the_script_finds_what_it_looks_for() {
    let (serve, _, api) = deployed().await;
    let (page, script) = (file(api, "/").await, file(api, "/dashboard.js").await);
    for attribute in ["src=\"", "href=\""] {
        for part in page.split(attribute).skip(1) {
            let path = part.split('"').next().unwrap();
            assert_eq!(api.get(&format!("/{path}")).await.status, 200, "{path}");
        }
    }
    let quoted = |text: &str, before: &str| -> BTreeSet<String> {
        text.split(before).skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect()
    };
    let (ids, wanted) = (quoted(&page, " id=\""), quoted(&script, "byId(\""));
    assert!(wanted.len() > 8 && wanted.is_subset(&ids), "{:?}", wanted.difference(&ids));
    let asked = quoted(&script, "ask(\"");
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["api/serve/status?replicas=false"]);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn whatever_a_name_or_a_reason_says_it_stays_text() {
    let (serve, _, api) = deployed().await;
    let script = file(api, "/dashboard.js").await;
    let markup = [
        "HTML",
        "insertAdjacent",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "eval(",
        "Function(",
        "setAttribute(\"on",
        "srcdoc",
        "import(",
        "javascript:",
    ];
    for way in markup {
        assert!(!script.contains(way), "{way}");
    }
    // What the headers would stop anyhow.
    let page = file(api, "/").await;
    for inline in [" style=", "<style", "<script>", " onclick=", " onload=", " onerror="] {
        assert!(!page.contains(inline), "{inline}");
    }
    for text in [&page, &script, &file(api, "/dashboard.css").await] {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://"), "something from elsewhere");
    }
    // A version may be any text, and is told as it is.
    let update = serde_json::json!({"version": "<img/src=x/onerror=alert(1)>"});
    assert_eq!(api.send("PATCH", "/api/serve/backends/one", &update).await.status, 200);
    let told = api.get("/api/serve/status?replicas=false").await.json();
    assert_eq!(told["backends"][0]["config"]["version"], update["version"]);
    serve.shutdown().await.unwrap();
}

/// What the script says that it reads of an answer.
pub fn reads(script: &str, answer: &str) -> Value {
    let shape = script.split(&format!("/* {answer} */")).nth(1).expect("what is read of it");
    serde_json::from_str(shape).unwrap()
}

/// A kind of value that the script knows, by its name there.
fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("{other}"),
    }
}

/// Looks for all of a shape in a value. `found`: every place that had a value, since a list may be empty.
pub fn look(shape: &Value, value: &Value, place: &str, found: &mut BTreeSet<String>) {
    found.insert(place.to_owned());
    match shape {
        Value::String(kind) => assert!(is(kind, value), "{place} is {value}, and is read as {kind}"),
        Value::Array(of) => {
            for each in value.as_array().unwrap_or_else(|| panic!("{place} is no list: {value}")) {
                look(&of[0], each, &format!("{place}[]"), found);
            }
        }
        Value::Object(keys) => {
            let map = value.as_object().unwrap_or_else(|| panic!("{place} has no keys: {value}"));
            for (key, inner) in keys {
                if key == "*" {
                    map.values().for_each(|each| look(inner, each, &format!("{place}.*"), found));
                    continue;
                }
                let name = key.trim_end_matches('?');
                match map.get(name) {
                    None | Some(Value::Null) if name != key => {}
                    Some(there) => look(inner, there, &format!("{place}.{name}"), found),
                    None => panic!("{place} has no {name}: {value}"),
                }
            }
        }
        other => panic!("{place}: {other}"),
    }
}

/// Every place of a shape, as `look` names them.
pub fn places(shape: &Value, place: &str, all: &mut BTreeSet<String>) {
    all.insert(place.to_owned());
    match shape {
        Value::Array(of) => places(&of[0], &format!("{place}[]"), all),
        Value::Object(keys) => {
            for (key, inner) in keys {
                places(inner, &format!("{place}.{}", key.trim_end_matches('?')), all);
            }
        }
        _ => {}
    }
}

#[actix_web::test]
async fn all_that_the_script_reads_is_in_real_answers() {
    let capacity = Capacity::default().num_cpus(8.0).num_gpus(1).memory_bytes(1 << 30).custom("licence", 2.0);
    let serve = Serve::start(ServeOptions::default().capacity(capacity)).await.unwrap();
    serve.listen(Listen::default()).await.unwrap();
    let code = || Backend::from_fn(|_: Which| async move { Ok(1) }).json::<Which>().shadows::<Which>();
    let config = BackendConfig::default().version("1").resources(Resources::none());
    serve.create_backend("one", code(), config.clone()).await.unwrap();
    serve.create_backend("two", code(), config.clone().num_replicas(0)).await.unwrap();
    for backend in ["one", "two"] {
        let endpoint = Endpoint::new(backend).route(format!("/{backend}")).methods(["POST"]);
        serve.create_endpoint(backend, endpoint).await.unwrap();
    }
    serve.shadow_traffic("one", "two", 0.5).await.unwrap();
    let api = Api(serve.listen_admin(Listen::default()).await.unwrap());
    let script = file(api, "/dashboard.js").await;
    let (mut found, mut all) = (BTreeSet::new(), BTreeSet::new());
    for (name, path) in [
        ("status", "/api/serve/status?replicas=false"),
        ("replicas", "/api/serve/backends/one/replicas?max=100"),
    ] {
        let shape = reads(&script, name);
        look(&shape, &api.get(path).await.json(), name, &mut found);
        places(&shape, name, &mut all);
    }
    // What is told only when something goes wrong; the document of the API has it. GPUs have a test of their own.
    let rare = ["reason", "last_error", "unsaved", "deploy", "last_deploy", "gpus"];
    let missing: Vec<_> = all
        .difference(&found)
        .filter(|place| !rare.iter().any(|key| place.contains(&format!(".{key}"))))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn all_that_the_script_reads_is_described_and_nothing_is_read_in_vain() {
    let (serve, _, api) = deployed().await;
    let script = file(api, "/dashboard.js").await;
    let document = api.get("/api/openapi.json").await.json();
    let path = |path: &str| {
        let pointer = "/get/responses/200/content/application~1json/schema";
        document["paths"][path].pointer(pointer).unwrap_or_else(|| panic!("{path}"))
    };
    let answers =
        [("status", path("/api/serve/status")), ("replicas", path("/api/serve/backends/{name}/replicas"))];
    let mut words = BTreeSet::new();
    for (name, schema) in answers {
        described(&reads(&script, name), schema, name, &document, &mut words);
    }
    let code: String = ["status", "replicas"].iter().fold(script, |rest, answer| {
        let mark = format!("/* {answer} */");
        rest.split(&mark).enumerate().filter(|(i, _)| i % 2 == 0).map(|(_, part)| part).collect()
    });
    let used: BTreeSet<_> = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let vain: Vec<_> = words.iter().filter(|word| !used.contains(word.as_str())).collect();
    assert!(vain.is_empty(), "read, and never shown: {vain:?}");
    serve.shutdown().await.unwrap();
}

/// Looks for all of a shape in a schema, and gathers its keys.
fn described(shape: &Value, schema: &Value, place: &str, document: &Value, words: &mut BTreeSet<String>) {
    let mut schema = schema;
    loop {
        let reference = |schema: &Value| schema["$ref"].as_str().map(str::to_owned);
        let of_several = schema["anyOf"].as_array().and_then(|all| all.iter().find_map(reference));
        let Some(target) = reference(schema).or(of_several) else { break };
        schema = document.pointer(&target[1..]).unwrap();
    }
    match shape {
        Value::String(kind) => {
            let kinds: &[&str] = match kind.as_str() {
                "text" => &["string"],
                "number" => &["number", "integer"],
                _ => &["boolean"],
            };
            let said = schema["type"].to_string();
            let of_words = schema["enum"].is_array() && kind == "text";
            let as_read = of_words || kinds.iter().any(|kind| said.contains(kind));
            assert!(as_read, "{place} is described as {schema}, and is read as {kind}");
        }
        Value::Array(of) => described(&of[0], &schema["items"], &format!("{place}[]"), document, words),
        Value::Object(keys) => {
            for (key, inner) in keys {
                let name = key.trim_end_matches('?');
                let inside =
                    if name == "*" { &schema["additionalProperties"] } else { &schema["properties"][name] };
                assert!(inside.is_object(), "{place}.{name} is not described");
                described(inner, inside, &format!("{place}.{name}"), document, words);
                if name != "*" {
                    words.insert(name.to_owned());
                }
            }
        }
        other => panic!("{place}: {other}"),
    }
}
