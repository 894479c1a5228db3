//! The examples that are about traffic and metrics do what they say.

#![allow(dead_code, reason = "the examples' own `main`s are not called here")]

use actix_web::{App, test};
use greenroom::{Affinity, ServeError, ShadowCopies, testing::Stage};
use serde_json::Value;

use crate::support::{metric, until};

#[path = "../../examples/canary.rs"]
mod canary;
#[path = "../../examples/incremental_rollout.rs"]
mod incremental_rollout;
#[path = "../../examples/metrics.rs"]
mod own_metrics;
#[path = "../../examples/session_affinity.rs"]
mod session_affinity;
#[path = "../../examples/shadow_traffic.rs"]
mod shadow_traffic;
#[path = "../../examples/splitting_traffic.rs"]
mod splitting_traffic;

/// Whether `got` of `calls` draws may come from a share of `p`: within six standard deviations.
fn fits(got: usize, calls: usize, p: f64) -> bool {
    let (got, calls) = (got as f64, calls as f64);
    (got - calls * p).abs() <= 6.0 * (calls * p * (1.0 - p)).sqrt()
}

#[actix_web::test]
async fn half_of_the_requests_go_to_each_of_two_backends() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    splitting_traffic::deploy(stage.serve()).await?;
    let answered = splitting_traffic::count(stage.serve(), 1000).await?;
    assert_eq!(answered.values().sum::<usize>(), 1000);
    assert!(answered.keys().eq(&["one", "two"]) && fits(answered["one"], 1000, 0.5), "{answered:?}");
    let app = test::init_service(App::new().configure(stage.serve().ingress())).await;
    let request = test::TestRequest::get().uri("/fifty").to_request();
    let answer: String = test::call_and_read_body_json(&app, request).await;
    assert!(["one", "two"].contains(&answer.as_str()), "{answer}");
    stage.end().await
}

#[actix_web::test]
async fn canaries_get_their_hundredth_and_then_all_or_nothing() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    canary::deploy(serve).await?;
    let of = |answered: &std::collections::BTreeMap<&'static str, usize>, name| {
        answered.get(name).copied().unwrap_or(0)
    };
    let alone = |name| std::collections::BTreeMap::from([(name, 500)]);
    assert_eq!(canary::count(serve, 500).await?, alone("default"));
    canary::one_canary(serve).await?;
    let answered = canary::count(serve, 5000).await?;
    assert!(fits(of(&answered, "new"), 5000, 0.01) && answered.len() == 2, "{answered:?}");
    canary::two_canaries(serve).await?;
    let answered = canary::count(serve, 5000).await?;
    for name in ["new", "new, second"] {
        assert!(fits(of(&answered, name), 5000, 0.01), "{name}: {answered:?}");
    }
    canary::take_back(serve).await?;
    assert_eq!(canary::count(serve, 500).await?, alone("default"));
    canary::promote(serve).await?;
    assert_eq!(canary::count(serve, 500).await?, alone("new"));
    assert_eq!(serve.list_backends().len(), 1);
    stage.end().await
}

#[actix_web::test]
async fn a_rollout_goes_to_its_end_or_back_after_the_first_failed_request() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    incremental_rollout::deploy(stage.serve(), usize::MAX).await?;
    assert_eq!(incremental_rollout::roll_out(stage.serve(), 100).await?, (1.0, 0));
    let handle = stage.serve().handle::<incremental_rollout::Predict>("incremental_endpoint")?;
    assert_eq!(handle.call(incremental_rollout::Predict).await?, "new");
    incremental_rollout::roll_back(stage.serve()).await?;
    assert_eq!(handle.call(incremental_rollout::Predict).await?, "existing");
    stage.end().await?;

    let stage = Stage::new().await?;
    incremental_rollout::deploy(stage.serve(), 3).await?;
    assert_eq!(incremental_rollout::roll_out(stage.serve(), 1000).await?, (0.1, 1));
    let handle = stage.serve().handle::<incremental_rollout::Predict>("incremental_endpoint")?;
    for _ in 0..200 {
        assert_eq!(handle.call(incremental_rollout::Predict).await?, "existing");
    }
    stage.end().await
}

#[actix_web::test]
async fn a_session_stays_with_its_backend_and_with_its_replica_if_asked() -> Result<(), ServeError> {
    for affinity in [Affinity::Backend, Affinity::Replica] {
        let stage = Stage::new().await?;
        let serve = stage.serve();
        session_affinity::deploy(serve, affinity).await?;
        let app = test::init_service(App::new().configure(serve.ingress())).await;
        for session in 0..50 {
            let session = format!("user-{session}");
            let first = session_affinity::enter(serve, &session).await?;
            for visits in 2..6 {
                let next = session_affinity::enter(serve, &session).await?;
                assert_eq!(next.backend, first.backend);
                if affinity == Affinity::Replica {
                    assert_eq!((next.replica, next.visits), (first.replica, visits), "{session}");
                }
            }
            let request = test::TestRequest::get().uri("/api");
            let request = request.insert_header(("x-serve-shard-key", session)).to_request();
            let over_http: Value = test::call_and_read_body_json(&app, request).await;
            assert_eq!(over_http["backend"], first.backend);
        }
        let nobody = test::call_service(&app, test::TestRequest::get().uri("/api").to_request()).await;
        assert_eq!(nobody.status(), 400);
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_tenth_of_the_sessions_moves_when_a_weight_grows_by_a_tenth() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    session_affinity::deploy(stage.serve(), Affinity::Backend).await?;
    let sessions: Vec<_> = (0..2000).map(|n| format!("session-{n}")).collect();
    let moved = session_affinity::moved(stage.serve(), &sessions, [("a", 0.6), ("b", 0.4)]).await?;
    assert!(fits(moved, 2000, 0.1), "{moved}");
    stage.end().await
}

#[actix_web::test]
async fn shadows_get_their_share_of_copies_until_it_is_ended_and_callers_never_see_them()
-> Result<(), ServeError> {
    let stage = Stage::new().await?;
    shadow_traffic::deploy(stage.serve()).await?;
    assert_eq!(shadow_traffic::ask(stage.serve(), 1000).await?, 1000);
    let quiet =
        || stage.serve().status().backends.iter().flat_map(|b| &b.replicas).all(|replica| replica.load == 0);
    until("every copy has ended", quiet).await;
    let count = |backend: &str| metric(stage.serve(), "serve_backend_request_counter_total", backend);
    let (one, two) = (count("backend=\"new_backend_1\""), count("backend=\"new_backend_2\""));
    assert!(fits(one as usize, 1000, 0.5) && fits(two as usize, 1000, 0.1), "{one} {two}");
    let copies = shadow_traffic::copies(stage.serve());
    let (answered, failed) = (
        ShadowCopies { answered: one, ..Default::default() },
        ShadowCopies { failed: two, ..Default::default() },
    );
    assert_eq!(copies, [("new_backend_1".into(), answered), ("new_backend_2".into(), failed)]);
    shadow_traffic::end(stage.serve()).await?;
    assert!(shadow_traffic::copies(stage.serve()).is_empty());
    assert_eq!(shadow_traffic::ask(stage.serve(), 100).await?, 100);
    assert_eq!(count("backend=\"new_backend_1\""), one);
    stage.end().await
}

#[actix_web::test]
async fn a_backend_s_own_counter_has_its_labels_and_the_mean_latency_can_be_read() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    own_metrics::deploy(stage.serve()).await?;
    let app = test::init_service(App::new().configure(stage.serve().ingress())).await;
    for path in ["/rate", "/rate?excellent=true", "/rate?excellent=true"] {
        let response = test::call_service(&app, test::TestRequest::get().uri(path).to_request()).await;
        assert_eq!(response.status(), 200, "{path}");
    }
    let labels = "backend=\"ratings\",replica=\"0\"";
    assert_eq!(metric(stage.serve(), "excellent_requests_total", labels), 2);
    assert_eq!(metric(stage.serve(), "serve_backend_processing_latency_ms_count", labels), 3);
    assert!(own_metrics::mean_ms(stage.serve(), "ratings") > 0.0);
    stage.end().await
}
