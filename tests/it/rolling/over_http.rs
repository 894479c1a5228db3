//! Replaced over and over on real threads, under requests over HTTP and calls of handles.

use std::num::NonZeroUsize;

use greenroom::Placement;

use super::*;
use crate::{
    support::{quiet_panics, uncounted},
    wire::{Client, listening},
};

#[actix_web::test]
async fn no_request_over_http_fails_while_replicas_are_replaced_over_and_over() {
    quiet_panics();
    let (serve, address) = listening(2).await;
    let config = |version: usize, n| {
        let config = config(&version.to_string(), n).user_config(json!({"ms": 2}));
        // On threads of their own in turn.
        config.placement((version % 2 == 1).then_some(Placement::Dedicated))
    };
    open(&serve, counter("old"), config(0, 1)).await;
    let ends = Rc::new(Cell::new(false));
    let clients = (0..6).map(|_| {
        let ends = Rc::clone(&ends);
        spawn(async move {
            let (mut client, mut requests) = (Client::connect(address).await, 0_u64);
            while !ends.get() {
                client.request("GET", "/work", &[], "").await;
                let answer = client.answer().await;
                assert_eq!(answer.status, 200, "{answer:?}");
                requests += 1;
            }
            requests
        })
    });
    let clients: Vec<_> = clients.collect();
    let load = Load::of(&serve, 6);
    for (version, n) in [1, 1, 2, 3, 1, 2, 5, 1].into_iter().enumerate() {
        let deployed = deploying(&serve, counter("new"), config(version + 1, n));
        serve.crash_controller().await;
        deployed.await.unwrap().unwrap();
        assert_eq!(status(&serve).replicas.len(), n as usize);
    }
    ends.set(true);
    let mut requests = 0;
    for client in clients {
        requests += client.await.unwrap();
    }
    let (calls, Watched { least, .. }) = load.end().await;
    assert!(requests > 20 && calls > 20 && least >= 1, "{requests} requests, {calls} calls, {least}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn no_call_fails_where_the_only_replica_is_replaced_over_and_over_without_room_for_two() {
    let capacity = Capacity::unlimited().custom("seat", 1.0);
    let threads = uncounted().serving_threads(NonZeroUsize::new(2).unwrap());
    let serve = Serve::start(threads.capacity(capacity)).await.unwrap();
    let config = |version: usize| {
        let config = config(&version.to_string(), 1).user_config(json!({"ms": 1}));
        config.resources(greenroom::Resources::none().custom("seat", 1.0))
    };
    open(&serve, counter("old"), config(0)).await;
    let load = Load::of(&serve, 16);
    for version in 1..=30 {
        serve.deploy_backend("counter", counter("new"), config(version)).await.unwrap();
    }
    let (calls, Watched { most, .. }) = load.end().await;
    assert!(calls > 100 && most == 1, "{calls} calls, {most} replicas");
    serve.shutdown().await.unwrap();
}
