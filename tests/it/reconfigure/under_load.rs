//! While calls come: none is lost, few replicas are without them at once, and a Controller may crash.

use std::{cell::Cell, num::NonZeroUsize, rc::Rc};

use greenroom::{Endpoint, Serve};

use super::*;
use crate::{
    support::uncounted,
    wire::{Client, listening},
};

#[actix_web::test]
async fn at_most_a_fifth_of_the_replicas_takes_it_at_once() -> Result<(), ServeError> {
    for (replicas, at_once) in [(1, 1), (2, 1), (5, 1), (10, 2)] {
        let (stage, studio) = (Stage::new().await?, Studio::new());
        let look = stage.replicas("painter", studio.backend(), red().num_replicas(replicas)).await?;
        let serve = stage.serve().clone();
        let update =
            actix_web::rt::spawn(
                async move { serve.update_backend_config("painter", paint("slow blue")).await },
            );
        for done in 0..replicas {
            let inside = u64::from(at_once.min(replicas - done));
            until("as many as may", || studio.changes.inside() == inside).await;
            if replicas > 1 {
                // Those that take it take no call; the others take them all.
                for _ in 0..20 {
                    let seen = look.call(Look).await?;
                    assert!(seen.colour == "red" || u64::from(done) > 0, "{seen:?}");
                }
            }
            assert!(!update.is_finished());
            studio.changes.release(1);
            until("one more has it", || studio.taken() == u64::from(replicas + done + 1)).await;
        }
        update.await.unwrap()?;
        assert_eq!(studio.changes.most(), u64::from(at_once), "of {replicas}");
        assert_eq!(colours(&look, replicas as usize).await, only("slow blue"));
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn no_call_through_handles_fails_while_it_changes_over_and_over() -> Result<(), ServeError> {
    for replicas in [1, 4] {
        let studio = Studio::new();
        let serve = Serve::start(uncounted().serving_threads(NonZeroUsize::new(2).unwrap())).await?;
        serve.create_backend("painter", studio.backend(), red().num_replicas(replicas)).await?;
        serve.create_endpoint("painter", Endpoint::new("painter")).await?;
        studio.calls.release(1_000_000);
        let ends = Rc::new(Cell::new(false));
        let callers = (0..32).map(|i| {
            let (look, twice) = (serve.handle::<Look>("painter"), serve.handle::<LookTwice>("painter"));
            let ends = Rc::clone(&ends);
            actix_web::rt::spawn(async move {
                let (look, twice, mut calls) = (look?, twice?, 0_u64);
                while !ends.get() {
                    if i % 2 == 0 {
                        look.call(Look).await?;
                    } else {
                        let (before, after) = twice.call(LookTwice).await?;
                        assert_eq!(before, after, "a call sees one configuration");
                    }
                    calls += 1;
                }
                Ok::<_, ServeError>(calls)
            })
        });
        let callers: Vec<_> = callers.collect();
        for n in 0..100 {
            serve.update_backend_config("painter", paint(&n.to_string())).await?;
            // Once it has returned no call sees an older one.
            assert_eq!(serve.handle::<Look>("painter")?.call(Look).await?.colour, n.to_string());
        }
        ends.set(true);
        let mut calls = 0;
        for caller in callers {
            calls += caller.await.unwrap()?;
        }
        assert!(calls > 1000, "{calls} calls");
        assert_eq!(studio.made(), u64::from(replicas));
        serve.shutdown().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn no_request_over_http_fails_while_it_changes_over_and_over() -> Result<(), ServeError> {
    let (studio, (serve, address)) = (Studio::new(), listening(2).await);
    serve.create_backend("painter", studio.backend(), red().num_replicas(3)).await?;
    serve.create_endpoint("painter", Endpoint::new("painter").route("/look")).await?;
    let ends = Rc::new(Cell::new(false));
    let callers = (0..8).map(|_| {
        let ends = Rc::clone(&ends);
        actix_web::rt::spawn(async move {
            let (mut client, mut calls) = (Client::connect(address).await, 0_u64);
            while !ends.get() {
                client.request("GET", "/look", &[], "").await;
                let answer = client.answer().await;
                assert_eq!(answer.status, 200, "{answer:?}");
                calls += 1;
            }
            calls
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut client = Client::connect(address).await;
    for n in 0..50 {
        serve.update_backend_config("painter", paint(&n.to_string())).await?;
        client.request("GET", "/look", &[], "").await;
        assert_eq!(client.answer().await.json()["colour"], n.to_string());
    }
    ends.set(true);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    assert!(calls > 100, "{calls} requests");
    assert_eq!(studio.made(), 3);
    serve.shutdown().await
}

#[actix_web::test]
async fn a_crash_of_the_controller_in_the_middle_loses_neither_the_change_nor_a_call()
-> Result<(), ServeError> {
    quiet_panics();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red().num_replicas(5)).await?;
    let serve = stage.serve().clone();
    let update =
        actix_web::rt::spawn(async move { serve.update_backend_config("painter", paint("slow blue")).await });
    for done in 0..5 {
        until("one takes it", || studio.changes.began() == done + 1).await;
        stage.serve().crash_controller().await;
        look.call(Look).await?;
        studio.changes.release(1);
    }
    update.await.unwrap()?;
    assert_eq!(colours(&look, 5).await, only("slow blue"));
    assert_eq!((studio.taken(), studio.changes.most()), (10, 1));
    stage.end().await
}

#[actix_web::test]
async fn after_a_crash_of_the_controller_calls_that_do_not_end_still_end_the_change() -> Result<(), ServeError>
{
    quiet_panics();
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let config = red().graceful_shutdown_timeout(Duration::from_secs(5));
    let look: Handle<Look> = stage.replicas("painter", studio.backend(), config).await?;
    let running = stage.serve().handle::<LookTwice>("painter")?.call(LookTwice);
    let (updated, ()) = tokio::join!(stage.serve().update_backend_config("painter", paint("blue")), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.serve().crash_controller().await;
    });
    assert_eq!(updated.unwrap_err().code(), "reconfigure_failed");
    studio.calls.release(1);
    assert_eq!(running.await?.1, "red");
    assert_eq!(look.call(Look).await?.colour, "red");
    stage.end().await
}
