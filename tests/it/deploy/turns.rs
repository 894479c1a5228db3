//! One deploy at a time, and no changes by hand beside it; it goes on whoever waits for it.

use futures_util::FutureExt;
use greenroom::{DeployState, Endpoint, Progress};

use super::*;
use crate::support::until;

/// The first configuration and a backend that is let in by the barrier.
fn with_held() -> ServeConfig {
    changed(|config| {
        let held = "backends: [{ name: held, registered: held, user_config: 1, num_replicas: 2 }]";
        config.backends.extend(yaml(held).backends);
    })
}

#[actix_web::test]
async fn beside_a_deploy_nothing_else_is_changed_and_its_progress_is_told() -> Result<(), ServeError> {
    let (stage, barrier) = staged().await?;
    let serve = stage.serve().clone();
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { serve.deploy(with_held(), DeployOptions::default().by("a test")).await }
    });
    until("both are made", || barrier.inside() == 2).await;
    let Progress { number, by, state, done, all, waits_for, for_s } = serve.progress().unwrap();
    assert_eq!((by.as_str(), state, done, all), ("a test", DeployState::Applying, 0, 1));
    assert_eq!(waits_for.as_deref(), Some("held: 0 of 2 replicas ready"));
    assert!(for_s > 0.0 && number == 2, "{number}");
    barrier.release(1);
    until("one is ready", || {
        serve.progress().unwrap().waits_for.as_deref() == Some("held: 1 of 2 replicas ready")
    })
    .await;
    let scale = BackendUpdate::default().num_replicas(2);
    let refusals = [
        deploy(&serve, first()).await.map(drop),
        serve.rollback(Some(1), DeployOptions::default()).await.map(drop),
        serve.update_backend_config("a", scale.clone()).await,
        serve.create_backend("mine", model(3), BackendConfig::default()).await,
        serve.delete_backend("b", true).await,
        serve.set_traffic("e", [("b", 1.0)]).await,
        serve.shadow_traffic("e", "b", 0.5).await,
        serve.create_endpoint("mine", Endpoint::new("b")).await,
        serve.delete_endpoint("e").await,
    ];
    for refused in refusals {
        assert_eq!(refused, Err(ServeError::DeployInProgress));
    }
    assert_eq!(which(&serve, "e").await?, 1, "what there is serves on");
    barrier.release(1);
    assert_eq!(deploying.await.unwrap()?.id, 2);
    assert_eq!(serve.progress(), None);
    serve.update_backend_config("a", scale).await?;
    stage.end().await
}

#[actix_web::test]
async fn a_deploy_waits_for_the_change_by_hand_that_was_there_before_also_when_nobody_else_does()
-> Result<(), ServeError> {
    let (stage, barrier) = staged().await?;
    let serve = stage.serve().clone();
    let held = Backend::new({
        let barrier = barrier.clone();
        move |_| Ok(Held(barrier.clone()))
    });
    let held = held.json::<Which>().reconfigure::<u64>();
    let config = BackendConfig::default().user_config(serde_json::json!(1));
    let by_hand = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { serve.create_backend("by-hand", held, config).await }
    });
    until("it is made", || barrier.inside() == 1).await;
    // Its caller leaves.
    by_hand.abort();
    assert!(by_hand.await.unwrap_err().is_cancelled());
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { deploy(&serve, scaled(2)).await }
    });
    until("the deploy waits", || serve.progress().is_some()).await;
    for _ in 0..10 {
        assert_eq!(serve.progress().unwrap().state, DeployState::Preparing);
        tokio::task::yield_now().await;
    }
    barrier.release(1);
    let plan = deploying.await.unwrap()?.plan;
    assert_eq!(told(&plan), [(PlanAction::Scale, "a"), (PlanAction::Delete, "by-hand")]);
    stage.end().await
}

#[actix_web::test]
async fn it_goes_on_when_its_caller_leaves() -> Result<(), ServeError> {
    let (stage, barrier) = staged().await?;
    let serve = stage.serve();
    assert!(deploy(serve, with_held()).now_or_never().is_none());
    until("both are made", || barrier.inside() == 2).await;
    barrier.release(2);
    until("it is done", || serve.progress().is_none()).await;
    assert_eq!((serve.history().len(), serve.list_backends().len()), (2, 3));
    stage.end().await
}

#[actix_web::test]
async fn a_shutdown_ends_it() -> Result<(), ServeError> {
    let (stage, barrier) = staged().await?;
    let serve = stage.serve().clone();
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { deploy(&serve, with_held()).await }
    });
    until("both are made", || barrier.inside() == 2).await;
    stage.end().await?;
    assert!(deploying.await.unwrap().is_err());
    assert_eq!(deploy(&serve, first()).await.unwrap_err(), ServeError::ShuttingDown);
    Ok(())
}
