//! What becomes of an unhealthy replica, of what it had, and of its place.

use futures_util::future::join_all;

use super::{Verdict::*, *};

#[actix_web::test]
async fn what_waits_at_an_unhealthy_replica_goes_to_its_siblings() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, _) = stage(&ward, config().num_replicas(2).max_concurrent_queries(1)).await;
    let hold = stage.serve().handle::<Hold>("ward")?;
    let calls: Vec<_> = (0..20).map(|_| hold.call(Hold)).collect();
    until("both are busy", || ward.calls.inside() == 2).await;
    ward.says(|visit| if visit.generation == 1 { Ill } else { Well });
    sleep(s(31)).await;
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
async fn what_waits_at_the_only_replica_waits_for_the_one_that_replaces_it() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config().max_concurrent_queries(1)).await;
    let hold = stage.serve().handle::<Hold>("ward")?;
    let calls: Vec<_> = (0..10).map(|_| hold.call(Hold)).collect();
    until("it is busy", || ward.calls.inside() == 1).await;
    ward.says(|visit| if visit.generation == 1 { Ill } else { Later(s(7)) });
    sleep(s(32)).await;
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
