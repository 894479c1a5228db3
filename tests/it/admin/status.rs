//! The status: who answers and whether it is ready, what backends did, replicas counted or told in part.

use greenroom::{Backend, BackendConfig, Endpoint, ServeError};
use serde_json::{Value, json};

use super::{Api, Which, deployed, refused, service};
use crate::{support::until, wire::post};

async fn status(api: Api, query: &str) -> Value {
    api.get(&format!("/api/serve/status{query}")).await.json()
}

#[actix_web::test]
async fn the_server_says_what_it_is_where_it_listens_and_why_it_is_not_ready() {
    let (serve, data, api) = deployed().await;
    let server = &status(api, "").await["server"];
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server["pid"], std::process::id());
    assert!(server["uptime_s"].as_f64().unwrap() > 0.0);
    let addresses = (&server["http"], &server["admin"]);
    assert_eq!(addresses, (&json!([data.to_string()]), &json!([api.0.to_string()])));
    assert_eq!((&server["ready"], &server["not_ready"]), (&json!(true), &Value::Null));
    api.send("PATCH", "/api/serve/backends/one", &json!({"num_replicas": 0})).await;
    let server = &status(api, "").await["server"];
    let why = json!("no replica is ready behind: which");
    assert_eq!((&server["ready"], &server["not_ready"]), (&json!(false), &why));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_tells_what_it_was_asked_how_it_went_and_how_long_it_took() {
    let (serve, data, api) = service().await;
    let code = Backend::from_fn(|_: Which| async move { Err::<u64, _>(ServeError::bad_request("no")) });
    serve.create_backend("no", code.json::<Which>(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("no", Endpoint::new("no").route("/no").methods(["POST"])).await.unwrap();
    let before = status(api, "").await;
    assert_eq!(before["backends"][0]["counts"]["requests"], 0);
    for _ in 0..3 {
        assert_eq!(post(data, "/no", "{}").await.status, 400);
    }
    // A call is counted by its replica, after it was answered.
    let counted = || serve.status().backends[0].counts.requests == 3;
    until("three calls counted", counted).await;
    let after = status(api, "").await;
    let counts = &after["backends"][0]["counts"];
    assert_eq!((&counts["requests"], &counts["errors"]), (&json!(3), &json!(3)));
    assert_eq!(
        (&counts["queued"], &counts["refused"], &counts["restarts"]),
        (&json!(0), &json!(0), &json!(0))
    );
    for latencies in [&counts["processing"], &counts["queuing"]] {
        let in_buckets = latencies["counts"].as_array().unwrap();
        assert_eq!(in_buckets.len(), latencies["le_ms"].as_array().unwrap().len() + 1);
        assert_eq!(in_buckets.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 3);
    }
    // A call that found its replica idle did not queue.
    assert!(counts["processing"]["sum_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(after["endpoints"][0]["requests"], 3);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn replicas_are_counted_where_nobody_asks_for_each_and_told_in_part() {
    let (serve, _, api) = deployed().await;
    api.send("PATCH", "/api/serve/backends/one", &json!({"num_replicas": 3})).await;
    let counts = json!({"starting": 0, "running": 3, "draining": 0});
    for (query, rows) in [("", 3), ("?replicas=true", 3), ("?replicas=false", 0)] {
        let backend = &status(api, query).await["backends"][0];
        assert_eq!(backend["replicas"].as_array().unwrap().len(), rows, "{query}");
        assert_eq!(backend["replica_counts"], counts, "{query}");
    }
    let path = "/api/serve/backends/one/replicas";
    for (query, rows) in [("", 3), ("?max=2", 2)] {
        let answer = api.get(&format!("{path}{query}")).await.json();
        let slots: Vec<_> =
            answer["replicas"].as_array().unwrap().iter().map(|r| r["id"]["slot"].clone()).collect();
        assert_eq!((answer["total"].as_u64(), slots), (Some(3), (0..rows).map(|n| json!(n)).collect()));
    }
    assert_eq!(api.get("/api/serve/backends/three/replicas").await.code(), "unknown_backend");
    let wrong = refused(&api.get(&format!("{path}?max=0&min=1")).await);
    assert_eq!(wrong, (400, "invalid_config".into(), vec!["query.max".into(), "query.min".into()]));
    let wrong = refused(&api.get("/api/serve/status?replicas=few").await);
    assert_eq!(wrong, (400, "invalid_config".into(), vec!["query.replicas".into()]));
    serve.shutdown().await.unwrap();
}
