//! One deploy at a time, and no changes by hand beside it; it goes on whoever waits for it.

use futures_util::FutureExt;
use greenroom::{DeployState, Endpoint, Listen, Progress};

use super::*;
use crate::{
    admin::Api,
    support::{uncounted, until},
};

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

#[actix_web::test]
async fn what_is_put_as_it_is_already_waits_for_the_change_that_makes_it_so_and_is_refused_beside_a_deploy()
-> Result<(), ServeError> {
    let serve = Serve::start(uncounted().serving_threads(std::num::NonZeroUsize::MIN)).await?;
    let barrier = register(&serve);
    deploy(&serve, first()).await?;
    let api = Api(serve.listen_admin(Listen::default()).await?);
    let put = |path: &'static str, body: serde_json::Value| {
        actix_web::rt::spawn(async move { api.put(&format!("/api/serve/{path}"), &body).await })
    };
    let held = serde_json::json!({"registered": "held", "user_config": 1});
    for begun in ["its making", "a change of it"] {
        let config = if begun == "its making" {
            held.clone()
        } else {
            serde_json::json!({"registered": "held", "user_config": 2})
        };
        let change = put("backends/held", config.clone());
        until("it is under way", || barrier.inside() == 1).await;
        let again = put("backends/held", config);
        for _ in 0..3 {
            api.get("/api/serve/status").await;
        }
        assert!(!again.is_finished(), "{begun} is not done");
        barrier.release(1);
        assert_eq!(change.await.unwrap().status, 200);
        let again = again.await.unwrap();
        assert_eq!(
            (again.status, &again.json()["changed"]),
            (200, &serde_json::json!([])),
            "{}",
            again.text()
        );
    }
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        let held = "backends: [{ name: held, registered: held, user_config: 3 }]";
        let wanted = changed(|config| config.backends.extend(yaml(held).backends));
        async move { deploy(&serve, wanted).await }
    });
    until("the deploy is under way", || barrier.inside() == 1).await;
    let there = serde_json::json!({"route": "/e", "backend": "a"});
    for (path, body) in [("backends/a", serde_json::json!({"registered": "one"})), ("endpoints/e", there)] {
        assert_eq!(put(path, body).await.unwrap().code(), "deploy_in_progress", "{path}");
    }
    barrier.release(1);
    deploying.await.unwrap()?;
    serve.shutdown().await
}
