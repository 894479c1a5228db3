//! What becomes of an unhealthy replica, of what it had, and of its place.

use futures_util::future::join_all;

use super::{Verdict::*, *};

#[actix_web::test]
async fn what_waits_at_a_replica_that_does_not_answer_goes_to_its_siblings() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().num_replicas(2).max_concurrent_queries(1)).await;
    let hold = stage.serve().handle::<Hold>("ward")?;
    let calls: Vec<_> = (0..20).map(|_| hold.call(Hold)).collect();
    until("both are busy", || ward.calls.inside() == 2).await;
    ward.says(|visit| if visit.generation == 1 { Hangs } else { Well });
    sleep(s(101)).await;
    assert_eq!(generations(stage.serve()), [3, 2]);
    ward.calls.release(20);
    let (mut stopped, mut served) = (0, 0);
    for answer in join_all(calls).await {
        match answer {
            Ok(generation) => {
                assert_ne!(generation, 1);
                served += 1;
            }
            Err(error) => {
                assert_eq!(error, ServeError::Stopped);
                stopped += 1;
            }
        }
    }
    assert_eq!((stopped, served), (1, 19), "only the one that ran there is lost");
    stage.end().await
}

#[actix_web::test]
async fn what_waits_at_the_only_replica_that_does_not_answer_waits_for_the_one_that_replaces_it()
-> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config().max_concurrent_queries(1)).await;
    let hold = stage.serve().handle::<Hold>("ward")?;
    let calls: Vec<_> = (0..10).map(|_| hold.call(Hold)).collect();
    until("it is busy", || ward.calls.inside() == 1).await;
    ward.says(|visit| if visit.generation == 1 { Hangs } else { Later(s(7)) });
    sleep(s(102)).await;
    // Its replacement is checked for the first time.
    assert_eq!(generations(stage.serve()), [2]);
    let late = ping.call(Ping);
    ward.calls.release(10);
    let mut answers = join_all(calls).await;
    assert_eq!(answers.remove(0), Err(ServeError::Stopped), "it ran");
    assert_eq!(answers, vec![Ok(2); 9]);
    assert_eq!(late.await?, (0, 2));
    stage.end().await
}

#[actix_web::test]
async fn one_that_says_that_it_is_ill_finishes_what_it_has_and_later_calls_go_elsewhere()
-> Result<(), ServeError> {
    for replicas in [1, 2] {
        let ward = Ward::new();
        let (stage, ping) = stage(&ward, config().num_replicas(replicas).max_concurrent_queries(1)).await;
        let hold = stage.serve().handle::<Hold>("ward")?;
        let calls: Vec<_> = (0..10).map(|_| hold.call(Hold)).collect();
        until("they are busy", || ward.calls.inside() == u64::from(replicas)).await;
        ward.says(|visit| if visit.generation == 1 { Ill } else { Later(s(2)) });
        sleep(s(31)).await;
        let now = self::replicas(stage.serve());
        let told = now[0].reason.clone().unwrap_or_default();
        assert!(told.ends_with("its health check failed: it feels ill (3 of 3 in a row)"), "{told}");
        assert_eq!(restarts(stage.serve(), 0), 1);
        let late = ping.call(Ping);
        ward.calls.release(10);
        let answers = join_all(calls).await;
        assert!(answers.iter().all(Result::is_ok) && answers.contains(&Ok(1)), "{answers:?}");
        assert_ne!(late.await?.1, 1);
        sleep(s(5)).await;
        assert!(!generations(stage.serve()).contains(&1));
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn one_that_never_finishes_what_it_has_is_stopped_when_it_has_had_its_time() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().graceful_shutdown_timeout(s(5))).await;
    let held = stage.serve().handle::<Hold>("ward")?.call(Hold);
    until("it runs", || ward.calls.inside() == 1).await;
    ward.says(|visit| if visit.generation == 1 { Ill } else { Well });
    sleep(s(34)).await;
    assert_eq!(generations(stage.serve()), [1, 2]);
    sleep(s(3)).await;
    assert_eq!((held.await, generations(stage.serve())), (Err(ServeError::Stopped), vec![2]));
    stage.end().await
}

#[actix_web::test]
async fn where_all_are_ill_for_one_cause_a_wave_is_replaced_and_the_rest_serves_on_until_it_ends()
-> Result<(), ServeError> {
    for (n, wave) in [(2, 1), (5, 1), (10, 2)] {
        let ward = Ward::new();
        let restart = RestartPolicy { max_restarts: 0, window: s(10), backoff: ms(1) };
        let (stage, ping) = stage(&ward, config().num_replicas(n).restart(restart)).await;
        // What all of them need is away, and replacements find that, too.
        ward.says(|_| Ill);
        for _ in 0..300 {
            sleep(s(1)).await;
            let running =
                replicas(stage.serve()).iter().filter(|r| format!("{:?}", r.state) == "Running").count();
            assert!(running >= (n - wave) as usize, "{running} of {n}");
            ping.call(Ping).await?;
        }
        ward.says(|_| Well);
        sleep(s(60)).await;
        assert_eq!(stage.serve().ready(), Ok(()));
        let kept = generations(stage.serve()).iter().filter(|g| **g <= u64::from(n)).count();
        assert_eq!(kept, (n - wave) as usize, "those that are well again stay");
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_release_whose_replicas_start_and_then_fail_is_stopped_at_the_first_of_them()
-> Result<(), ServeError> {
    for then in [Ill, Panics] {
        let ward = Ward::new();
        let restart = RestartPolicy { max_restarts: 0, window: s(10), backoff: ms(1) };
        let config = config().num_replicas(5).restart(restart).health_check_period(ms(10));
        let (stage, ping) = stage(&ward, config.clone().version("1")).await;
        let (bad, serve) = (Ward::new(), stage.serve().clone());
        let started = Mutex::new(std::collections::BTreeSet::new());
        bad.says(move |visit| match visit.before {
            0 if started.lock().unwrap().insert(visit.generation) => Later(s(1)),
            // A state that is made again is never well: the replica gives up.
            0 => Ill,
            _ => then,
        });
        let deploy = async move { serve.deploy_backend("ward", bad.backend(), config.version("2")).await };
        let deployed = actix_web::rt::spawn(deploy);
        for calls in 0.. {
            if deployed.is_finished() {
                break;
            }
            assert!(calls < 2_000, "it goes on and on");
            ping.call(Ping).await?;
            sleep(ms(10)).await;
        }
        let told = deployed.await.unwrap().unwrap_err();
        assert_eq!(told.code(), "rollout_failed", "{then:?}: {told}");
        let kept = generations(stage.serve()).iter().filter(|g| **g <= 5).count();
        assert!(kept >= 4, "{then:?}: {:?}", generations(stage.serve()));
        assert_eq!(stage.serve().ready(), Ok(()));
        assert!(replicas(stage.serve()).iter().all(|r| r.version.as_deref() == Some("1")));
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn only_the_one_that_is_ill_is_replaced() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config().num_replicas(3)).await;
    ward.says(|visit| if visit.generation == 2 { Ill } else { Well });
    sleep(s(31)).await;
    assert_eq!(generations(stage.serve()), [1, 4, 3]);
    assert_eq!([0, 1, 2].map(|slot| restarts(stage.serve(), slot)), [0, 1, 0]);
    for _ in 0..100 {
        assert_ne!(ping.call(Ping).await?.1, 2);
    }
    stage.end().await
}

#[actix_web::test]
async fn replacements_that_fail_their_first_check_are_tried_again_after_growing_pauses()
-> Result<(), ServeError> {
    let ward = Ward::new();
    let restart = RestartPolicy { max_restarts: 0, window: s(10), backoff: ms(1) };
    let (stage, ping) = stage(&ward, config().restart(restart)).await;
    ward.says(|visit| if visit.generation < 6 { Ill } else { Well });
    // At 30 s, at once, and then after 1, 2, 4 and 8 s.
    sleep(s(44)).await;
    assert_eq!(ping.call(Ping).await.unwrap_err().code(), "no_replica");
    sleep(s(2)).await;
    assert_eq!(ping.call(Ping).await?, (0, 6));
    stage.end().await
}

#[actix_web::test]
async fn a_backend_that_is_deleted_is_not_asked_any_more() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config()).await;
    let held = stage.serve().handle::<Hold>("ward")?.call(Hold);
    until("it runs", || ward.calls.inside() == 1).await;
    ward.says(|_| Ill);
    stage.serve().delete_endpoint("ward").await?;
    let serve = stage.serve().clone();
    let deleted = actix_web::rt::spawn(async move { serve.delete_backend("ward", false).await });
    sleep(s(19)).await;
    ward.calls.release(1);
    assert_eq!((held.await?, ward.checks()), (1, 1));
    deleted.await.unwrap()?;
    stage.end().await
}
