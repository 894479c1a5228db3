//! The first check of a new replica: before it no call, and without it no start.

use tokio::time::Instant;

use super::{Verdict::*, *};

async fn refused(ward: &Ward, config: BackendConfig) -> String {
    freeze();
    let stage = Stage::new().await.unwrap();
    let error = stage.serve().create_backend("ward", ward.backend(), config).await.unwrap_err();
    assert_eq!(error.code(), "start_failed");
    assert!(stage.serve().status().backends.is_empty());
    stage.end().await.unwrap();
    error.to_string()
}

#[actix_web::test]
async fn a_failing_first_check_is_a_failed_start_tried_again_and_then_given_up() {
    for verdict in [Ill, IllLater(ms(1)), Panics, PanicsLater(ms(1))] {
        let ward = Ward::new();
        ward.says(move |_| verdict);
        let begun = Instant::now();
        let told = refused(&ward, config()).await;
        let why = if matches!(verdict, Ill | IllLater(_)) { "it feels ill" } else { MEANT };
        assert!(told.contains("its health check failed: ") && told.contains(why), "{told}");
        assert_eq!((ward.states(), ward.checks()), (6, 6), "as often as a factory that fails");
        // 100, 200, 400, 800 and 1600 ms.
        let took = begun.elapsed();
        assert!((ms(3100)..ms(3300)).contains(&took), "{verdict:?}: {took:?}");
    }
}

#[actix_web::test]
async fn a_first_check_that_fails_only_at_first_is_no_hindrance() -> Result<(), ServeError> {
    let ward = Ward::new();
    ward.says(|visit| if visit.state < 4 { IllLater(ms(1)) } else { Later(ms(1)) });
    let (stage, ping) = stage(&ward, config()).await;
    assert_eq!((ping.call(Ping).await?, ward.states()), ((0, 1), 4));
    stage.end().await
}

#[actix_web::test]
async fn a_first_check_that_does_not_end_fails_after_its_timeout() {
    let ward = Ward::new();
    ward.says(|_| Hangs);
    let begun = Instant::now();
    let restart = RestartPolicy { max_restarts: 1, window: s(60), backoff: ms(100) };
    let told = refused(&ward, config().health_check_timeout(s(5)).restart(restart)).await;
    assert!(told.ends_with("its health check failed: no answer within 5 s"), "{told}");
    assert_eq!((begun.elapsed().as_secs(), ward.checks()), (10, 2));
}

#[actix_web::test]
async fn the_first_check_is_part_of_the_start_and_ends_with_its_timeout() {
    let ward = Ward::new();
    ward.says(|_| Hangs);
    let begun = Instant::now();
    let told = refused(&ward, config().startup_timeout(s(8)).health_check_timeout(s(5))).await;
    assert!(
        told.ends_with(
            "it was not ready within 8 s; the last failure: its health check failed: no answer within 5 s"
        ),
        "{told}"
    );
    assert_eq!(begun.elapsed().as_secs(), 8);
}

#[actix_web::test]
async fn no_call_begins_before_the_first_check_has_passed() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    ward.says(|visit| if visit.slot == 1 { Later(s(7)) } else { Well });
    let serve = stage.serve().clone();
    let more = BackendUpdate::default().num_replicas(2);
    let update = actix_web::rt::spawn(async move { serve.update_backend_config("ward", more).await });
    until("the first check of the second replica", || ward.checks() == 2).await;
    sleep(s(6)).await;
    assert!(!update.is_finished());
    for _ in 0..100 {
        assert_eq!(ping.call(Ping).await?, (0, 1));
    }
    update.await.unwrap()?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        seen.insert(ping.call(Ping).await?);
    }
    assert_eq!(Vec::from_iter(seen), [(0, 1), (1, 2)]);
    stage.end().await
}

#[actix_web::test]
async fn the_configuration_is_taken_before_the_check_and_the_check_before_the_first_call()
-> Result<(), ServeError> {
    let ward = Ward::new();
    ward.says(|_| Later(ms(5)));
    let config = config().user_config(serde_json::json!("configuration"));
    let (stage, ping) = stage(&ward, config).await;
    ping.call(Ping).await?;
    assert_eq!(*ward.log.lock().unwrap(), ["configuration", "check", "call"]);
    let fall = stage.serve().handle::<Fall>("ward")?;
    fall.call(Fall).await.unwrap_err();
    ping.call(Ping).await?;
    assert_eq!(ward.log.lock().unwrap()[3..], ["configuration", "check", "call"]);
    stage.end().await
}

#[actix_web::test]
async fn an_update_to_more_replicas_fails_when_their_first_check_does() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    ward.says(|visit| if visit.slot == 1 { Ill } else { Well });
    let more = BackendUpdate::default().num_replicas(2);
    let error = stage.serve().update_backend_config("ward", more).await.unwrap_err();
    assert!(error.to_string().ends_with("its health check failed: it feels ill"), "{error}");
    assert_eq!(stage.serve().get_backend_config("ward")?.num_replicas, 1);
    assert_eq!(ping.call(Ping).await?, (0, 1));
    stage.end().await
}

#[actix_web::test]
async fn a_new_version_that_fails_its_first_check_is_not_rolled_out() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config().num_replicas(2)).await;
    ward.says(|visit| if visit.generation > 2 { IllLater(ms(10)) } else { Well });
    let serve = stage.serve().clone();
    let next = BackendUpdate::default().version("2");
    let update = actix_web::rt::spawn(async move { serve.update_backend_config("ward", next).await });
    while !update.is_finished() {
        assert!(ping.call(Ping).await?.1 <= 2);
        sleep(ms(1)).await;
    }
    let error = update.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "rollout_failed");
    assert!(error.to_string().ends_with("its health check failed: it feels ill"), "{error}");
    assert!(ping.call(Ping).await?.1 <= 2);
    assert_eq!(generations(stage.serve()), [1, 2]);
    stage.end().await
}

#[actix_web::test]
async fn a_replica_ends_in_the_middle_of_its_first_check_when_it_is_told_to() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config()).await;
    ward.says(|_| Hangs);
    let serve = stage.serve().clone();
    let more = BackendUpdate::default().num_replicas(2);
    let update = actix_web::rt::spawn(async move { serve.update_backend_config("ward", more).await });
    until("its first check", || ward.checks() == 2).await;
    stage.serve().delete_endpoint("ward").await?;
    stage.serve().delete_backend("ward", false).await?;
    assert!(update.await.unwrap().is_err());
    stage.end().await
}
