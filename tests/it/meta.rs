//! What travels with a call is the same in the calls made for it, and current at every poll.

use std::time::Duration;

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Batch, Handle, Meta, ReplicaContext, Request, RequestId, ServeError,
    ServeOptions, ShardKey, testing::Stage,
};

use crate::noter::{House, Later, LaterAct, LaterAtomic, Note, here};

#[actix_web::test]
async fn id_trace_and_shard_key_are_the_same_in_every_composed_call_and_at_every_poll() {
    for options in [here(), ServeOptions::default().serving_threads(2.try_into().unwrap())] {
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
