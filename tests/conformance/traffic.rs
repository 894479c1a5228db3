//! Splits, shard keys and shadows.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{App, test};
use greenroom::{Backend, BackendConfig, Endpoint, ServeError, ShadowRule, TrafficPolicy};

use super::{Name, Pass, ask, create_held, create_named, here, quiet};
use crate::support::{Barrier, MEANT, metric, quiet_panics, until};

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

fn requests(serve: &greenroom::Serve, backend: &str) -> u64 {
    metric(serve, "serve_backend_request_counter_total", &format!("backend=\"{backend}\""))
}

#[actix_web::test]
async fn traffic_to_an_unknown_backend_or_of_an_unknown_endpoint_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let refused = [
        (serve.set_traffic("e", [("nobody", 1.0)]).await, "unknown_backend"),
        (serve.set_traffic("e", [("a", 0.5), ("nobody", 0.5)]).await, "unknown_backend"),
        (serve.set_traffic("nothing", [("a", 1.0)]).await, "unknown_endpoint"),
        (serve.shadow_traffic("e", "nobody", 0.5).await, "unknown_backend"),
        (serve.shadow_traffic("nothing", "a", 0.5).await, "unknown_endpoint"),
    ];
    for (result, code) in refused {
        assert_eq!(result.unwrap_err().code(), code);
    }
    let endpoint = serve.list_endpoints().remove(0);
    assert_eq!((endpoint.traffic.len(), endpoint.shadow.len()), (1, 0));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn weights_and_proportions_that_cannot_be_are_refused_and_change_nothing() {
    let serve = here().await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let nothing: [(&str, f64); 0] = [];
    assert_eq!(serve.set_traffic("e", nothing).await.unwrap_err().code(), "invalid_config");
    for weights in [(0.5, 0.4), (1.5, -0.5), (f64::NAN, 1.0), (f64::INFINITY, 0.0), (0.5, 0.500_002)] {
        let error = serve.set_traffic("e", [("a", weights.0), ("b", weights.1)]).await.unwrap_err();
        assert_eq!(error.code(), "invalid_config", "{weights:?}");
    }
    for proportion in [-0.1, 1.1, f64::NAN] {
        assert_eq!(serve.shadow_traffic("e", "b", proportion).await.unwrap_err().code(), "invalid");
    }
    assert_eq!(ask(&serve, "e").await, Ok("a"));
    serve.set_traffic("e", [("a", 0.333_333), ("b", 0.666_667)]).await.expect("thirds may be rounded");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn of_a_hundred_calls_split_in_halves_both_backends_get_some() {
    let serve = here().await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.set_traffic("e", [("a", 0.5), ("b", 0.5)]).await.unwrap();
    let mut answered = BTreeMap::new();
    for _ in 0..100 {
        *answered.entry(ask(&serve, "e").await.unwrap()).or_insert(0_u64) += 1;
    }
    for name in ["a", "b"] {
        // Each at least once but for one run in 10^30.
        assert!(answered[name] > 0);
        let labels = format!("endpoint=\"e\",backend=\"{name}\"");
        assert_eq!(metric(&serve, "serve_num_router_requests_total", &labels), answered[name]);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shard_key_goes_to_the_same_backend_by_handle_and_over_http() {
    let serve = here().await;
    create_named(&serve, &FIVE).await;
    let policy = TrafficPolicy::new(FIVE.map(|name| (name, 0.2))).unwrap();
    serve.create_endpoint("e", Endpoint::split(policy.clone()).route("/e")).await.unwrap();
    let handle = serve.handle::<Name>("e").unwrap();
    let app = test::init_service(App::new().configure(serve.ingress())).await;
    let mut reached = BTreeSet::new();
    for key in (0..100).map(|n| format!("user-{n}")) {
        let first = handle.options().shard_key(&key).call(Name {}).await.unwrap();
        for _ in 0..3 {
            assert_eq!(handle.options().shard_key(&key).call(Name {}).await, Ok(first));
            let request =
                test::TestRequest::get().uri("/e").insert_header(("X-Serve-Shard-Key", key.as_str()));
            let over_http: String = test::call_and_read_body_json(&app, request.to_request()).await;
            assert_eq!(over_http, first);
        }
        assert_eq!(policy.backend(policy.pick_for(&key)).as_str(), first, "nothing else decides");
        reached.insert(first);
    }
    assert_eq!(reached.len(), FIVE.len());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shard_key_keeps_its_backend_when_others_join_unless_it_moves_to_them() {
    let serve = here().await;
    create_named(&serve, &["a", "b", "new"]).await;
    let policy = TrafficPolicy::new([("a", 0.5), ("b", 0.5)]).unwrap();
    serve.create_endpoint("e", Endpoint::split(policy)).await.unwrap();
    let handle = serve.handle::<Name>("e").unwrap();
    let keys: Vec<_> = (0..500).map(|n| format!("user-{n}")).collect();
    let mut before = Vec::new();
    for key in &keys {
        before.push(handle.options().shard_key(key).call(Name {}).await.unwrap());
    }
    serve.set_traffic("e", [("a", 0.4), ("b", 0.4), ("new", 0.2)]).await.unwrap();
    let mut moved = 0;
    for (key, before) in keys.iter().zip(before) {
        let after = handle.options().shard_key(key).call(Name {}).await.unwrap();
        assert!(after == before || after == "new", "{key}: {before} -> {after}");
        moved += usize::from(after != before);
    }
    // The keys do not change from run to run; a fifth of them is 100.
    assert!((60..140).contains(&moved), "{moved}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn callers_see_the_primary_while_each_shadow_gets_its_share_of_copies() {
    let serve = here().await;
    create_named(&serve, &["primary", "all", "half", "tenth", "none"]).await;
    serve.create_endpoint("e", Endpoint::new("primary")).await.unwrap();
    for (backend, proportion) in [("all", 1.0), ("half", 0.5), ("tenth", 0.1), ("none", 0.0)] {
        serve.shadow_traffic("e", backend, proportion).await.unwrap();
    }
    for _ in 0..500 {
        assert_eq!(ask(&serve, "e").await, Ok("primary"));
    }
    quiet(&serve).await;
    let [primary, all, half, tenth, none] =
        ["primary", "all", "half", "tenth", "none"].map(|backend| requests(&serve, backend));
    assert_eq!((primary, all, none), (500, 500, 0));
    // Six standard deviations of 500 draws.
    assert!(half.abs_diff(250) < 68 && tenth.abs_diff(50) < 41, "{half} {tenth}");
    let routed = metric(&serve, "serve_num_router_requests_total", "endpoint=\"e\",backend=\"primary\"");
    assert_eq!(routed, 500, "copies are no requests of the endpoint");
    assert_eq!(serve.list_endpoints()[0].shadow.len(), 3);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_change_of_traffic_keeps_the_shadow_rules() {
    let serve = here().await;
    create_named(&serve, &["a", "b", "next"]).await;
    let endpoint = Endpoint::new("a").shadow(ShadowRule::new("next", 1.0).unwrap());
    serve.create_endpoint("e", endpoint).await.unwrap();
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok("b"));
    quiet(&serve).await;
    assert_eq!(requests(&serve, "next"), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn with_a_shard_key_all_requests_are_copied_or_none_and_rules_draw_apart() {
    let serve = here().await;
    create_named(&serve, &["a", "x", "y"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    for shadow in ["x", "y"] {
        serve.shadow_traffic("e", shadow, 0.5).await.unwrap();
    }
    let handle = serve.handle::<Name>("e").unwrap();
    let mut seen = BTreeSet::new();
    for key in (0..100).map(|n| n.to_string()) {
        let shadows = || async {
            let (answer, why) = handle.options().shard_key(&key).call_explained(Name {}).await;
            assert_eq!(answer, Ok("a"));
            why.shadows.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let first = shadows().await;
        for _ in 0..5 {
            assert_eq!(shadows().await, first, "{key}");
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 4, "none, x, y, both: {seen:?}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_hangs_is_full_fails_or_panics_changes_no_answer() {
    quiet_panics();
    let serve = here().await;
    let (barrier, one) =
        (Barrier::new(), BackendConfig::default().max_concurrent_queries(1).max_queued_queries(1));
    create_held(&serve, "primary", &barrier, BackendConfig::default()).await;
    let stuck = Barrier::new();
    let held = stuck.clone();
    let hangs = Backend::from_fn(move |Pass(n)| {
        let pass = held.pass();
        async move {
            pass.await;
            Ok(n)
        }
    });
    serve.create_backend("hangs", hangs.shadows::<Pass>(), one).await.unwrap();
    let fails = Backend::from_fn(|_: Pass| async { Err(ServeError::backend(500, "broken", "broken")) });
    serve.create_backend("fails", fails.shadows::<Pass>(), BackendConfig::default()).await.unwrap();
    let panics = Backend::from_fn(|_: Pass| async { panic!("{MEANT}") });
    serve.create_backend("panics", panics.shadows::<Pass>(), BackendConfig::default()).await.unwrap();
    for shadow in ["hangs", "fails", "panics"] {
        serve.shadow_traffic("primary", shadow, 1.0).await.unwrap();
    }
    barrier.release(20);
    let handle = serve.handle::<Pass>("primary").unwrap();
    for n in 0..20 {
        assert_eq!(handle.call(Pass(n)).await, Ok(n));
    }
    let copies = || -> Vec<_> {
        let rules = serve.list_endpoints().remove(0).shadow;
        rules.iter().map(|rule| [rule.copies.answered, rule.copies.failed, rule.copies.dropped]).collect()
    };
    // Copies get half of the room for two.
    until("all but one copy have ended", || copies() == [[0, 0, 19], [0, 20, 0], [0, 20, 0]]).await;
    stuck.release(1);
    until("and that one", || copies()[0] == [1, 0, 19]).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_could_do_nothing_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    let other = Backend::from_fn(|Pass(n)| async move { Ok(n) });
    serve.create_backend("other", other, BackendConfig::default()).await.unwrap();
    let uncopied = Backend::from_fn(|_: Name| async { Ok("uncopied") });
    serve.create_backend("uncopied", uncopied, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    for (shadow, code) in [("a", "own_shadow"), ("other", "not_taken"), ("uncopied", "not_copied")] {
        let error = serve.shadow_traffic("e", shadow, 0.5).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(shadow), "{error}");
    }
    serve.shutdown().await.unwrap();
}
