//! Endpoints by themselves: made, replaced, deleted; their traffic and their shadows; twice, and badly.

use serde_json::json;

use super::{deployed, did, refused};
use crate::wire::{get, post};

#[actix_web::test]
async fn put_makes_an_endpoint_and_replaces_it_and_delete_takes_it_away() {
    let (serve, data, api) = deployed().await;
    let at = "/api/serve/endpoints/extra";
    let first = json!({"route": "/extra", "backend": "two"});
    assert_eq!(api.twice("PUT", at, &first).await, ["create endpoint extra"]);
    assert_eq!(get(data, "/extra").await.text(), "2");
    let other = json!({"route": "/other", "methods": ["POST"], "traffic": {"one": 1}});
    assert_eq!(api.twice("PUT", at, &other).await, ["replace endpoint extra"]);
    assert_eq!(get(data, "/extra").await.status, 404);
    assert_eq!(post(data, "/other", "{}").await.text(), "1");
    let read = api.get(at).await.json();
    assert_eq!((&read["route"], &read["traffic"]), (&json!("/other"), &json!({"one": 1.0})));
    assert_eq!(did(&api.put(at, &read).await), [""; 0], "what is read can be written");
    assert_eq!(api.get("/api/serve/endpoints").await.json()["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(did(&api.delete(at).await), ["delete endpoint extra"]);
    assert_eq!(did(&api.delete(at).await), [""; 0]);
    assert_eq!(post(data, "/other", "{}").await.status, 404);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn every_mistake_of_an_endpoint_is_told_with_its_place_and_nothing_is_done() {
    let (serve, data, api) = deployed().await;
    let at = "/api/serve/endpoints/which";
    let wrong =
        json!({"route": "no", "methods": ["FETCH"], "traffic": {"one": 0.5, "none": 0.4}, "colour": 1});
    let (status, code, places) = refused(&api.put(at, &wrong).await);
    assert_eq!((status, code.as_str()), (400, "invalid_config"));
    assert_eq!(places, ["route", "methods[0]", "traffic.none", "traffic", "colour"]);
    let taken = api.put("/api/serve/endpoints/more", &json!({"route": "/which", "backend": "one"})).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "already_exists"), "{}", taken.text());
    let own = api.put(at, &json!({"route": "/which", "backend": "one", "shadow": {"one": 0.1}})).await;
    assert_eq!(refused(&own).2, ["shadow.one"]);
    assert_eq!(get(data, "/which").await.text(), "1");
    assert_eq!(serve.list_endpoints().len(), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn traffic_is_moved_and_told() {
    let (serve, data, api) = deployed().await;
    let at = "/api/serve/endpoints/which/traffic";
    assert_eq!(api.twice("PUT", at, &json!({"two": 1})).await, ["set_traffic endpoint which"]);
    assert_eq!(get(data, "/which").await.text(), "2");
    assert_eq!(
        api.twice("PUT", at, &json!({"one": 0.25, "two": 0.75})).await,
        ["set_traffic endpoint which"]
    );
    let cases = [
        (json!({"one": 0.5}), vec!["traffic"]),
        (json!({"one": -1, "two": 2}), vec!["one"]),
        (json!({"one": "1"}), vec!["one"]),
        (json!({"none": 1}), vec!["none"]),
        (json!({}), vec!["traffic"]),
        (json!([]), vec!["traffic"]),
    ];
    for (wrong, places) in cases {
        let answer = api.put(at, &wrong).await;
        assert_eq!(
            refused(&answer),
            (400, "invalid_config".into(), places.iter().map(|p| (*p).into()).collect())
        );
    }
    let unknown = api.put("/api/serve/endpoints/none/traffic", &json!({"one": 1})).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown_endpoint"));
    assert_eq!(
        api.get("/api/serve/endpoints/which").await.json()["traffic"],
        json!({"one": 0.25, "two": 0.75})
    );
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_is_set_changed_and_taken_away() {
    let (serve, data, api) = deployed().await;
    let at = "/api/serve/endpoints/which/shadow/two";
    assert_eq!(did(&api.delete(at).await), [""; 0]);
    assert_eq!(api.twice("PUT", at, &json!({"proportion": 1})).await, ["set_shadow endpoint which"]);
    assert_eq!(api.twice("PUT", at, &json!(0.5)).await, ["set_shadow endpoint which"]);
    assert_eq!(serve.list_endpoints()[0].shadow[0].proportion, 0.5);
    assert_eq!(get(data, "/which").await.text(), "1");
    assert_eq!(did(&api.delete(at).await), ["set_shadow endpoint which"]);
    assert_eq!(did(&api.delete(at).await), [""; 0]);
    assert!(serve.list_endpoints()[0].shadow.is_empty());
    assert_eq!(api.twice("PUT", at, &json!(0)).await, [""; 0], "0 where there is none");
    for (wrong, place) in
        [(json!(2), "two"), (json!({}), "two"), (json!({"proportion": "x"}), "two.proportion")]
    {
        assert_eq!(refused(&api.put(at, &wrong).await).2, [place], "{wrong}");
    }
    let own = api.put("/api/serve/endpoints/which/shadow/one", &json!(0.1)).await;
    assert_eq!((own.status, own.code().as_str()), (400, "own_shadow"));
    let unknown = api.put("/api/serve/endpoints/none/shadow/two", &json!(0.1)).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown_endpoint"));
    let unknown = api.delete("/api/serve/endpoints/none/shadow/two").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown_endpoint"));
    serve.shutdown().await.unwrap();
}
