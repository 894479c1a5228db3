//! Deploying configurations as a whole: planned, applied together or taken back, kept in a history.

mod failures;
mod kept;
mod load;
mod refusals;
mod taken_back;
mod turns;

use std::{path::Path, sync::Arc};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, BackendName, BackendUpdate, DeployOptions, Deployed, Plan, PlanAction,
    Reconfigure, ReplicaContext, Serve, ServeConfig, ServeError, Source, testing::Stage,
};
use serde::Deserialize;

use crate::support::Barrier;

/// Asks which model answers.
#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Which;

/// Answers with its number, and with what its `user_config` adds.
struct Model {
    number: u64,
    more: u64,
}

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Handler<Which> for Model {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Which, _: &mut Self::Context) -> Self::Result {
        Ok(self.number + self.more)
    }
}

impl Handler<Reconfigure<u64>> for Model {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Reconfigure(more): Reconfigure<u64>, _: &mut Self::Context) -> Self::Result {
        self.more = more;
        Ok(())
    }
}

fn model(number: u64) -> Backend<Model> {
    let model = Backend::new(move |_| Ok(Model { number, more: 0 }));
    model.json::<Which>().shadows::<Which>().reconfigure::<u64>()
}

/// One whose factory says that it is useless to try.
fn broken() -> Backend<Model> {
    let model = Backend::new(|_| Err(ServeError::invalid("weights", "they are corrupt").into()));
    model.json::<Which>().shadows::<Which>().reconfigure::<u64>()
}

/// One that has to be let in before it is ready.
struct Held(Barrier);

impl Actor for Held {
    type Context = ReplicaContext<Self>;
}

impl Handler<Which> for Held {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Which, _: &mut Self::Context) -> Self::Result {
        Ok(100)
    }
}

impl Handler<Reconfigure<u64>> for Held {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, _: Reconfigure<u64>, _: &mut Self::Context) -> Self::Result {
        let pass = self.0.pass();
        Box::pin(async move {
            pass.await;
            Ok(())
        })
    }
}

/// The code `one`, `two`, `broken`, `held` and, without HTTP, `typed`; what lets the replicas of `held` in.
fn register(serve: &Serve) -> Barrier {
    let barrier = Barrier::new();
    serve.register("one", model(1)).unwrap();
    serve.register("two", model(2)).unwrap();
    serve.register("broken", broken()).unwrap();
    serve.register("typed", Backend::from_fn(|_: Which| async { Ok(7) })).unwrap();
    let held = barrier.clone();
    let held = Backend::new(move |_| Ok(Held(held.clone()))).json::<Which>().reconfigure::<u64>();
    serve.register("held", held).unwrap();
    barrier
}

fn yaml(text: &str) -> ServeConfig {
    ServeConfig::from_yaml(text, Path::new(".")).unwrap()
}

/// `a` of `one` behind `e`, and `b` of `two` behind nothing.
fn first() -> ServeConfig {
    yaml(
        "backends:\n  - { name: a, registered: one }\n  - { name: b, registered: two }\n\
         endpoints:\n  - { name: e, route: /e, backend: a }\n",
    )
}

fn changed(change: impl FnOnce(&mut ServeConfig)) -> ServeConfig {
    let mut config = first();
    change(&mut config);
    config
}

fn scaled(replicas: u32) -> ServeConfig {
    changed(|config| config.backends[0].config.num_replicas = replicas)
}

async fn deploy(serve: &Serve, config: ServeConfig) -> Result<Deployed, ServeError> {
    serve.deploy(config, DeployOptions::default()).await
}

async fn which(serve: &Serve, endpoint: &str) -> Result<u64, ServeError> {
    serve.handle::<Which>(endpoint)?.call(Which).await
}

fn told(plan: &Plan) -> Vec<(PlanAction, &str)> {
    plan.steps.iter().map(|step| (step.action, step.name.as_str())).collect()
}

/// A stage with the code and the first configuration.
async fn staged() -> Result<(Stage, Barrier), ServeError> {
    let stage = Stage::new().await?;
    let barrier = register(stage.serve());
    deploy(stage.serve(), first()).await?;
    Ok((stage, barrier))
}

#[actix_web::test]
async fn all_that_is_declared_is_made_and_the_same_again_changes_nothing() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    register(serve);
    let planned = serve.plan(&first())?;
    assert!(serve.config().backends.is_empty(), "a plan changes nothing");
    let deployed = deploy(serve, first()).await?;
    assert_eq!((&deployed.plan, deployed.id), (&planned, 1));
    assert_eq!(
        told(&planned),
        [(PlanAction::Create, "a"), (PlanAction::Create, "b"), (PlanAction::Create, "e")]
    );
    assert_eq!(which(serve, "e").await?, 1);
    let again = deploy(serve, first()).await?;
    assert_eq!((again.plan, again.id), (Plan::default(), 1));
    assert_eq!(serve.history().len(), 1);
    assert_eq!((serve.config().backends, serve.config().endpoints), (first().backends, first().endpoints));
    assert_eq!(serve.plan(&serve.config())?, Plan::default());
    assert_eq!(serve.progress(), None);
    // Also where changes by hand led to what nobody can declare: a rule for the backend that serves all.
    serve.shadow_traffic("e", "b", 0.5).await?;
    serve.set_traffic("e", [("b", 1.0)]).await?;
    assert_eq!(serve.plan(&serve.config())?, Plan::default());
    stage.end().await
}

#[actix_web::test]
async fn what_the_program_made_by_itself_is_a_registered_backend() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    serve.create_backend("mine", model(5), BackendConfig::default()).await?;
    let config = serve.config();
    assert_eq!(config.backends[0].source, Source::Registered { name: BackendName::new("mine")? });
    assert_eq!(deploy(serve, config.clone()).await?.plan, Plan::default());
    // Also when it is gone, and comes back by the history.
    deploy(serve, ServeConfig::default()).await?;
    assert!(serve.list_backends().is_empty());
    serve.rollback(None, DeployOptions::default()).await?;
    assert_eq!(serve.config(), config);
    stage.end().await
}

#[actix_web::test]
async fn the_code_of_a_backend_that_nobody_can_come_back_to_is_let_go() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    register(serve);
    let heavy = Arc::new(());
    let made = |heavy: Arc<()>| {
        Backend::new(move |_| {
            let _held = &heavy;
            Ok(Model { number: 1, more: 0 })
        })
        .handles::<Which>()
    };
    serve.create_backend("mine", made(heavy.clone()), BackendConfig::default()).await?;
    serve.delete_backend("mine", false).await?;
    assert_eq!(Arc::strong_count(&heavy), 1);
    serve.create_backend("mine", made(heavy.clone()), BackendConfig::default()).await?;
    deploy(serve, serve.config()).await?;
    serve.delete_backend("mine", false).await?;
    assert!(Arc::strong_count(&heavy) > 1, "the history has it");
    serve.rollback(Some(1), DeployOptions::default()).await?;
    // What is registered stays, also when a backend was made under its name.
    serve.create_backend("two", model(2), BackendConfig::default()).await?;
    serve.delete_backend("two", false).await?;
    for n in 0..u32::try_from(greenroom::HISTORY_MAX).unwrap() {
        deploy(serve, scaled(n % 2 + 1)).await?;
    }
    assert_eq!(Arc::strong_count(&heavy), 1);
    stage.end().await
}

#[actix_web::test]
async fn other_code_under_the_same_name_is_rolled_out_unless_the_version_says_that_it_is_the_same()
-> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let serve = stage.serve();
    serve.register("one", model(11))?;
    assert_eq!(serve.plan(&first())?.to_string(), "roll  backend   a  its code has changed");
    deploy(serve, first()).await?;
    assert_eq!(which(serve, "e").await?, 11);
    let versioned = changed(|config| config.backends[0].config.version = Some("1".into()));
    deploy(serve, versioned.clone()).await?;
    serve.register("one", model(12))?;
    assert_eq!(deploy(serve, versioned).await?.plan, Plan::default());
    assert_eq!(which(serve, "e").await?, 11);
    stage.end().await
}

#[actix_web::test]
async fn an_earlier_configuration_comes_back_as_a_new_entry_of_the_history() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let serve = stage.serve();
    let how = DeployOptions::default;
    let error = serve.rollback(None, how()).await.unwrap_err().to_string();
    assert!(error.contains("none before the present one"), "{error}");
    for replicas in [2, 3] {
        deploy(serve, scaled(replicas)).await?;
    }
    let replicas = || serve.get_backend_config("a").unwrap().num_replicas;
    assert_eq!(serve.rollback(None, how()).await?.id, 4);
    assert_eq!(replicas(), 2);
    assert_eq!(serve.rollback(Some(1), how()).await?.id, 5);
    assert_eq!(replicas(), 1);
    let told: Vec<_> = serve.history().iter().map(|entry| (entry.id, entry.by.clone())).collect();
    let by = ["deploy", "deploy", "deploy", "rollback to 2", "rollback to 1"];
    assert_eq!(told, (1..).zip(by.map(str::to_owned)).collect::<Vec<_>>());
    let times: Vec<_> = serve.history().iter().map(|entry| entry.at).collect();
    assert!(times[0] > 1.7e9 && times.is_sorted(), "{times:?}");
    let error = serve.rollback(Some(9), how()).await.unwrap_err().to_string();
    assert!(error.ends_with("there is no 9 in the history; it holds: 1, 2, 3, 4, 5"), "{error}");
    stage.end().await
}

#[actix_web::test]
async fn what_was_changed_by_hand_is_told_before_it_is_overwritten() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let serve = stage.serve();
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(2)).await?;
    serve.set_traffic("e", [("b", 1.0)]).await?;
    let plan = serve.plan(&first())?;
    assert_eq!(told(&plan), [(PlanAction::Scale, "a"), (PlanAction::SetTraffic, "e")]);
    let drift: Vec<_> = plan.drift.iter().map(|drift| drift.what[0].text.as_str()).collect();
    assert_eq!(drift, ["num_replicas: 1 -> 2", "traffic: {\"a\":1.0} -> {\"b\":1.0}"]);
    deploy(serve, first()).await?;
    assert_eq!(which(serve, "e").await?, 1);
    assert_eq!(serve.plan(&first())?, Plan::default());
    stage.end().await
}
