//! Threads that hang in a handler: real ones, in real time.

use std::{
    sync::mpsc,
    thread::{self, ThreadId},
};

use futures_util::future::join_all;
use greenroom::Placement;

use super::*;
use crate::support::uncounted;

/// Answers its thread.
#[derive(Message)]
#[rtype(result = "Result<ThreadId, ServeError>")]
struct Where;

/// Blocks its thread until it is let go.
#[derive(Message)]
#[rtype(result = "Result<ThreadId, ServeError>")]
struct Block(mpsc::Receiver<()>, tokio::sync::oneshot::Sender<ThreadId>);

struct Worker;
impl Actor for Worker {
    type Context = ReplicaContext<Self>;
}
impl Handler<Where> for Worker {
    type Result = Result<ThreadId, ServeError>;
    fn handle(&mut self, _: Where, _: &mut Self::Context) -> Self::Result {
        Ok(thread::current().id())
    }
}
impl Handler<Block> for Worker {
    type Result = Result<ThreadId, ServeError>;
    fn handle(&mut self, Block(let_go, at): Block, _: &mut Self::Context) -> Self::Result {
        let _ = at.send(thread::current().id());
        let _ = let_go.recv_timeout(s(60));
        Ok(thread::current().id())
    }
}

fn worker() -> Backend<Worker> {
    Backend::new(|_| Ok(Worker)).handles::<Where>().handles::<Block>()
}

/// Quick to find out that a thread hangs.
fn quick() -> BackendConfig {
    config().health_check_period(ms(20)).health_check_timeout(ms(500))
}

async fn serve(threads: usize, config: BackendConfig) -> Serve {
    let serve = Serve::start(uncounted().serving_threads(NonZeroUsize::new(threads).unwrap())).await.unwrap();
    serve.create_backend("ward", worker(), config).await.unwrap();
    serve.create_endpoint("ward", Endpoint::new("ward")).await.unwrap();
    serve
}

/// Lets one replica hang; what lets it go, and the thread on which it does.
async fn hang(serve: &Serve) -> (mpsc::Sender<()>, ThreadId) {
    let (release, let_go) = mpsc::channel();
    let (tx, at) = tokio::sync::oneshot::channel();
    drop(actix_web::rt::spawn(serve.handle::<Block>("ward").unwrap().call(Block(let_go, tx))));
    (release, at.await.unwrap())
}

#[actix_web::test]
async fn a_replica_whose_thread_hangs_is_replaced_on_another_and_what_waits_there_is_served()
-> Result<(), ServeError> {
    let serve = serve(2, quick().num_replicas(2).max_concurrent_queries(1)).await;
    let (release, hung) = hang(&serve).await;
    let ask = serve.handle::<Where>("ward")?;
    // Many of them wait at the one that hangs.
    for answer in join_all((0..200).map(|_| ask.call(Where))).await {
        assert_ne!(answer?, hung);
    }
    until("the replacement", || {
        let now = replicas(&serve);
        now.len() == 2
            && now.iter().all(|r| format!("{:?}", r.state) == "Running")
            && now.iter().any(|r| r.id.generation == 3)
    })
    .await;
    assert!(last_error(&serve).ends_with("its health check was not answered within 0.5 s (3 of 3 in a row)"));
    assert_eq!(restarts(&serve, 0) + restarts(&serve, 1), 1);
    for _ in 0..100 {
        assert_ne!(ask.call(Where).await?, hung);
    }
    // More of them go to the thread that answers, too.
    serve.update_backend_config("ward", BackendUpdate::default().num_replicas(6)).await?;
    for answer in join_all((0..200).map(|_| ask.call(Where))).await {
        assert_ne!(answer?, hung);
    }
    drop(release);
    // It turns again, and has the fewest replicas.
    let mut replicas = 6;
    let mut threads = std::collections::BTreeSet::new();
    while threads.len() < 2 {
        replicas += 1;
        assert!(replicas < 40);
        serve.update_backend_config("ward", BackendUpdate::default().num_replicas(replicas)).await?;
        for answer in join_all((0..200).map(|_| ask.call(Where))).await {
            threads.insert(format!("{:?}", answer?));
        }
    }
    serve.shutdown().await
}

#[actix_web::test]
async fn a_dedicated_replica_that_hangs_is_replaced_and_one_that_answers_within_its_request_timeout_is_not()
-> Result<(), ServeError> {
    let serve = serve(1, quick().placement(Placement::Dedicated).request_timeout(s(30))).await;
    let (release, hung) = hang(&serve).await;
    sleep(ms(2500)).await;
    assert_eq!((generations(&serve), replicas(&serve)[0].failed_checks), (vec![1], 0), "it may be busy");
    let ask = serve.handle::<Where>("ward")?;
    release.send(()).unwrap();
    assert_eq!(ask.call(Where).await?, hung);
    serve.update_backend_config("ward", BackendUpdate::default().request_timeout(None)).await?;
    let (_release, hung) = hang(&serve).await;
    // It waits where the thread hangs, and then for the replacement.
    let thread = ask.call(Where).await?;
    assert_eq!(generations(&serve), [2]);
    assert_ne!(thread, hung);
    serve.shutdown().await
}
