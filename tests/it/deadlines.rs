//! Deadlines and what else travels with a call: inherited by the calls made for it, current at every poll.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt, AtomicResponse, Handler, Message, ResponseActFuture, ResponseFuture, fut,
};
use greenroom::{
    Backend, BackendConfig, Batch, Endpoint, Handle, Meta, ReplicaContext, Request, RequestId, Route, Serve,
    ServeError, ServeOptions, ShardKey, testing::Stage,
};
use tokio::time::Instant;

use crate::support::{Barrier, until};

type Told = Result<(), ServeError>;
macro_rules! messages {
    ($($name:ident)+) => { $(
        #[derive(Message)]
        #[rtype(result = "Told")]
        struct $name;
    )+ };
}
messages!(Note Later LaterAct LaterAtomic);

/// What a handler saw of its call, at each of its polls.
type Seen = Arc<Mutex<Vec<(&'static str, Option<Meta>)>>>;

/// Notes the meta of its calls, before and after an await, then asks the next endpoint, if any.
struct Noter {
    name: &'static str,
    seen: Seen,
    next: Option<Handle<Later>>,
    barrier: Barrier,
}

impl Actor for Noter {
    type Context = ReplicaContext<Self>;
}

impl Noter {
    fn go_on(&self) -> impl std::future::Future<Output = Told> + use<> {
        let (name, seen, next, pass) =
            (self.name, Arc::clone(&self.seen), self.next.clone(), self.barrier.pass());
        let note = move || seen.lock().unwrap().push((name, Meta::current()));
        async move {
            note();
            tokio::task::yield_now().await;
            note();
            tokio::time::sleep(Duration::from_millis(1)).await;
            note();
            match next {
                Some(next) => next.call(Later).await,
                None => {
                    pass.await;
                    Ok(())
                }
            }
        }
    }
}

impl Handler<Note> for Noter {
    type Result = Told;
    fn handle(&mut self, _: Note, ctx: &mut Self::Context) -> Told {
        self.seen.lock().unwrap().push((self.name, ctx.request_meta()));
        Ok(())
    }
}
impl Handler<Later> for Noter {
    type Result = ResponseFuture<Told>;
    fn handle(&mut self, _: Later, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.go_on())
    }
}
impl Handler<LaterAct> for Noter {
    type Result = ResponseActFuture<Self, Told>;
    fn handle(&mut self, _: LaterAct, _: &mut Self::Context) -> Self::Result {
        let noted = |told, noter: &mut Self, ctx: &mut Self::Context| {
            noter.seen.lock().unwrap().push((noter.name, ctx.request_meta()));
            told
        };
        Box::pin(fut::wrap_future::<_, Self>(self.go_on()).map(noted))
    }
}
impl Handler<LaterAtomic> for Noter {
    type Result = AtomicResponse<Self, Told>;
    fn handle(&mut self, _: LaterAtomic, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(fut::wrap_future::<_, Self>(self.go_on())))
    }
}

struct House {
    serve: Serve,
    seen: Seen,
    barrier: Barrier,
}

impl House {
    /// `gateway`, which asks `a`, which asks `b`.
    async fn new(options: ServeOptions) -> Self {
        let serve = Serve::start(options).await.unwrap();
        let house = Self { serve, seen: Seen::default(), barrier: Barrier::new() };
        house.add("gateway", Some("a"), BackendConfig::default()).await;
        house.add("a", Some("b"), BackendConfig::default()).await;
        house.add("b", None, BackendConfig::default()).await;
        house
    }

    async fn add(&self, name: &'static str, next: Option<&'static str>, config: BackendConfig) {
        let (seen, barrier) = (Arc::clone(&self.seen), self.barrier.clone());
        let backend = Backend::new(move |ctx| {
            let next = next.map(|next| ctx.handle(next)).transpose()?;
            Ok(Noter { name, next, seen: Arc::clone(&seen), barrier: barrier.clone() })
        });
        let backend =
            backend.handles::<Note>().handles::<Later>().handles::<LaterAct>().handles::<LaterAtomic>();
        self.serve.create_backend(name, backend, config).await.unwrap();
        self.serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
    }

    fn handle<M: Request>(&self, name: &str) -> Handle<M> {
        self.serve.handle(name).unwrap()
    }

    fn deadlines(&self, of: &str) -> Vec<Option<Instant>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| *name == of).map(|(_, meta)| meta.as_ref().unwrap().deadline).collect()
    }
}

fn here() -> ServeOptions {
    ServeOptions::default().current_thread()
}

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
    let serve = Serve::start(ServeOptions::default().serving_threads(1.try_into().unwrap())).await.unwrap();
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
    let seen = house.seen.lock().unwrap();
    for n in 0..10 {
        let own = seen.iter().filter(|(_, meta)| meta.as_ref().unwrap().request_id == id(n)).count();
        assert_eq!(own, 4);
    }
    drop(seen);
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
