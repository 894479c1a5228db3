//! A backend's own configuration: taken before the first call, changed in place, and kept when it is refused.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{Actor, AsyncContext, Handler, Message, ResponseActFuture, WrapFuture, fut::ActorFutureExt};
use futures_util::future::join_all;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Handle, Reconfigure, ReplicaContext, ServeError, testing::Stage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{Barrier, MEANT, quiet_panics, until};

mod forms;
mod stuck;
mod under_load;
mod undone;

/// What the code here takes.
#[derive(Clone, Debug, Deserialize)]
struct Colour {
    name: String,
}

fn colour(name: &str) -> Value {
    json!({ "name": name })
}

fn paint(name: &str) -> BackendUpdate {
    BackendUpdate::default().user_config(colour(name))
}

/// What a replica tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Seen {
    colour: String,
    /// Calls handled by this state.
    calls: u64,
    /// The replica's slot and generation.
    slot: u32,
    generation: u64,
}

#[derive(Message, Deserialize)]
#[rtype(result = "Result<Seen, ServeError>")]
struct Look;

/// Looks before it waits and after it: both must be the same.
#[derive(Message)]
#[rtype(result = "Result<(String, String), ServeError>")]
struct LookTwice;

#[derive(Message)]
#[rtype(result = "Result<Seen, ServeError>")]
struct Fall;

/// What the replicas of one backend have in common.
#[derive(Clone)]
struct Studio {
    /// Holds calls of `LookTwice` back.
    calls: Barrier,
    /// Holds asynchronous changes back.
    changes: Barrier,
    made: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
}

impl Studio {
    fn new() -> Self {
        Self { calls: Barrier::new(), changes: Barrier::new(), made: Arc::default(), taken: Arc::default() }
    }

    fn backend(&self) -> Backend<Painter> {
        let studio = self.clone();
        let painter = Backend::new(move |ctx| {
            studio.made.fetch_add(1, SeqCst);
            let id = ctx.replica_id();
            let seen = Seen { colour: "none".into(), calls: 0, slot: id.slot, generation: id.generation };
            Ok(Painter { seen, studio: studio.clone() })
        });
        painter.json::<Look>().handles::<LookTwice>().handles::<Fall>().reconfigure::<Colour>()
    }

    /// Configurations taken so far.
    fn taken(&self) -> u64 {
        self.taken.load(SeqCst)
    }

    /// States made so far.
    fn made(&self) -> u64 {
        self.made.load(SeqCst)
    }
}

struct Painter {
    seen: Seen,
    studio: Studio,
}

impl Actor for Painter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Reconfigure<Colour>> for Painter {
    type Result = ResponseActFuture<Self, Result<(), ServeError>>;
    fn handle(&mut self, Reconfigure(colour): Reconfigure<Colour>, ctx: &mut Self::Context) -> Self::Result {
        if colour.name.ends_with("struck") {
            // Not the handler's own future.
            ctx.spawn(async {}.into_actor(self).map(|(), _, _| panic!("{MEANT}")));
        }
        let slow = colour.name.starts_with("slow");
        let passed = slow.then(|| self.studio.changes.pass());
        let stage = async move {
            if let Some(passed) = passed {
                passed.await;
            }
            colour
        };
        Box::pin(stage.into_actor(self).map(|colour, painter, _| {
            // Of several replicas one may refuse what the others take.
            match colour.name.strip_prefix("refused by ") {
                Some(slot) if slot == painter.seen.slot.to_string() => {
                    Err(ServeError::backend(422, "ugly", "this colour is ugly"))
                }
                Some(_) | None => {
                    assert!(!colour.name.contains("panic"), "{MEANT}");
                    painter.studio.taken.fetch_add(1, SeqCst);
                    painter.seen.colour = colour.name;
                    Ok(())
                }
            }
        }))
    }
}

impl Handler<Look> for Painter {
    type Result = Result<Seen, ServeError>;
    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        self.seen.calls += 1;
        Ok(self.seen.clone())
    }
}

impl Handler<Fall> for Painter {
    type Result = Result<Seen, ServeError>;
    fn handle(&mut self, _: Fall, _: &mut Self::Context) -> Self::Result {
        panic!("{MEANT}");
    }
}

impl Handler<LookTwice> for Painter {
    type Result = ResponseActFuture<Self, Result<(String, String), ServeError>>;
    fn handle(&mut self, _: LookTwice, _: &mut Self::Context) -> Self::Result {
        let first = self.seen.colour.clone();
        let passed = self.studio.calls.pass();
        Box::pin(passed.into_actor(self).map(|(), painter, _| Ok((first, painter.seen.colour.clone()))))
    }
}

fn red() -> BackendConfig {
    BackendConfig::default().user_config(colour("red"))
}

/// The colours that calls see which go to every replica.
async fn colours(handle: &Handle<Look>, replicas: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for _ in 0..1000 * replicas {
        let look = handle.call(Look).await.unwrap();
        seen.insert(look.colour);
        slots.insert(look.slot);
        if slots.len() == replicas {
            return seen;
        }
    }
    panic!("only {slots:?} of {replicas} were seen");
}

fn only(colour: &str) -> BTreeSet<String> {
    BTreeSet::from([colour.to_owned()])
}

#[actix_web::test]
async fn the_first_call_of_a_replica_sees_the_configuration() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    let seen = Seen { colour: "red".into(), calls: 1, slot: 0, generation: 1 };
    assert_eq!(look.call(Look).await?, seen);
    let shown = stage.serve().get_backend_config("painter")?.user_config;
    assert_eq!(shown.unwrap().json(), &colour("red"));
    let status = serde_json::to_value(stage.serve().status()).unwrap();
    assert_eq!(status["backends"][0]["config"]["user_config"], colour("red"));
    stage.end().await
}

#[actix_web::test]
async fn replicas_that_come_later_and_states_made_again_get_the_latest_configuration()
-> Result<(), ServeError> {
    quiet_panics();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    stage.serve().update_backend_config("painter", paint("blue")).await?;
    stage.serve().update_backend_config("painter", BackendUpdate::default().num_replicas(3)).await?;
    assert_eq!(colours(&look, 3).await, only("blue"));
    assert_eq!(studio.taken(), 4, "an update of something else reconfigures nobody");
    let fall = stage.serve().handle::<Fall>("painter")?;
    for _ in 0..30 {
        assert_eq!(fall.call(Fall).await.unwrap_err().code(), "panicked");
        assert_eq!(look.call(Look).await?.colour, "blue");
    }
    assert_eq!(colours(&look, 3).await, only("blue"));
    stage.end().await
}

#[actix_web::test]
async fn with_more_replicas_in_the_same_update_all_get_the_new_one() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    stage.serve().update_backend_config("painter", paint("blue").num_replicas(4)).await?;
    assert_eq!(colours(&look, 4).await, only("blue"));
    assert_eq!((studio.made(), studio.taken()), (4, 5), "only the first one was reconfigured");
    stage.end().await
}

#[actix_web::test]
async fn a_change_in_place_keeps_everything_else_of_the_state() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    for calls in 1..=5 {
        assert_eq!(look.call(Look).await?.calls, calls);
    }
    stage.serve().update_backend_config("painter", paint("blue")).await?;
    let seen = Seen { colour: "blue".into(), calls: 6, slot: 0, generation: 1 };
    assert_eq!(look.call(Look).await?, seen);
    assert_eq!(studio.made(), 1);
    stage.end().await
}

#[actix_web::test]
async fn the_same_configuration_again_reconfigures_nobody() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let _look: Handle<Look> = stage.replicas("painter", studio.backend(), red()).await?;
    stage.serve().update_backend_config("painter", paint("red")).await?;
    let more = BackendUpdate::default().max_concurrent_queries(7);
    stage.serve().update_backend_config("painter", more).await?;
    assert_eq!(studio.taken(), 1);
    stage.end().await
}

#[actix_web::test]
async fn without_one_from_now_on_the_states_are_made_anew_and_no_restart_is_counted() -> Result<(), ServeError>
{
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red().num_replicas(2)).await?;
    let none = BackendUpdate::default().user_config(None);
    stage.serve().update_backend_config("painter", none).await?;
    assert_eq!(colours(&look, 2).await, only("none"));
    assert_eq!((studio.made(), stage.serve().get_backend_config("painter")?.user_config), (4, None));
    let labels = "backend=\"painter\",replica=\"0\"";
    assert_eq!(crate::support::metric(stage.serve(), "serve_replica_restarts_total", labels), 0);
    stage.end().await
}

#[actix_web::test]
async fn thirty_calls_in_flight_see_the_old_configuration_to_their_end_and_the_next_the_new()
-> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    let twice = stage.serve().handle::<LookTwice>("painter")?;
    let running: Vec<_> = (0..30).map(|_| twice.call(LookTwice)).collect();
    until("all run", || studio.calls.inside() == 30).await;
    let serve = stage.serve().clone();
    let update =
        actix_web::rt::spawn(async move { serve.update_backend_config("painter", paint("blue")).await });
    // Long, and less than the time that they are given.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let late: Vec<_> = (0..30).map(|_| look.call(Look)).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!update.is_finished() && studio.taken() == 1, "it waits for what runs");
    studio.calls.release(30);
    for seen in join_all(running).await {
        assert_eq!(seen?, ("red".into(), "red".into()));
    }
    update.await.unwrap()?;
    for (i, seen) in join_all(late).await.into_iter().enumerate() {
        let seen = seen?;
        assert_eq!((&*seen.colour, seen.calls), ("blue", i as u64 + 1));
    }
    stage.end().await
}
