//! Where a call goes: the one backend, the changed one, the replica with room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use actix::{Actor, Handler, ResponseFuture};
use greenroom::{Backend, BackendConfig, Endpoint, Meta, ReplicaContext, ServeError};

use super::{Name, Pass, ask, create_named, here};
use crate::support::{Barrier, until};

#[actix_web::test]
async fn a_call_reaches_the_backend_with_its_message_its_request_id_and_its_shard_key() {
    let serve = here().await;
    let told = Arc::<Mutex<Vec<_>>>::default();
    let tell = Arc::clone(&told);
    let backend = Backend::from_fn(move |Pass(n)| {
        let meta = Meta::current().unwrap();
        let key = meta.shard_key.map(|key| key.as_str().to_owned());
        tell.lock().unwrap().push((n, meta.request_id.to_string(), key));
        async move { Ok(n) }
    });
    serve.create_backend("b", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Pass>("e").unwrap();
    assert_eq!(handle.call(Pass(1)).await, Ok(1));
    assert_eq!(handle.options().shard_key("k").call(Pass(2)).await, Ok(2));
    let told = told.lock().unwrap();
    assert_eq!((told[0].0, &told[0].2), (1, &None));
    assert_eq!((told[1].0, told[1].2.as_deref()), (2, Some("k")));
    assert_ne!(told[0].1, told[1].1, "each call has its own id");
}

#[actix_web::test]
async fn after_a_change_of_traffic_the_next_call_goes_to_the_new_backend() {
    let serve = here().await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Name>("e").unwrap();
    for _ in 0..20 {
        for name in ["b", "a"] {
            serve.set_traffic("e", [(name, 1.0)]).await.unwrap();
            assert_eq!(handle.call(Name {}).await, Ok(name), "an old handle too");
            assert_eq!(ask(&serve, "e").await, Ok(name));
        }
    }
    serve.shutdown().await.unwrap();
}

/// Lets calls wait and tells which replica has them.
struct Porter(Barrier);

impl Actor for Porter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Pass> for Porter {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, _: Pass, ctx: &mut Self::Context) -> Self::Result {
        let (pass, slot) = (self.0.pass(), ctx.replica_id().slot);
        Box::pin(async move {
            pass.await;
            Ok(slot.into())
        })
    }
}

#[actix_web::test]
async fn with_a_limit_of_one_on_each_of_two_replicas_the_third_call_waits_for_the_first_to_end() {
    let serve = here().await;
    let barrier = Barrier::new();
    let held = barrier.clone();
    let backend = Backend::new(move |_| Ok(Porter(held.clone()))).handles::<Pass>();
    let config = BackendConfig::default().num_replicas(2).max_concurrent_queries(1);
    serve.create_backend("b", backend, config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Pass>("e").unwrap();
    let calls: Vec<_> = (0..3).map(|n| handle.call(Pass(n))).collect();
    until("two run", || barrier.inside() == 2).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!((barrier.began(), barrier.most()), (2, 2), "the third has not begun");
    barrier.release(3);
    let mut answered = BTreeMap::new();
    for slot in futures_util::future::try_join_all(calls).await.unwrap() {
        *answered.entry(slot).or_insert(0) += 1;
    }
    let counts: BTreeSet<_> = answered.into_values().collect();
    assert_eq!((counts, barrier.most()), (BTreeSet::from([1, 2]), 2));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn past_the_queue_s_limit_a_call_is_refused_at_once() {
    let serve = here().await;
    let barrier = Barrier::new();
    let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(2);
    super::create_held(&serve, "e", &barrier, config).await;
    let handle = serve.handle::<Pass>("e").unwrap();
    let calls: Vec<_> = (0..3).map(|n| handle.call(Pass(n))).collect();
    let refused = handle.call(Pass(3)).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), ("overloaded", true));
    barrier.release(3);
    assert_eq!(futures_util::future::join_all(calls).await, [Ok(0), Ok(1), Ok(2)]);
    serve.shutdown().await.unwrap();
}
