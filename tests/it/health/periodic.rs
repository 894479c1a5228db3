//! The checks of a replica that runs: how often, beside what, and when they count as failed.

use tokio::time::{Instant, sleep_until};

use super::{Verdict::*, *};

#[actix_web::test]
async fn each_replica_is_asked_every_period_and_that_is_no_request() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().num_replicas(2)).await;
    assert_eq!(ward.checks(), 2, "the first check of each");
    sleep(s(101)).await;
    assert_eq!(ward.checks(), 2 + 2 * 10);
    for name in ["serve_backend_request_counter_total", "serve_overload_refused_total"] {
        assert_eq!(metric(stage.serve(), name, "backend=\"ward\""), 0, "{name}");
    }
    assert!(
        !stage
            .serve()
            .metrics()
            .contains("serve_backend_processing_latency_ms_count{backend=\"ward\",replica=\"0\"} 1")
    );
    stage.end().await
}

#[actix_web::test]
async fn another_period_holds_at_once_for_replicas_that_run() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().health_check_period(s(3600))).await;
    sleep(s(60)).await;
    assert_eq!(ward.checks(), 1);
    let serve = stage.serve();
    serve.update_backend_config("ward", BackendUpdate::default().health_check_period(s(1))).await?;
    sleep(s(10)).await;
    assert!((10..=12).contains(&ward.checks()), "{}", ward.checks());
    assert_eq!((generations(serve), ward.states()), (vec![1], 1), "nobody was restarted for it");
    stage.end().await
}

#[actix_web::test]
async fn another_timeout_holds_at_once_for_replicas_that_run() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().health_check_timeout(s(3600))).await;
    ward.says(|visit| if visit.generation == 1 { Hangs } else { Well });
    sleep(s(600)).await;
    let serve = stage.serve();
    assert_eq!(replicas(serve)[0].failed_checks, 0);
    serve.update_backend_config("ward", BackendUpdate::default().health_check_timeout(s(1))).await?;
    sleep(s(5)).await;
    assert_eq!(generations(serve), [2]);
    stage.end().await
}

#[actix_web::test]
async fn two_failures_in_a_row_change_nothing_and_the_third_replaces_the_replica() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    let serve = stage.serve();
    for _ in 0..3 {
        ward.says(|_| Ill);
        sleep(s(21)).await;
        assert_eq!((generations(serve), replicas(serve)[0].failed_checks), (vec![1], 2));
        assert_eq!(last_error(serve), "replica 0: its health check failed: it feels ill (2 of 3 in a row)");
        assert_eq!(ping.call(Ping).await?, (0, 1), "it serves on");
        ward.says(|_| Well);
        sleep(s(10)).await;
        assert_eq!(replicas(serve)[0].failed_checks, 0);
    }
    ward.says(|visit| if visit.generation == 1 { Ill } else { Well });
    sleep(s(30)).await;
    assert_eq!((ping.call(Ping).await?, generations(serve)), ((0, 2), vec![2]));
    assert_eq!(last_error(serve), "replica 0: its health check failed: it feels ill (3 of 3 in a row)");
    assert_eq!(restarts(serve, 0), 1);
    sleep(s(600)).await;
    assert_eq!(generations(serve), [2]);
    stage.end().await
}

#[actix_web::test]
async fn a_check_that_never_ends_fails_after_its_timeout_and_another_is_begun() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    let serve = stage.serve();
    let begun = Instant::now();
    ward.says(|visit| if visit.generation == 1 { Hangs } else { Well });
    // Asked at 10 s, given up at 40, 70 and 100 s.
    for (at, failed, checks) in [(39, 0, 2), (41, 1, 3), (71, 2, 4)] {
        sleep_until(begun + s(at)).await;
        assert_eq!((replicas(serve)[0].failed_checks, ward.checks()), (failed, checks), "at {at} s");
        assert_eq!(ping.call(Ping).await?, (0, 1), "a check that takes its time holds nobody up");
    }
    sleep_until(begun + s(101)).await;
    assert_eq!(ping.call(Ping).await?, (0, 2));
    assert_eq!(
        last_error(serve),
        "replica 0: its health check was not answered within 30 s (3 of 3 in a row)"
    );
    stage.end().await
}

#[actix_web::test]
async fn a_check_that_panics_has_failed_and_the_state_is_made_again() -> Result<(), ServeError> {
    for panics in [Panics, PanicsLater(s(1))] {
        let ward = Ward::new();
        let (stage, ping) = stage(&ward, config()).await;
        let serve = stage.serve();
        ward.says(move |visit| if (visit.state, visit.before) == (1, 1) { panics } else { Well });
        sleep(s(12)).await;
        assert_eq!((ward.states(), generations(serve), restarts(serve, 0)), (2, vec![1], 1));
        assert_eq!(replicas(serve)[0].failed_checks, 1);
        assert!(last_error(serve).contains(MEANT), "{}", last_error(serve));
        assert_eq!(ping.call(Ping).await?, (0, 1));
        sleep(s(10)).await;
        assert_eq!((ward.states(), replicas(serve)[0].failed_checks), (2, 0));
        stage.end().await?;
    }
    Ok(())
}

/// Its check needs the actor to the end.
struct Bound(Patient);
impl Actor for Bound {
    type Context = ReplicaContext<Self>;
}
impl Handler<CheckHealth> for Bound {
    type Result = ResponseActFuture<Self, Result<(), ServeError>>;
    fn handle(&mut self, _: CheckHealth, _: &mut Self::Context) -> Self::Result {
        let verdict = self.0.examine();
        Box::pin(pronounce(verdict).into_actor(self))
    }
}
impl Handler<Ping> for Bound {
    type Result = Result<(u32, u64), ServeError>;
    fn handle(&mut self, _: Ping, ctx: &mut Self::Context) -> Self::Result {
        Ok((ctx.replica_id().slot, ctx.replica_id().generation))
    }
}

#[actix_web::test]
async fn a_check_may_be_a_future_of_the_actor() -> Result<(), ServeError> {
    freeze();
    for (bad, states) in [(IllLater(s(1)), 2), (PanicsLater(s(1)), 5)] {
        let ward = Ward::new();
        let stage = Stage::new().await?;
        let shared = ward.clone();
        let bound = Backend::new(move |ctx| Ok(Bound(Patient::new(&shared, ctx.replica_id()))));
        ward.says(|_| Later(s(1)));
        let ping = stage.replicas("ward", bound.handles::<Ping>().health_check(), config()).await?;
        sleep(s(50)).await;
        assert_eq!((replicas(stage.serve())[0].failed_checks, ward.states()), (0, 1));
        // The first of each state is good.
        ward.says(move |visit| if visit.generation == 1 && visit.before > 0 { bad } else { Later(s(1)) });
        sleep(s(35)).await;
        assert_eq!((ping.call(Ping).await?, ward.states()), ((0, 2), states), "{bad:?}");
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_queue_that_never_empties_does_not_keep_the_check_waiting() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().max_concurrent_queries(1)).await;
    let alone = stage.serve().handle::<Alone>("ward")?;
    let calls: Vec<_> = (0..500).map(|_| alone.call(Alone(s(1)))).collect();
    sleep(s(400)).await;
    assert!(replicas(stage.serve())[0].load > 90);
    assert!((38..=42).contains(&ward.checks()), "{}", ward.checks());
    assert_eq!(replicas(stage.serve())[0].failed_checks, 0);
    for call in calls {
        call.await?;
    }
    stage.end().await
}

#[actix_web::test]
async fn a_flood_of_calls_does_not_keep_the_check_waiting() -> Result<(), ServeError> {
    let ward = Ward::new();
    let serve = Serve::start(crate::support::uncounted().serving_threads(NonZeroUsize::MIN)).await?;
    let config = config().health_check_period(ms(20));
    serve.create_backend("ward", ward.backend(), config).await?;
    serve.create_endpoint("ward", Endpoint::new("ward")).await?;
    let ping = serve.handle::<Ping>("ward")?;
    let ends = std::rc::Rc::new(std::cell::Cell::new(false));
    let callers = (0..64).map(|_| {
        let (ping, ends) = (ping.clone(), std::rc::Rc::clone(&ends));
        actix_web::rt::spawn(async move {
            while !ends.get() {
                ping.call(Ping).await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    until("twenty checks", || ward.checks() > 20).await;
    ends.set(true);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((generations(&serve), replicas(&serve)[0].failed_checks), (vec![1], 0));
    serve.shutdown().await
}

#[actix_web::test]
async fn a_replica_that_is_busy_within_its_request_timeout_is_well() -> Result<(), ServeError> {
    for (timeout, generation) in [(Some(s(100)), 1), (None, 2)] {
        let ward = Ward::new();
        let (stage, ping) = stage(&ward, config().request_timeout(timeout)).await;
        let busy = stage.serve().handle::<Alone>("ward")?.call(Alone(s(99)));
        // Without a longer request timeout: asked at 10 s, given up at 40, 70 and 100 s.
        let second = stage.serve().handle::<Alone>("ward")?.call(Alone(s(5)));
        sleep(s(98)).await;
        let failed = replicas(stage.serve())[0].failed_checks;
        assert_eq!(failed, if timeout.is_some() { 0 } else { 2 });
        ward.says(|_| Well);
        if generation == 1 {
            busy.await?;
            second.await.unwrap_err();
            sleep(s(10)).await;
        } else {
            let longer = stage.serve().handle::<Alone>("ward")?.call(Alone(s(5)));
            busy.await?;
            second.await?;
            longer.await?;
        }
        assert_eq!(ping.call(Ping).await?, (0, 1), "a late answer is a good one");
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_replica_that_is_busy_for_longer_is_replaced() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    let busy = stage.serve().handle::<Alone>("ward")?.call(Alone(s(200)));
    sleep(s(101)).await;
    assert_eq!(busy.await.unwrap_err(), ServeError::Stopped);
    assert_eq!(ping.call(Ping).await?, (0, 2));
    stage.end().await
}

#[actix_web::test]
async fn a_replica_whose_state_is_made_again_has_the_time_of_a_start_for_its_check() -> Result<(), ServeError>
{
    let ward = Ward::new();
    let restart = RestartPolicy { max_restarts: 1000, window: s(600), backoff: ms(100) };
    let config = config().health_check_period(s(1)).health_check_timeout(s(1)).restart(restart);
    let (stage, ping) = stage(&ward, config).await;
    let ill_until = Instant::now() + s(50);
    ward.says(move |_| if Instant::now() < ill_until { Ill } else { Well });
    stage.serve().handle::<Fall>("ward")?.call(Fall).await.unwrap_err();
    assert_eq!(ping.call(Ping).await?, (0, 1), "it waited until the state was well");
    assert!(Instant::now() >= ill_until);
    assert_eq!(replicas(stage.serve())[0].failed_checks, 0);
    stage.end().await
}

#[actix_web::test]
async fn a_replica_that_waits_to_take_its_configuration_is_not_asked() -> Result<(), ServeError> {
    let ward = Ward::new();
    let config = config().health_check_period(s(1)).health_check_timeout(s(1));
    let (stage, ping) = stage(&ward, config.user_config(serde_json::json!("old"))).await;
    let busy = stage.serve().handle::<Alone>("ward")?.call(Alone(s(15)));
    sleep(ms(1500)).await;
    let new = BackendUpdate::default().user_config(serde_json::json!("new"));
    stage.serve().update_backend_config("ward", new).await?;
    busy.await?;
    assert_eq!((ping.call(Ping).await?, replicas(stage.serve())[0].failed_checks), ((0, 1), 0));
    stage.end().await
}

#[actix_web::test]
async fn without_a_check_of_its_own_a_replica_is_well_while_its_loop_turns() -> Result<(), ServeError> {
    freeze();
    let (stage, ward) = (Stage::new().await?, Ward::new());
    let shared = ward.clone();
    let patient = Backend::new(move |ctx| Ok(Patient::new(&shared, ctx.replica_id())));
    let alone: Handle<Alone> = stage.replicas("ward", patient.handles::<Alone>(), config()).await?;
    alone.call(Alone(s(1000))).await?;
    let seen = &replicas(stage.serve())[0];
    assert_eq!((seen.id.generation, seen.failed_checks, ward.checks()), (1, 0, 0));
    stage.end().await
}

#[actix_web::test]
async fn the_rounds_go_on_when_the_controller_crashes() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    let serve = stage.serve();
    for _ in 0..20 {
        serve.crash_controller().await;
        sleep(s(5)).await;
    }
    assert!((9..=11).contains(&ward.checks()), "{}", ward.checks());
    ward.says(|visit| if visit.generation == 1 { Ill } else { Well });
    for _ in 0..7 {
        serve.crash_controller().await;
        sleep(s(5)).await;
    }
    assert_eq!(ping.call(Ping).await?, (0, 2), "failures before a crash count");
    ward.says(|visit| if visit.generation == 2 { Hangs } else { Well });
    for _ in 0..22 {
        serve.crash_controller().await;
        sleep(s(5)).await;
    }
    assert_eq!(ping.call(Ping).await?, (0, 3), "and so does the time of a check that is under way");
    stage.end().await
}
