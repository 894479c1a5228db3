//! A replica that answers its checks and fails its requests, which its siblings do not.

use super::{Verdict::*, *};

/// Fails in this way where it meets the replicas of this generation.
#[derive(Clone, Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Work {
    fails_at: std::ops::RangeInclusive<u64>,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Error(u16),
    Panic,
    Late,
}

impl Handler<Work> for Patient {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Work { fails_at, how }: Work, ctx: &mut Self::Context) -> Self::Result {
        let generation = ctx.replica_id().generation;
        Box::pin(async move {
            if !fails_at.contains(&generation) {
                sleep(ms(1)).await;
                return Ok(generation);
            }
            match how {
                How::Error(status) => Err(ServeError::backend(status, "bad", "bad")),
                How::Panic => panic!("{MEANT}"),
                How::Late => {
                    sleep(s(30)).await;
                    Ok(generation)
                }
            }
        })
    }
}

async fn hospital(ward: &Ward, replicas: u32) -> (Stage, Handle<Work>) {
    freeze();
    let stage = Stage::new().await.unwrap();
    let backend = ward.backend().handles::<Work>();
    let work = stage.replicas("ward", backend, config().num_replicas(replicas)).await.unwrap();
    (stage, work)
}

fn ejections(stage: &Stage) -> u64 {
    metric(stage.serve(), "serve_replica_ejections_total", "backend=\"ward\"")
}

/// Forty calls at once for so many seconds; how many failed.
async fn load(work: &Handle<Work>, message: Work, seconds: u64) -> u64 {
    let end = tokio::time::Instant::now() + s(seconds);
    let callers = (0..40).map(|_| {
        let (work, message) = (work.clone(), message.clone());
        actix_web::rt::spawn(async move {
            let mut failed = 0;
            while tokio::time::Instant::now() < end {
                failed += u64::from(work.call(message.clone()).await.is_err());
                sleep(ms(100)).await;
            }
            failed
        })
    });
    let mut failed = 0;
    for caller in callers.collect::<Vec<_>>() {
        failed += caller.await.unwrap();
    }
    failed
}

#[actix_web::test]
async fn one_bad_of_three_is_replaced_and_then_every_call_is_served() -> Result<(), ServeError> {
    for how in [How::Error(500), How::Panic] {
        let ward = Ward::new();
        let (stage, work) = hospital(&ward, 3).await;
        // One that it runs when it is ejected.
        ward.calls.release(0);
        let holds: Vec<_> =
            (0..12).map(|_| stage.serve().handle::<Hold>("ward").unwrap().call(Hold)).collect();
        until("they run", || ward.calls.inside() == 12).await;
        let bad = Work { fails_at: 2..=2, how };
        assert!(load(&work, bad.clone(), 11).await > 20);
        assert_eq!(ejections(&stage), 1, "{how:?}");
        let told = last_error(stage.serve());
        assert!(told.starts_with("replica 1 is replaced: ") && told.contains("answers failed"), "{told}");
        assert_eq!(load(&work, bad.clone(), 5).await, 0);
        ward.calls.release(12);
        let ran = futures_util::future::join_all(holds).await;
        let mut at: Vec<_> = ran.into_iter().map(Result::unwrap).collect();
        at.dedup();
        assert!(at.contains(&2), "what ran at the one that went was finished: {at:?}");
        assert_eq!(load(&work, bad, 60).await, 0);
        assert_eq!((generations(stage.serve()), ejections(&stage)), (vec![1, 4, 3], 1));
        assert!(restarts(stage.serve(), 1) >= 1);
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn mistakes_of_callers_and_deadlines_eject_nobody() -> Result<(), ServeError> {
    for how in [How::Error(422), How::Late] {
        let ward = Ward::new();
        let (stage, work) = hospital(&ward, 3).await;
        let work = work.options().timeout(ms(500));
        assert!(load(&work, Work { fails_at: 2..=2, how }, 65).await > 20);
        assert_eq!((generations(stage.serve()), ejections(&stage)), (vec![1, 2, 3], 0), "{how:?}");
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn one_that_does_not_answer_within_the_backends_own_time_is_ejected() -> Result<(), ServeError> {
    let late = Work { fails_at: 2..=2, how: How::Late };
    for tells in [false, true] {
        let ward = Ward::new();
        let (stage, work) = hospital(&ward, 3).await;
        let update = BackendUpdate::default().request_timeout(Some(ms(500)));
        stage.serve().update_backend_config("ward", update).await?;
        for _ in 0..210 {
            if tells {
                (0..6).try_for_each(|_| work.tell(late.clone()))?;
                sleep(ms(100)).await;
            } else {
                load(&work, late.clone(), 1).await;
            }
            if ejections(&stage) > 0 {
                break;
            }
        }
        sleep(s(2)).await;
        let now = (generations(stage.serve()), ejections(&stage));
        assert_eq!(now, (vec![1, 4, 3], 1), "told: {tells}");
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_tighter_deadline_of_the_caller_ejects_nobody() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, work) = hospital(&ward, 3).await;
    let update = BackendUpdate::default().request_timeout(Some(s(5)));
    stage.serve().update_backend_config("ward", update).await?;
    let work = work.options().timeout(ms(500));
    assert!(load(&work, Work { fails_at: 2..=2, how: How::Late }, 65).await > 20);
    assert_eq!((generations(stage.serve()), ejections(&stage)), (vec![1, 2, 3], 0));
    stage.end().await
}

#[actix_web::test]
async fn where_all_fail_it_is_the_model_and_nobody_is_ejected() -> Result<(), ServeError> {
    for (replicas, bad) in [(1, 1..=9), (3, 1..=9)] {
        let ward = Ward::new();
        let (stage, work) = hospital(&ward, replicas).await;
        assert!(load(&work, Work { fails_at: bad, how: How::Error(500) }, 65).await > 100);
        let now: Vec<_> = (1..=u64::from(replicas)).collect();
        assert_eq!((generations(stage.serve()), ejections(&stage)), (now, 0));
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn of_many_bad_ones_a_fifth_is_replaced_at_once() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, work) = hospital(&ward, 10).await;
    let bad = Work { fails_at: 1..=4, how: How::Error(500) };
    load(&work, bad.clone(), 11).await;
    assert_eq!(ejections(&stage), 2);
    load(&work, bad.clone(), 60).await;
    assert_eq!(ejections(&stage), 4);
    assert!(generations(stage.serve()).iter().all(|generation| *generation > 4));
    assert_eq!(load(&work, bad, 20).await, 0);
    stage.end().await
}

#[actix_web::test]
async fn one_for_which_there_is_no_room_beside_it_is_replaced_when_it_has_gone() -> Result<(), ServeError> {
    freeze();
    let ward = Ward::new();
    let options = greenroom::ServeOptions::default().current_thread();
    let serve = Serve::start(options.capacity(greenroom::Capacity::default().num_cpus(2.0))).await?;
    serve.create_backend("ward", ward.backend().handles::<Work>(), config().num_replicas(2)).await?;
    serve.create_endpoint("ward", Endpoint::new("ward")).await?;
    let work = serve.handle::<Work>("ward")?;
    let bad = Work { fails_at: 1..=1, how: How::Error(500) };
    let holds: Vec<_> = (0..4).map(|_| serve.handle::<Hold>("ward").unwrap().call(Hold)).collect();
    load(&work, bad.clone(), 12).await;
    assert_eq!(generations(&serve), [1, 2], "it finishes what it has");
    assert_eq!(load(&work, bad.clone(), 1).await, 0);
    ward.calls.release(4);
    for hold in holds {
        hold.await?;
    }
    assert_eq!(load(&work, bad, 30).await, 0);
    assert_eq!(generations(&serve), [3, 2]);
    serve.shutdown().await
}

#[actix_web::test]
async fn while_a_change_that_failed_goes_back_nobody_is_ejected() -> Result<(), ServeError> {
    freeze();
    let ward = Ward::new();
    let serve = Serve::start(greenroom::ServeOptions::default().current_thread()).await?;
    let config = config().num_replicas(3).graceful_shutdown_timeout(s(120));
    let first = config.clone().version("1");
    serve.create_backend("ward", ward.backend().handles::<Work>(), first).await?;
    serve.create_endpoint("ward", Endpoint::new("ward")).await?;
    let next = Ward::new();
    // The first of them starts, and takes a call that it does not finish; the second never does.
    let stuck = next.clone();
    next.says(move |visit| match visit.before {
        0 if visit.generation > 4 => Hangs,
        _ => Well,
    });
    let serving = serve.clone();
    let backend = stuck.backend().handles::<Work>();
    let second = config.version("2").startup_timeout(s(5));
    let deployed = actix_web::rt::spawn(async move { serving.deploy_backend("ward", backend, second).await });
    until("the first of them runs", || {
        replicas(&serve).iter().any(|r| r.release == 2 && r.id.generation == 5)
    })
    .await;
    let holds: Vec<_> = (0..30).map(|_| serve.handle::<Hold>("ward").unwrap().call(Hold)).collect();
    until("it has calls", || next.calls.inside() > 0).await;
    sleep(s(6)).await;
    assert_eq!(serve.status().backends[0].release, 1, "it goes back");
    let bad = Work { fails_at: 2..=2, how: How::Error(500) };
    let work = serve.handle::<Work>("ward")?;
    assert!(load(&work, bad.clone(), 45).await > 20);
    assert!(!deployed.is_finished());
    assert_eq!(metric(&serve, "serve_replica_ejections_total", "backend=\"ward\""), 0);
    ward.calls.release(30);
    next.calls.release(30);
    for hold in holds {
        hold.await?;
    }
    assert_eq!(deployed.await.unwrap().unwrap_err().code(), "rollout_failed");
    load(&work, bad, 25).await;
    assert_eq!(metric(&serve, "serve_replica_ejections_total", "backend=\"ward\""), 1, "then it is");
    serve.shutdown().await
}
