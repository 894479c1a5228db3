//! Shadow traffic: copies are sent by each rule's own draw, counted, and change nothing of what callers get.

use std::time::Duration;

use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ShadowCopies};

use super::{Who, backends, here, read};
use crate::{
    support::{Barrier, MEANT, metric, quiet_panics, until},
    wire::{ask, eventually, listening},
};

fn copies(serve: &Serve, backend: &str) -> ShadowCopies {
    let endpoint = serve.list_endpoints().remove(0);
    endpoint.shadow.iter().find(|shadow| shadow.backend.as_str() == backend).unwrap().copies
}

#[actix_web::test]
async fn each_rule_draws_for_itself_and_callers_see_the_primary_alone() {
    let serve = here().await;
    let counts = backends(&serve, &["main", "all", "half", "tenth"]).await;
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    for (backend, proportion) in [("all", 1.0), ("half", 0.5), ("tenth", 0.1)] {
        serve.shadow_traffic("e", backend, proportion).await.unwrap();
    }
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..10_000 {
        assert_eq!(handle.call(Who {}).await.unwrap(), "main");
    }
    until("every copy has ended", || copies(&serve, "all").answered == 10_000).await;
    until("every copy has ended", || {
        copies(&serve, "half").answered == counts[2].load(std::sync::atomic::Ordering::SeqCst)
    })
    .await;
    let [main, all, half, tenth] = read(&counts)[..] else { panic!() };
    assert_eq!((main, all), (10_000, 10_000));
    // 4 sigma.
    assert!(half.abs_diff(5_000) <= 200 && tenth.abs_diff(1_000) <= 120, "{half} {tenth}");
    let routed = |backend: &str| {
        metric(&serve, "serve_num_router_requests_total", &format!("endpoint=\"e\",backend=\"{backend}\""))
    };
    assert_eq!((routed("main"), routed("all")), (10_000, 0), "copies are not the endpoint's requests");
    let answered = metric(&serve, "serve_backend_request_counter_total", "backend=\"all\"");
    assert_eq!(answered, 10_000, "they are the shadow backend's");
    let labels = "endpoint=\"e\",backend=\"all\",outcome=\"answered\"";
    assert_eq!(metric(&serve, "serve_shadow_requests_total", labels), 10_000);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_change_of_traffic_keeps_the_rules_and_a_proportion_of_0_ends_one() {
    let serve = here().await;
    let counts = backends(&serve, &["a", "b", "shadow"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.shadow_traffic("e", "shadow", 1.0).await.unwrap();
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    handle.call(Who {}).await.unwrap();
    until("the copy has come", || read(&counts) == [0, 1, 1]).await;
    assert_eq!(serve.delete_backend("shadow", false).await.unwrap_err().code(), "in_use");
    serve.shadow_traffic("e", "shadow", 0.0).await.unwrap();
    assert!(serve.list_endpoints()[0].shadow.is_empty());
    handle.call(Who {}).await.unwrap();
    assert_eq!(read(&counts), [0, 2, 1]);
    serve.shadow_traffic("e", "shadow", 0.0).await.unwrap();
    serve.delete_backend("shadow", false).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn no_copy_goes_to_the_backend_that_answers() {
    let serve = here().await;
    let counts = backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.shadow_traffic("e", "b", 1.0).await.unwrap();
    // The last step of a rollout: the rule rests until traffic is taken back.
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..100 {
        handle.call(Who {}).await.unwrap();
    }
    assert_eq!(read(&counts), [0, 100]);
    serve.set_traffic("e", [("a", 1.0)]).await.unwrap();
    handle.call(Who {}).await.unwrap();
    until("the rule works again", || read(&counts) == [1, 101]).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_key_is_copied_always_or_never() {
    let serve = here().await;
    let counts = backends(&serve, &["main", "shadow"]).await;
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    serve.shadow_traffic("e", "shadow", 0.5).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    let mut copied = 0;
    for n in 0..200 {
        let keyed = handle.options().shard_key(format!("user-{n}"));
        let shadows = async || keyed.call_explained(Who {}).await.1.shadows.len();
        let first = shadows().await;
        for _ in 0..4 {
            assert_eq!(shadows().await, first);
        }
        copied += first;
    }
    assert!((60..140).contains(&copied), "{copied} of 200 keys");
    until("all have come", || read(&counts)[1] == 5 * copied as u64).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_hangs_is_given_half_of_its_room_and_the_rest_is_counted() {
    let serve = here().await;
    let counts = backends(&serve, &["main"]).await;
    let barrier = Barrier::new();
    let held = barrier.clone();
    let hanging = Backend::from_fn(move |_: Who| {
        let pass = held.pass();
        async move {
            pass.await;
            Ok("late".to_owned())
        }
    });
    let config = BackendConfig::default().max_concurrent_queries(4).max_queued_queries(6);
    serve.create_backend("hanging", hanging.shadows::<Who>(), config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    serve.shadow_traffic("e", "hanging", 1.0).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..1_000 {
        assert_eq!(handle.call(Who {}).await.unwrap(), "main");
    }
    assert_eq!(read(&counts), [1_000]);
    assert_eq!(copies(&serve, "hanging").dropped, 995);
    // The other half is for those who wait for an answer.
    serve.create_endpoint("own", Endpoint::new("hanging")).await.unwrap();
    let own: Vec<_> = (0..5).map(|_| serve.handle::<Who>("own").unwrap().call(Who {})).collect();
    barrier.release(10);
    for call in own {
        assert_eq!(call.await.unwrap(), "late");
    }
    until("what was taken is answered", || copies(&serve, "hanging").answered == 5).await;
    assert_eq!(
        copies(&serve, "hanging"),
        ShadowCopies { answered: 5, failed: 0, dropped: 995, uncovered: 0 }
    );
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_panics_fails_or_goes_away_changes_no_answer() {
    quiet_panics();
    let serve = here().await;
    backends(&serve, &["main"]).await;
    let panics = Backend::from_fn(|_: Who| async { panic!("{MEANT}") });
    let fails = Backend::from_fn(|_: Who| async { Err(ServeError::backend(422, "no", "never")) });
    serve.create_backend("panics", panics.shadows::<Who>(), BackendConfig::default()).await.unwrap();
    serve.create_backend("fails", fails.shadows::<Who>(), BackendConfig::default()).await.unwrap();
    let (none, _) = super::named("none");
    serve.create_backend("none", none, BackendConfig::default().num_replicas(0)).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    for backend in ["panics", "fails", "none"] {
        serve.shadow_traffic("e", backend, 1.0).await.unwrap();
    }
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..100 {
        assert_eq!(handle.call(Who {}).await.unwrap(), "main");
    }
    until("all copies have ended", || {
        copies(&serve, "panics").failed + copies(&serve, "fails").failed == 200
    })
    .await;
    assert_eq!(copies(&serve, "none").dropped, 100);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_message_whose_clone_panics_is_answered_all_the_same() {
    #[derive(actix::Message)]
    #[rtype(result = "Result<(), ServeError>")]
    struct Frail;
    impl Clone for Frail {
        fn clone(&self) -> Self {
            panic!("{MEANT}")
        }
    }
    quiet_panics();
    let serve = here().await;
    for name in ["main", "shadow"] {
        let backend = Backend::from_fn(|_: Frail| async { Ok(()) }).shadows::<Frail>();
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    }
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    serve.shadow_traffic("e", "shadow", 1.0).await.unwrap();
    assert_eq!(serve.handle::<Frail>("e").unwrap().call(Frail).await, Ok(()));
    assert_eq!(copies(&serve, "shadow").failed, 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn told_calls_are_copied_too_and_a_deadline_ends_copies() {
    tokio::time::pause();
    let serve = here().await;
    let counts = backends(&serve, &["main", "shadow"]).await;
    let hanging = Backend::from_fn(|_: Who| std::future::pending());
    serve.create_backend("hanging", hanging.shadows::<Who>(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    serve.shadow_traffic("e", "shadow", 1.0).await.unwrap();
    serve.shadow_traffic("e", "hanging", 1.0).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap().options().timeout(Duration::from_secs(1));
    handle.tell(Who {}).unwrap();
    until("both have it", || read(&counts) == [1, 1]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(copies(&serve, "hanging").failed, 1, "it ended at the deadline of the call");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn over_http_requests_are_copied_with_headers_and_body() {
    let (serve, address) = listening(2).await;
    let counts = backends(&serve, &["main", "shadow"]).await;
    serve.create_endpoint("e", Endpoint::new("main").route("/who").methods(["GET", "POST"])).await.unwrap();
    serve.shadow_traffic("e", "shadow", 1.0).await.unwrap();
    for method in ["GET", "POST"] {
        for _ in 0..50 {
            let answer = ask(address, method, "/who", &[], if method == "POST" { "{}" } else { "" }).await;
            assert_eq!(answer.text(), "\"main\"");
        }
    }
    eventually("all copies have come", || copies(&serve, "shadow").answered == 100).await;
    assert_eq!(read(&counts), [100, 100]);
    // A request that the primary refuses is copied as well: the shadow refuses it by itself.
    assert_eq!(ask(address, "POST", "/who", &[], "{").await.status, 400);
    eventually("the copy was refused", || copies(&serve, "shadow").failed == 1).await;
    serve.shutdown().await.unwrap();
}
