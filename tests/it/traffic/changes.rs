//! Traffic is changed under load: nothing fails, and nothing is served by the old policy afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use greenroom::{BackendConfig, Endpoint, Serve};

use super::{Who, backends, named};
use crate::wire::{Client, listening};

const CHANGES: u64 = 1_000;

#[actix_web::test]
async fn a_thousand_changes_under_load_fail_nothing_and_hold_at_once() {
    let (serve, address) = listening(2).await;
    backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/who")).await.unwrap();
    let (end, done) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default());
    let mut load = Vec::new();
    for _ in 0..4 {
        let (end, done) = (Arc::clone(&end), Arc::clone(&done));
        load.push(actix_web::rt::spawn(async move {
            let mut client = Client::connect(address).await;
            while !end.load(SeqCst) {
                client.request("GET", "/who", &[], "").await;
                let answer = client.try_answer(false).await.unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                done.fetch_add(1, SeqCst);
            }
        }));
    }
    let handle = serve.handle::<Who>("e").unwrap();
    for n in 0..CHANGES {
        let to = ["a", "b"][usize::try_from(n % 2).unwrap()];
        serve.set_traffic("e", [(to, 1.0)]).await.unwrap();
        // Made after the change has returned, from a thread that is none of its own.
        assert_eq!(handle.call(Who {}).await.unwrap(), to, "change {n}");
    }
    end.store(true, SeqCst);
    for task in load {
        task.await.unwrap();
    }
    assert!(done.load(SeqCst) > 100, "the load was real");
    serve.shutdown().await.unwrap();
}

#[test]
fn a_backend_that_is_replaced_and_deleted_under_load_loses_no_call() {
    let system = actix_web::rt::System::new();
    system.block_on(async {
        let serve = Serve::start(crate::support::uncounted()).await.unwrap();
        backends(&serve, &["v0"]).await;
        serve.create_endpoint("e", Endpoint::new("v0")).await.unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (handle, end) = (serve.handle::<Who>("e").unwrap().blocking(), Arc::clone(&end));
                std::thread::spawn(move || {
                    let mut calls = 0_u64;
                    while !end.load(SeqCst) {
                        handle.call(Who {}).unwrap_or_else(|error| panic!("call {calls}: {error}"));
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for round in 1..=30 {
            let (old, new) = (format!("v{}", round - 1), format!("v{round}"));
            let (backend, _) = named("new");
            serve.create_backend(&new, backend, BackendConfig::default().num_replicas(2)).await.unwrap();
            serve.set_traffic("e", [(new, 1.0)]).await.unwrap();
            // At once: calls that chose the old one a moment ago are still on their way.
            serve.delete_backend(old, false).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        end.store(true, SeqCst);
        let calls: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(calls > 100, "the load was real");
        serve.shutdown().await.unwrap();
    });
}
