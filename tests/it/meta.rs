//! What travels with a call is the same in the calls made for it, and current at every poll.

use std::time::Duration;

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Batch, Handle, Meta, ReplicaContext, Request, RequestId, ServeError, ShardKey,
    testing::Stage,
};

use tokio::time::Instant;

use crate::{
    noter::{House, Later, LaterAct, LaterAtomic, Note, here},
    support::{Barrier, until},
};

#[actix_web::test]
async fn id_trace_and_shard_key_are_the_same_in_every_composed_call_and_at_every_poll() {
    for options in [here(), crate::support::uncounted().serving_threads(2.try_into().unwrap())] {
        let house = House::new(options).await;
        house.barrier.release(1000);
        async fn one<M: Request<Response = ()>>(house: &House, msg: M, polls: usize) {
            house.seen.lock().unwrap().clear();
            let id = RequestId::given("an-id").unwrap();
            let handle = house.handle::<M>("gateway").options().request_id(id.clone()).shard_key("a key");
            handle.call(msg).await.unwrap();
            let seen = house.seen.lock().unwrap();
            assert_eq!(seen.len(), polls);
            for (name, meta) in seen.iter() {
                let meta = meta.as_ref().unwrap_or_else(|| panic!("{name} had none"));
                assert_eq!(meta.request_id, id, "{name}");
                assert_eq!(meta.shard_key, Some(ShardKey::new("a key")), "{name}");
            }
        }
        one(&house, Note, 1).await;
        one(&house, Later, 9).await;
        one(&house, LaterAct, 10).await;
        one(&house, LaterAtomic, 9).await;
        assert!(Meta::current().is_none(), "outside of a handler there is none");
        house.serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn calls_that_are_polled_by_turns_keep_their_own() {
    let house = House::new(here()).await;
    house.barrier.release(1000);
    let id = |n: usize| RequestId::given(&format!("id-{n}")).unwrap();
    let calls: Vec<_> =
        (0..10).map(|n| house.handle::<LaterAct>("b").options().request_id(id(n)).call(LaterAct)).collect();
    for call in calls {
        call.await.unwrap();
    }
    let seen = house.seen.lock().unwrap().clone();
    for n in 0..10 {
        let own = seen.iter().filter(|(_, meta)| meta.as_ref().unwrap().request_id == id(n)).count();
        assert_eq!(own, 4);
    }
    house.serve.shutdown().await.unwrap();
}

#[derive(Message)]
#[rtype(result = "Result<String, ServeError>")]
struct WhoAmI;

#[actix_web::test]
async fn each_item_of_a_batch_has_its_own() {
    struct Teller;
    impl Actor for Teller {
        type Context = ReplicaContext<Self>;
    }
    impl Handler<Batch<WhoAmI>> for Teller {
        type Result = Result<Vec<Result<String, ServeError>>, ServeError>;
        fn handle(&mut self, batch: Batch<WhoAmI>, _: &mut Self::Context) -> Self::Result {
            Ok(batch.metas().iter().map(|meta| Ok(meta.request_id.to_string())).collect())
        }
    }
    let stage = Stage::new().await.unwrap();
    let config = BackendConfig::default().max_batch_size(8).batch_wait_timeout(Duration::from_millis(5));
    let handle: Handle<WhoAmI> =
        stage.replicas("teller", Backend::new(|_| Ok(Teller)).batched::<WhoAmI>(), config).await.unwrap();
    let id = |n: usize| format!("id-{n}");
    let calls: Vec<_> =
        (0..8).map(|n| handle.options().request_id(RequestId::given(&id(n)).unwrap()).call(WhoAmI)).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await, Ok(id(n)));
    }
    stage.end().await.unwrap();
}

#[derive(Message, Clone)]
#[rtype(result = "Result<Meta, ServeError>")]
struct Look;

/// Answers what it was asked with; in batches, what a child is asked with for each item.
struct Asker {
    child: Option<Handle<Look>>,
}
impl Actor for Asker {
    type Context = ReplicaContext<Self>;
}
impl Handler<Look> for Asker {
    type Result = ResponseFuture<Result<Meta, ServeError>>;
    fn handle(&mut self, look: Look, ctx: &mut Self::Context) -> Self::Result {
        let meta = ctx.request_meta().unwrap();
        let Some(child) = self.child.clone() else { return Box::pin(std::future::ready(Ok(meta))) };
        let child = child.meta(meta);
        #[expect(clippy::disallowed_methods, reason = "it loses the meta, which here is carried by hand")]
        let asked = tokio::spawn(async move {
            assert!(Meta::current().is_none());
            child.call(look).await
        });
        Box::pin(async move { asked.await.unwrap() })
    }
}
impl Handler<Batch<Look>> for Asker {
    type Result = ResponseFuture<Result<Vec<Result<Meta, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Look>, _: &mut Self::Context) -> Self::Result {
        let child = self.child.clone().unwrap();
        let (looks, metas) = batch.into_parts();
        let asks = looks.into_iter().zip(metas).map(|(look, meta)| child.options().meta(meta).call(look));
        let asks = futures_util::future::join_all(asks.collect::<Vec<_>>());
        Box::pin(async move { Ok(asks.await) })
    }
}

/// A child, and who asks it as `ask` does with this timeout of its own.
async fn asker(timeout: Duration, config: BackendConfig) -> (Stage, Handle<Look>) {
    let stage = Stage::new().await.unwrap();
    let child = Backend::new(|_| Ok(Asker { child: None })).handles::<Look>();
    stage.replica::<_, Look>("child", child).await.unwrap();
    let parent = Backend::new(move |ctx| {
        let child: Handle<Look> = ctx.handle("child")?;
        Ok(Asker { child: Some(child.timeout(timeout)) })
    });
    let parent = parent.handles::<Look>().batched::<Look>();
    let handle = stage.replicas("parent", parent, config).await.unwrap();
    (stage, handle)
}

#[actix_web::test]
async fn a_meta_carried_by_hand_makes_a_child_of_the_request_with_the_tightest_deadline() {
    for (own, want) in [(9, 3), (1, 1)] {
        let (stage, handle) = asker(Duration::from_secs(own), BackendConfig::default()).await;
        tokio::time::pause();
        let at = |secs| Some(Instant::now() + Duration::from_secs(secs));
        let id = RequestId::given("an-id").unwrap();
        let parent = handle.request_id(id.clone()).shard_key("a key").timeout(Duration::from_secs(3));
        let seen = parent.call(Look).await.unwrap();
        assert_eq!((seen.request_id, seen.shard_key), (id, Some(ShardKey::new("a key"))));
        assert_eq!(seen.deadline, at(want), "{own}");
        tokio::time::resume();
        stage.end().await.unwrap();
    }
}

#[actix_web::test]
async fn what_is_set_beside_a_meta_goes_before_it_but_for_its_deadline() {
    let (stage, _) = asker(Duration::from_secs(9), BackendConfig::default()).await;
    let child = stage.serve().handle::<Look>("child").unwrap();
    let mut given = Meta::new();
    given.tighten(Instant::now() + Duration::from_secs(5));
    given.trace = Some("a trace".into());
    let id = RequestId::given("other").unwrap();
    let seen = child.request_id(id.clone()).timeout(Duration::from_secs(90)).meta(given.clone()).call(Look);
    let seen = seen.await.unwrap();
    assert_eq!((seen.request_id, seen.trace, seen.deadline), (id, given.trace, given.deadline));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn each_item_of_a_batch_makes_child_calls_of_its_own() {
    let config = BackendConfig::default().max_batch_size(3).batch_wait_timeout(Duration::from_millis(5));
    let (stage, handle) = asker(Duration::from_secs(90), config).await;
    tokio::time::pause();
    let begun = Instant::now();
    let id = |n: u64| RequestId::given(&format!("id-{n}")).unwrap();
    let ask = |n: u64| handle.options().request_id(id(n)).timeout(Duration::from_secs(n)).call(Look);
    let asks: Vec<_> = (1..=3).map(ask).collect();
    for (n, ask) in (1..).zip(asks) {
        let seen = ask.await.unwrap();
        assert_eq!((seen.request_id, seen.deadline), (id(n), Some(begun + Duration::from_secs(n))));
    }
    tokio::time::resume();
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn what_is_done_for_a_running_request_may_call_others_while_the_serve_ends() {
    let (stage, _) = asker(Duration::from_secs(9), BackendConfig::default()).await;
    let barrier = Barrier::new();
    let held = barrier.clone();
    stage
        .fake("held", move |_: Look| {
            let (pass, meta) = (held.pass(), Meta::current().unwrap());
            async move {
                pass.await;
                Ok(meta)
            }
        })
        .await
        .unwrap();
    let running = stage.serve().handle::<Look>("held").unwrap().call(Look);
    until("it runs", || barrier.inside() == 1).await;
    let child = stage.serve().handle::<Look>("child").unwrap();
    let during = async {
        // The end has begun by now: it was polled first.
        let fresh = child.call(Look).await;
        let carried = child.options().meta(Meta::new()).call(Look).await;
        barrier.release(1);
        (fresh, carried)
    };
    let (ended, (fresh, carried)) = tokio::join!(stage.serve().shutdown(), during);
    ended.unwrap();
    assert!(running.await.is_ok());
    assert_eq!(fresh.map(drop), Err(ServeError::ShuttingDown));
    assert!(carried.is_ok());
    let after = child.options().meta(Meta::new()).call(Look).await;
    assert_eq!(after.map(drop), Err(ServeError::ShuttingDown));
}
