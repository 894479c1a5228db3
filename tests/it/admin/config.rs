//! The configuration as a whole: read, planned, replaced, gone back to; and how far that has come.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use greenroom::{Backend, Serve};
use serde_json::{Value, json};

use super::{Api, Which, both, deployed, did, refused, service, steps};
use crate::{
    process::output,
    wire::{Client, PATIENCE, get},
};

const AT: &str = "/api/serve/config";

#[actix_web::test]
async fn what_is_read_can_be_written_and_the_same_again_does_nothing() {
    let (serve, data, api) = service().await;
    assert_eq!(
        api.twice("PUT", AT, &both()).await,
        ["create backend one", "create backend two", "create endpoint which"]
    );
    assert_eq!(get(data, "/which").await.text(), "1");
    let read = api.get(AT).await.json();
    assert_eq!(read["backends"].as_array().unwrap().len(), 2);
    assert_eq!(api.put(AT, &read).await.json()["changed"], json!([]));
    assert_eq!(api.put(AT, &read).await.json()["id"], 1, "it is no new entry of the history");
    let status = api.get("/api/serve/status").await.json();
    assert_eq!((&status["backends"][0]["name"], &status["deploy"]), (&json!("one"), &Value::Null));
    assert_eq!(status["endpoints"][0]["route"], "/which");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_program_that_decides_where_it_listens_is_not_said_to_listen_where_a_file_would() {
    let (serve, _, api) = deployed().await;
    let read = api.get(AT).await.json();
    assert_eq!((&read["http"], &read["admin"]), (&Value::Null, &Value::Null));
    let told = move || output(&["config", "--address", &format!("http://{}", api.0)]);
    let told = String::from_utf8(actix_web::web::block(told).await.unwrap().stdout).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), read);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_dry_run_tells_the_plan_and_changes_nothing() {
    let (serve, data, api) = deployed().await;
    let mut wanted = both();
    wanted["backends"][0]["num_replicas"] = json!(3);
    wanted["endpoints"][0] =
        json!({"name": "which", "route": "/which", "backend": "one", "shadow": {"two": 0.5}});
    wanted["backends"].as_array_mut().unwrap().push(json!({"name": "third", "registered": "two"}));
    let plan = api.put("/api/serve/config?dry_run=true", &wanted).await;
    assert_eq!(plan.status, 200);
    let planned = steps(&plan.json()["steps"]);
    for step in ["scale backend one", "create backend third", "set_shadow endpoint which"] {
        assert!(planned.iter().any(|planned| planned == step), "{step}: {planned:?}");
    }
    assert_eq!(planned.len(), 3);
    assert_eq!(serve.list_backends().len(), 2);
    assert_eq!(serve.get_backend_config("one").unwrap().num_replicas, 1);
    assert_eq!(did(&api.put(AT, &wanted).await), planned, "what was planned is done");
    let nothing = api.put("/api/serve/config?dry_run=true", &wanted).await.json();
    assert_eq!(nothing, json!({"steps": [], "drift": []}));
    assert_eq!(get(data, "/which").await.text(), "1");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_plan_shows_what_was_changed_by_hand_since() {
    let (serve, _, api) = deployed().await;
    let by_hand = json!({"num_replicas": 2});
    assert_eq!(did(&api.send("PATCH", "/api/serve/backends/one", &by_hand).await), ["scale backend one"]);
    let plan = api.put("/api/serve/config?dry_run=true", &both()).await.json();
    assert_eq!(steps(&plan["steps"]), ["scale backend one"]);
    let drift = &plan["drift"][0];
    assert_eq!((&drift["subject"], &drift["name"]), (&json!("backend"), &json!("one")));
    assert_eq!(drift["what"][0]["text"], "num_replicas: 1 -> 2");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_is_absent_goes_and_mistakes_deep_inside_change_nothing() {
    let (serve, data, api) = deployed().await;
    let mut wrong = both();
    wrong["backends"][1]["num_replicas"] = json!("two");
    wrong["backends"].as_array_mut().unwrap().push(json!({"name": "x", "registered": "x", "colour": 1}));
    wrong["endpoints"][0]["backend"] = json!("none");
    for path in [AT, "/api/serve/config?dry_run=true", "/api/serve/config?wait=false"] {
        let (status, code, places) = refused(&api.put(path, &wrong).await);
        assert_eq!((status, code.as_str()), (400, "invalid_config"));
        assert_eq!(
            places,
            ["backends[1].num_replicas", "backends[2].colour", "endpoints[0].backend"],
            "{path}"
        );
    }
    let unknown = json!({"backends": [{"name": "a", "registered": "none"}]});
    assert_eq!(refused(&api.put(AT, &unknown).await).2, ["backends[0].registered"]);
    assert_eq!(get(data, "/which").await.text(), "1");
    let less = json!({"backends": [{"name": "two", "registered": "two"}]});
    assert_eq!(api.twice("PUT", AT, &less).await, ["delete endpoint which", "delete backend one"]);
    assert_eq!(get(data, "/which").await.status, 404);
    assert_eq!(serve.list_backends().len(), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_earlier_configuration_is_gone_back_to() {
    let (serve, data, api) = deployed().await;
    let none = api.send("POST", "/api/serve/rollback", &json!({})).await;
    assert_eq!((none.status, none.code().as_str()), (400, "invalid"), "there is none before");
    let mut wanted = both();
    wanted["endpoints"][0]["backend"] = json!("two");
    assert_eq!(api.put(AT, &wanted).await.json()["id"], 2);
    assert_eq!(get(data, "/which").await.text(), "2");
    // Without a body, and without a type of it.
    let back = api.ask("POST", "/api/serve/rollback", &[], "").await;
    assert_eq!(did(&back), ["set_traffic endpoint which"]);
    assert_eq!(get(data, "/which").await.text(), "1");
    let forth = api.send("POST", "/api/serve/rollback", &json!({"to": 2})).await;
    assert_eq!(did(&forth), ["set_traffic endpoint which"]);
    assert_eq!(did(&api.send("POST", "/api/serve/rollback", &json!({"to": 2})).await), [""; 0]);
    assert_eq!(get(data, "/which").await.text(), "2");
    let history = api.get("/api/serve/history").await.json()["history"].clone();
    let told: Vec<_> = history.as_array().unwrap().iter().map(|entry| (&entry["id"], &entry["by"])).collect();
    assert_eq!(
        told,
        [
            (&json!(1), &json!("deploy")),
            (&json!(2), &json!("deploy")),
            (&json!(3), &json!("rollback to 1")),
            (&json!(4), &json!("rollback to 2"))
        ]
    );
    assert_eq!(history[0]["config"]["endpoints"][0]["traffic"], json!({"one": 1.0}));
    for (path, body) in [
        ("/api/serve/rollback", json!({"to": 99})),
        ("/api/serve/rollback?wait=false", json!({"to": 99})),
        ("/api/serve/rollback", json!({"to": "first"})),
        ("/api/serve/rollback", json!({"id": 1})),
    ] {
        assert_eq!(api.send("POST", path, &body).await.status, 400, "{path} {body}");
    }
    serve.shutdown().await.unwrap();
}

/// Registers code `slow`, whose replicas start when they are let.
fn slow(serve: &Serve) -> mpsc::Sender<()> {
    let (tx, rx) = mpsc::channel();
    let rx = Arc::new(Mutex::new(rx));
    let code = Backend::new(move |_| {
        let let_in = rx.lock().unwrap().recv_timeout(PATIENCE);
        let_in.map_err(|error| greenroom::ServeError::backend(500, "late", error.to_string()))?;
        Ok(Slow)
    });
    serve.register("slow", code).unwrap();
    tx
}

struct Slow;

impl actix::Actor for Slow {
    type Context = greenroom::ReplicaContext<Self>;
}

impl actix::Handler<Which> for Slow {
    type Result = Result<u64, greenroom::ServeError>;
    fn handle(&mut self, _: Which, _: &mut Self::Context) -> Self::Result {
        Ok(3)
    }
}

fn with_slow() -> Value {
    let mut wanted = both();
    let decl = json!({"name": "slow", "registered": "slow", "placement": "dedicated"});
    wanted["backends"].as_array_mut().unwrap().push(decl);
    wanted
}

/// The progress once `seen`.
async fn progress(api: Api, seen: impl Fn(&Value) -> bool) -> Value {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let progress = api.get("/api/serve/progress").await.json();
        if seen(&progress) {
            return progress;
        }
        assert!(std::time::Instant::now() < until, "never seen: {progress}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[actix_web::test]
async fn without_waiting_it_goes_on_and_tells_how_far_it_is_and_what_came_of_it() {
    let (serve, _, api) = deployed().await;
    let let_in = slow(&serve);
    let begun = api.put("/api/serve/config?wait=false", &with_slow()).await;
    assert_eq!((begun.status, begun.header("location")), (202, Some("/api/serve/progress")));
    assert_eq!(steps(&begun.json()["changed"]), ["create backend slow"]);
    let number = begun.json()["number"].clone();
    assert!(number.is_u64(), "{number}");
    let under_way = progress(api, |progress| progress["deploy"]["state"] == "APPLYING").await;
    assert_eq!((&under_way["deploy"]["done"], &under_way["deploy"]["all"]), (&json!(0), &json!(1)));
    let told =
        progress(api, |progress| progress["deploy"]["waits_for"] == "slow: 0 of 1 replicas ready").await;
    assert_eq!((&told["deploy"]["by"], &told["deploy"]["number"]), (&json!("deploy"), &number));
    assert_eq!(api.get("/api/serve/status").await.json()["deploy"]["all"], 1);
    // One at a time, and nothing by hand meanwhile.
    for path in [AT, "/api/serve/config?wait=false"] {
        let second = api.put(path, &both()).await;
        assert_eq!((second.status, second.code().as_str()), (409, "deploy_in_progress"), "{path}");
    }
    let_in.send(()).unwrap();
    let over = progress(api, |progress| progress["deploy"].is_null()).await;
    let last = progress(api, |progress| progress["last_deploy"]["id"] == 2).await["last_deploy"].clone();
    assert_eq!(steps(&last["changed"]), ["create backend slow"], "{over}");
    assert_eq!(last["number"], number, "what was refused meanwhile is not what ended last");
    // What is refused when it is to begin is not accepted first.
    let refused = api.put("/api/serve/config?wait=false&wait_for_resources=true", &both()).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid"), "{}", refused.text());
    assert_eq!(api.get("/api/serve/progress").await.json()["last_deploy"], last);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_fails_is_taken_back_and_told_whether_it_was_waited_for_or_not() {
    let (serve, data, api) = deployed().await;
    let let_in = slow(&serve);
    let late = api.put("/api/serve/config?timeout_s=0.05", &with_slow()).await;
    assert_eq!((late.status, late.code().as_str()), (504, "timed_out"), "{}", late.text());
    assert_eq!(serve.config().backends.len(), 2);
    // The replica that was given up takes this.
    let_in.send(()).unwrap();
    let code = Backend::new(|_| Err::<Slow, _>("there is no model".into()));
    serve.register("slow", code).unwrap();
    let mut wanted = with_slow();
    wanted["backends"][2]["restart"] = json!({"max_restarts": 0});
    let failed = api.put(AT, &wanted).await;
    assert_eq!((failed.status, failed.code().as_str()), (409, "deploy_failed"));
    assert!(failed.text().contains("there is no model"), "{}", failed.text());
    let begun = api.put("/api/serve/config?wait=false", &wanted).await;
    assert_eq!(begun.status, 202);
    let last = progress(api, |progress| progress["deploy"].is_null()).await["last_deploy"].clone();
    assert_eq!(last["error"]["code"], "deploy_failed", "{last}");
    assert_eq!(api.get("/api/serve/status").await.json()["last_deploy"], last);
    assert!(last["error"]["detail"].as_str().unwrap().contains("there is no model"));
    assert_eq!(last["changed"], json!([]));
    assert_eq!(get(data, "/which").await.text(), "1");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_caller_that_leaves_does_not_leave_a_change_half_made() {
    let (serve, _, api) = deployed().await;
    let let_in = slow(&serve);
    let mut client = Client::connect(api.0).await;
    let body = with_slow().to_string();
    let head = format!("PUT {AT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    client.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    progress(api, |progress| progress["deploy"]["state"] == "APPLYING").await;
    drop(client);
    let_in.send(()).unwrap();
    progress(api, |progress| progress["last_deploy"]["id"] == 2).await;
    assert_eq!(serve.config().backends.len(), 3);
    serve.shutdown().await.unwrap();
}
