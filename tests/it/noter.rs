//! An actor that notes what travels with its calls, and a row of them that call each other.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt, AtomicResponse, Handler, Message, ResponseActFuture, ResponseFuture, fut,
};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Meta, ReplicaContext, Request, Serve, ServeError, ServeOptions,
};
use tokio::time::Instant;

use crate::support::Barrier;

pub type Told = Result<(), ServeError>;
macro_rules! messages {
    ($($name:ident)+) => { $(
        #[derive(Message)]
        #[rtype(result = "Told")]
        pub struct $name;
    )+ };
}
messages!(Note Later LaterAct LaterAtomic);

/// What a handler saw of its call, at each of its polls.
pub type Seen = Arc<Mutex<Vec<(&'static str, Option<Meta>)>>>;

/// Notes the meta of its calls, before and after an await, then asks the next endpoint, if any.
pub struct Noter {
    name: &'static str,
    seen: Seen,
    next: Option<Handle<Later>>,
    barrier: Barrier,
}

impl Actor for Noter {
    type Context = ReplicaContext<Self>;
}

impl Noter {
    fn go_on(&self) -> impl Future<Output = Told> + use<> {
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

/// A Serve with backends that note what they see.
pub struct House {
    pub serve: Serve,
    pub seen: Seen,
    pub barrier: Barrier,
}

impl House {
    /// `gateway`, which asks `a`, which asks `b`.
    pub async fn new(options: ServeOptions) -> Self {
        let serve = Serve::start(options).await.unwrap();
        let house = Self { serve, seen: Seen::default(), barrier: Barrier::new() };
        house.add("gateway", Some("a"), BackendConfig::default()).await;
        house.add("a", Some("b"), BackendConfig::default()).await;
        house.add("b", None, BackendConfig::default()).await;
        house
    }

    pub async fn add(&self, name: &'static str, next: Option<&'static str>, config: BackendConfig) {
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

    pub fn handle<M: Request>(&self, name: &str) -> Handle<M> {
        self.serve.handle(name).unwrap()
    }

    pub fn deadlines(&self, of: &str) -> Vec<Option<Instant>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| *name == of).map(|(_, meta)| meta.as_ref().unwrap().deadline).collect()
    }
}

/// Everything on the test's own thread.
pub fn here() -> ServeOptions {
    ServeOptions::default().current_thread()
}
