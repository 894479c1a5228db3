//! All or nothing: a step that fails, or takes too long, takes back those before it.

use std::time::Duration;

use greenroom::{DeployState, Endpoint};

use super::*;
use crate::support::{quiet_panics, until};

/// More replicas, another backend behind the endpoint, four new backends of which the third is `third`.
fn many(third: &str) -> ServeConfig {
    let mut config = yaml(&format!(
        "backends:
  - {{ name: a, registered: one, num_replicas: 2, user_config: 5 }}
  - {{ name: w, registered: two }}
  - {{ name: x, registered: two }}
  - {third}
  - {{ name: z, registered: two }}
endpoints:
  - {{ name: e, route: /e, backend: w }}
  - {{ name: new, backend: x }}
"
    ));
    config.endpoints[0].methods.push("POST".into());
    config
}

/// Everything is as [`staged`] left it.
async fn as_before(serve: &Serve) -> Result<(), ServeError> {
    assert_eq!((serve.config().backends, serve.config().endpoints), (first().backends, first().endpoints));
    assert_eq!(serve.plan(&first())?, Plan::default());
    assert_eq!((serve.history().len(), serve.progress()), (1, None));
    let status = serve.status();
    let replicas: Vec<_> =
        status.backends.iter().map(|backend| (backend.name.as_str(), backend.replicas.len())).collect();
    assert_eq!(replicas, [("a", 1), ("b", 1)]);
    assert_eq!(which(serve, "e").await?, 1);
    // Changes by hand are taken again.
    serve.create_endpoint("by-hand", Endpoint::new("b")).await?;
    serve.delete_endpoint("by-hand").await
}

#[actix_web::test]
async fn a_factory_that_fails_in_the_middle_takes_everything_back() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let serve = stage.serve();
    let error = deploy(serve, many("{ name: y, registered: broken }")).await.unwrap_err();
    assert_eq!(error.code(), "deploy_failed");
    let told = error.to_string();
    for part in ["create backend y", "they are corrupt", "all is as it was before"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    as_before(serve).await?;
    stage.end().await
}

#[actix_web::test]
async fn a_release_that_does_not_start_takes_everything_back() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let serve = stage.serve();
    let error = deploy(serve, many("{ name: b, registered: broken, num_replicas: 3 }")).await.unwrap_err();
    let ServeError::DeployFailed { step, cause, left } = &error else { panic!("{error}") };
    assert_eq!((&**step, cause.code(), left), ("roll backend b", "rollout_failed", &None));
    as_before(serve).await?;
    stage.end().await
}

#[actix_web::test]
async fn one_that_takes_too_long_is_taken_back_and_told_with_what_it_waited_for() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, _barrier) = staged().await?;
    let serve = stage.serve();
    let how = DeployOptions::default().timeout(Duration::from_secs(5));
    let began = tokio::time::Instant::now();
    let slow = many("{ name: y, registered: held, user_config: 1, num_replicas: 2 }");
    let error = serve.deploy(slow, how.clone()).await.unwrap_err();
    assert_eq!(error.code(), "timed_out");
    let told = "the deploy, which waited for y: 0 of 2 replicas ready, took longer than 5 s";
    assert_eq!(error.to_string(), told);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(8), "{took:?}");
    as_before(serve).await?;
    assert_eq!(serve.deploy(many("{ name: b, registered: two, version: v2 }"), how).await?.id, 2);
    stage.end().await
}

#[actix_web::test]
async fn a_rollout_that_takes_too_long_is_taken_back() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, barrier) = staged().await?;
    let serve = stage.serve();
    barrier.release(1);
    let held = |version: &str| {
        let mut config = first();
        let more = format!(
            "backends: [{{ name: h, registered: held, user_config: 1, version: {version} }}]\n\
             endpoints: [{{ name: h, backend: h }}]"
        );
        config.backends.extend(yaml(&more).backends);
        config.endpoints.extend(yaml(&more).endpoints);
        config
    };
    deploy(serve, held("v1")).await?;
    let before = serve.config();
    let how = DeployOptions::default().timeout(Duration::from_secs(5));
    let error = serve.deploy(held("v2"), how).await.unwrap_err();
    assert!(error.to_string().contains("h: 0 of 1 replicas ready"), "{error}");
    assert_eq!(serve.config(), before);
    assert_eq!(which(serve, "h").await?, 100);
    stage.end().await
}

#[actix_web::test]
async fn a_controller_that_restarts_in_the_middle_loses_nothing_of_it() -> Result<(), ServeError> {
    quiet_panics();
    let (stage, barrier) = staged().await?;
    let serve = stage.serve().clone();
    let config = many("{ name: y, registered: held, user_config: 1 }");
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { deploy(&serve, config).await }
    });
    for _ in 0..3 {
        until("the third is made", || barrier.inside() == 1).await;
        serve.crash_controller().await;
    }
    assert_eq!(serve.progress().unwrap().state, DeployState::Applying);
    barrier.release(100);
    let deployed = deploying.await.unwrap()?;
    assert_eq!(deployed.id, 2);
    assert_eq!(which(&serve, "e").await?, 2);
    assert_eq!(serve.list_backends().len(), 5);
    stage.end().await
}
