//! Deadlines: the tightest one holds, for everything that is done for a call.

use std::{sync::mpsc, time::Duration};

use actix::{Actor, Handler, Message};
use greenroom::{Backend, BackendConfig, Endpoint, ReplicaContext, Route, Serve, ServeError};
use tokio::time::Instant;

use crate::{
    noter::{House, Later, LaterAct, Note, Told, here},
    support::until,
};

#[actix_web::test]
async fn a_call_ends_at_its_time_out_and_so_does_all_that_was_done_for_it() {
    let house = House::new(here()).await;
    tokio::time::pause();
    let begun = Instant::now();
    let gateway = house.handle::<Later>("gateway").options().timeout(Duration::from_millis(500));
    let call = gateway.call(Later);
    assert_eq!(call.await, Err(ServeError::DeadlineExceeded));
    // Timers round up to a millisecond.
    assert!((500..=501).contains(&begun.elapsed().as_millis()));
    for name in ["gateway", "a", "b"] {
        let deadlines = house.deadlines(name);
        assert_eq!(deadlines, vec![Some(begun + Duration::from_millis(500)); 3], "{name}");
    }
    until("nothing waits in b", || house.barrier.inside() == 0).await;
    house.serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_tightest_deadline_is_handed_down() {
    let house = House::new(here()).await;
    house.add("slow", None, BackendConfig::default()).await;
    house
        .add("hasty", Some("slow"), BackendConfig::default().request_timeout(Duration::from_millis(200)))
        .await;
    house.add("front", Some("hasty"), BackendConfig::default().request_timeout(Duration::from_secs(9))).await;
    tokio::time::pause();
    let begun = Instant::now();
    let front = house.handle::<Later>("front").options().timeout(Duration::from_secs(3));
    assert_eq!(front.call(Later).await, Err(ServeError::DeadlineExceeded));
    let at = |ms| Some(begun + Duration::from_millis(ms));
    assert_eq!(house.deadlines("front")[0], at(3000), "the caller's own is tighter than the backend's");
    let (hasty, slow) = (house.deadlines("hasty")[0].unwrap(), house.deadlines("slow")[0].unwrap());
    assert!(hasty < begun + Duration::from_millis(210), "the backend's own is tighter than the caller's");
    assert_eq!(slow, hasty);
    assert!(begun.elapsed() < Duration::from_millis(210));
    house.serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_time_out_of_the_backend_holds_for_told_and_routed_calls_too() {
    let house = House::new(here()).await;
    house.add("hasty", None, BackendConfig::default().request_timeout(Duration::from_millis(200))).await;
    tokio::time::pause();
    let begun = Instant::now();
    let route = Route { endpoint: "hasty".try_into().unwrap(), msg: LaterAct };
    let routed = house.serve.router().unwrap().send(route).await.unwrap();
    assert_eq!(routed, Err(ServeError::DeadlineExceeded));
    assert!((200..=202).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    house.handle::<Later>("hasty").tell(Later).unwrap();
    until("it runs", || house.barrier.inside() == 1).await;
    tokio::time::sleep(Duration::from_millis(210)).await;
    assert_eq!(house.barrier.inside(), 0, "it was dropped at its deadline");
    house.serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_expires_in_the_queue_never_runs() {
    let house = House::new(here()).await;
    let single = BackendConfig::default().max_concurrent_queries(1);
    house.add("single", None, single).await;
    tokio::time::pause();
    let running = house.handle::<Later>("single").call(Later);
    let hasty = house.handle::<Note>("single").options().timeout(Duration::from_millis(10));
    let expired = hasty.call(Note);
    hasty.tell(Note).unwrap();
    assert_eq!(expired.await, Err(ServeError::DeadlineExceeded));
    until("the first one waits", || house.barrier.inside() == 1).await;
    house.barrier.release(1);
    assert_eq!(running.await, Ok(()));
    assert_eq!(house.handle::<Note>("single").call(Note).await, Ok(()));
    assert_eq!(house.seen.lock().unwrap().len(), 3 + 1, "only the first and the last ran");
    house.serve.shutdown().await.unwrap();
}

#[derive(Message)]
#[rtype(result = "Told")]
struct Block(mpsc::Receiver<()>);

#[actix_web::test]
async fn the_caller_of_a_sync_handler_that_overruns_is_answered_at_its_deadline() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    struct Blocker;
    impl Actor for Blocker {
        type Context = ReplicaContext<Self>;
    }
    impl Handler<Block> for Blocker {
        type Result = Told;
        fn handle(&mut self, Block(until): Block, _: &mut Self::Context) -> Told {
            let _ = until.recv();
            Ok(())
        }
    }
    let backend = Backend::new(|_| Ok(Blocker)).handles::<Block>();
    serve.create_backend("blocker", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("blocker", Endpoint::new("blocker")).await.unwrap();
    let handle = serve.handle::<Block>("blocker").unwrap();
    let (release, blocked) = mpsc::channel();
    let begun = Instant::now();
    let result = handle.options().timeout(Duration::from_millis(50)).call(Block(blocked)).await;
    assert_eq!(result, Err(ServeError::DeadlineExceeded));
    assert!((50..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let load = || serve.status().backends[0].replicas[0].load;
    assert_eq!(load(), 1, "its permit returns when it really ends");
    drop(release);
    until("it has ended", || load() == 0).await;
    serve.shutdown().await.unwrap();
}
