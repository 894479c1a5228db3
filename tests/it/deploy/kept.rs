//! What is deployed is written down as a whole before the first step, and as it was when it is taken back.

use greenroom::HISTORY_MAX;

use super::*;
use crate::{state::Folder, support::until};

fn with_held() -> ServeConfig {
    changed(|config| {
        config.backends[0].config.num_replicas = 2;
        config.backends.extend(yaml("backends: [{ name: held, registered: held, user_config: 1 }]").backends);
        config.endpoints.clear();
    })
}

/// The backends that the directory holds.
fn names(folder: &Folder) -> Vec<String> {
    let backends = folder.json()["desired"]["backends"].clone();
    backends.as_array().unwrap().iter().map(|kept| kept["name"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn all_of_it_is_written_down_before_the_first_step_and_taken_back_where_one_fails()
-> Result<(), ServeError> {
    let folder = Folder::new();
    let serve = folder.serve().await;
    let barrier = register(&serve);
    deploy(&serve, first()).await?;
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { deploy(&serve, with_held()).await }
    });
    until("the last is made", || barrier.inside() == 1).await;
    assert_eq!(names(&folder), ["a", "b", "held"]);
    assert_eq!(folder.json()["desired"]["endpoints"], serde_json::json!([]), "also what was not done yet");
    barrier.release(1);
    deploying.await.unwrap()?;
    let failed = changed(|config| {
        config.backends.push(yaml("backends: [{ name: c, registered: broken }]").backends.remove(0));
    });
    assert_eq!(deploy(&serve, failed).await.unwrap_err().code(), "deploy_failed");
    assert_eq!(names(&folder), ["a", "b", "held"]);
    assert_eq!((serve.config().backends, serve.history().len()), (with_held().backends, 2));
    serve.shutdown().await
}

#[actix_web::test]
async fn a_new_process_goes_on_with_what_was_deployed_once_it_has_the_code() -> Result<(), ServeError> {
    let folder = Folder::new();
    let serve = folder.serve().await;
    register(&serve);
    for replicas in [1, 2] {
        deploy(&serve, scaled(replicas)).await?;
    }
    serve.update_backend_config("b", BackendUpdate::default().num_replicas(3)).await?;
    let (config, history) = (serve.config(), serve.history());
    serve.shutdown().await?;

    let serve = folder.serve().await;
    assert_eq!((serve.config(), serve.history()), (config.clone(), history.clone()));
    // What awaits its code stays as it is, and does not keep others from being planned.
    assert_eq!(serve.plan(&config)?, Plan::default());
    register(&serve);
    until("all have their code", || {
        serve.status().backends.iter().all(|backend| backend.state == greenroom::BackendState::Running)
    })
    .await;
    assert_eq!(which(&serve, "e").await?, 1);
    let plan = serve.plan(&scaled(2))?;
    assert_eq!(told(&plan), [(PlanAction::Scale, "b")]);
    assert_eq!(plan.drift[0].what[0].text, "num_replicas: 1 -> 3");
    assert_eq!(deploy(&serve, scaled(2)).await?.id, 2, "the file says what it said");
    assert_eq!(serve.rollback(None, DeployOptions::default()).await?.id, 3);
    assert_eq!(serve.get_backend_config("a")?.num_replicas, 1);
    serve.shutdown().await
}

#[actix_web::test]
async fn what_cannot_be_written_down_is_not_begun() -> Result<(), ServeError> {
    let folder = Folder::new();
    let serve = folder.serve().await;
    register(&serve);
    deploy(&serve, first()).await?;
    folder.obstruct();
    let before = serve.config();
    assert_eq!(deploy(&serve, scaled(2)).await.unwrap_err().code(), "state_not_saved");
    assert_eq!((serve.config(), serve.progress(), serve.history().len()), (before, None, 1));
    folder.clear();
    deploy(&serve, scaled(2)).await?;
    serve.shutdown().await
}

#[actix_web::test]
async fn the_last_twenty_are_kept() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    for n in 0..30 {
        deploy(stage.serve(), scaled(n % 2 + 2)).await?;
    }
    let ids: Vec<_> = stage.serve().history().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, (12..=31).collect::<Vec<_>>());
    assert_eq!(ids.len(), HISTORY_MAX);
    stage.end().await
}

#[actix_web::test]
async fn after_a_deploy_that_was_killed_in_its_middle_the_last_that_was_applied_is_gone_back_to()
-> Result<(), ServeError> {
    let folder = Folder::new();
    let serve = folder.serve().await;
    let barrier = register(&serve);
    for replicas in [1, 2] {
        deploy(&serve, scaled(replicas)).await?;
    }
    let deploying = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { deploy(&serve, with_held()).await }
    });
    until("it is under way", || barrier.inside() == 1).await;
    // What a process that is killed now leaves.
    let killed = Folder::new();
    std::fs::create_dir(killed.state()).unwrap();
    for file in std::fs::read_dir(folder.state()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), killed.state().join(file.file_name())).unwrap();
    }
    barrier.release(1);
    deploying.await.unwrap()?;
    serve.shutdown().await?;

    let serve = killed.serve().await;
    register(&serve).release(1);
    assert_eq!((serve.config().backends.len(), serve.history().len()), (3, 2));
    serve.rollback(None, DeployOptions::default()).await?;
    assert_eq!(serve.config().backends, scaled(2).backends);
    serve.shutdown().await
}
