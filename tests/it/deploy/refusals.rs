//! What can be known to be wrong before anything is done: all of it, each with its place, and nothing has changed.

use std::time::Duration;

use greenroom::{Capacity, DeployState, Problem, ServeOptions};

use super::*;
use crate::support::until;

fn problems(error: ServeError) -> Vec<Problem> {
    match error {
        ServeError::InvalidConfig(problems) => problems,
        other => panic!("another error: {other:?}"),
    }
}

async fn two_cpus() -> Result<Serve, ServeError> {
    let capacity = Capacity::default().num_cpus(2.0);
    let serve = Serve::start(ServeOptions::default().current_thread().capacity(capacity)).await?;
    register(&serve);
    Ok(serve)
}

#[actix_web::test]
async fn every_mistake_deep_inside_is_listed_with_its_place_and_nothing_is_applied() -> Result<(), ServeError>
{
    let serve = two_cpus().await?;
    deploy(&serve, first()).await?;
    let before = serve.config();
    let wrong = yaml(
        "http: { port: 1234 }
capacity: { num_cpus: 64 }
backends:
  - { name: a, registered: nobody, resources: { num_cpus: 0.1 } }
  - { name: b, registered: two, user_config: text, resources: { num_cpus: 0.1 } }
  - { name: c, registered: typed, max_batch_size: 8, resources: { num_cpus: 0.1 } }
  - { name: d, registered: one, resources: { num_cpus: 3 } }
  - { name: f, onnx: nothing.onnx, resources: { num_cpus: 0.1 } }
  - { name: g, registered: typed, user_config: 1, resources: { num_cpus: 0.1 } }
endpoints:
  - { name: unknown, backend: a }
  - { name: e, route: /e, traffic: { b: 0.5, c: 0.5 } }
  - { name: shadowed, backend: b, shadow: { g: 0.5 } }
",
    );
    let found = problems(serve.plan(&wrong).unwrap_err());
    let places: Vec<_> = found.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "http",
            "capacity",
            "backends[0].registered",
            "backends[1].user_config",
            "backends[2].max_batch_size",
            "backends[4].onnx",
            "backends[5].user_config",
            "backends[3].resources",
            "endpoints[1]",
            "endpoints[2]",
        ],
        "{found:#?}"
    );
    let told = ServeError::InvalidConfig(found.clone()).to_string();
    for part in
        ["restart it to change this", "no code is registered as nobody", "nothing.onnx", "does not take"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(problems(deploy(&serve, wrong).await.unwrap_err()), found);
    assert_eq!((serve.config(), serve.history().len()), (before, 1));
    serve.shutdown().await
}

#[actix_web::test]
async fn what_a_program_put_together_wrongly_is_found_too() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let twice = changed(|config| config.backends.push(config.backends[0].clone()));
    let missing = changed(|config| drop(config.backends.remove(0)));
    let zero = changed(|config| {
        config.backends[1].config = config.backends[1].config.clone().max_batch_size(0);
    });
    for (wrong, place) in [
        (twice, "backends[2].name"),
        (missing, "endpoints[0].traffic.a"),
        (zero, "backends[1].max_batch_size"),
    ] {
        let found = problems(deploy(stage.serve(), wrong).await.unwrap_err());
        assert_eq!(found.iter().map(|problem| problem.place.as_str()).collect::<Vec<_>>(), [place]);
    }
    stage.end().await
}

#[actix_web::test]
async fn code_that_takes_other_messages_is_refused_before_anything_is_done() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let other = changed(|config| {
        config.backends[1].source = Source::Registered { name: BackendName::new("typed").unwrap() };
    });
    let found = problems(stage.serve().plan(&other).unwrap_err());
    assert_eq!((found.len(), found[0].place.as_str()), (1, "backends[1]"));
    assert!(found[0].what.contains("deploy it as another backend"), "{found:?}");
    stage.end().await
}

/// Two replicas of `new`, and nothing else.
fn new(cpus: f64) -> ServeConfig {
    yaml(&format!(
        "backends: [{{ name: new, registered: one, num_replicas: 2, resources: {{ num_cpus: {cpus} }} }}]\n\
         endpoints: [{{ name: new, backend: new }}]"
    ))
}

#[actix_web::test]
async fn what_does_not_fit_now_is_refused_or_waits_until_something_else_goes() -> Result<(), ServeError> {
    tokio::time::pause();
    let serve = two_cpus().await?;
    serve.create_backend("old", model(3), BackendConfig::default().num_replicas(2)).await?;
    let before = serve.config();
    let refused = deploy(&serve, new(1.0)).await.unwrap_err();
    assert_eq!(refused.code(), "no_resources");
    let how = DeployOptions::default().timeout(Duration::from_secs(10)).wait_for_resources();
    let never = problems(serve.deploy(new(1.5), how.clone()).await.unwrap_err());
    assert_eq!(never[0].place, "backends[0].resources");
    let no_end = serve.deploy(new(1.0), DeployOptions::default().wait_for_resources()).await.unwrap_err();
    assert!(no_end.to_string().contains("needs a timeout"), "{no_end}");
    let late = serve.deploy(new(1.0), how.clone()).await.unwrap_err();
    assert_eq!(late.code(), "timed_out");
    assert!(late.to_string().contains("backend new does not fit"), "{late}");
    assert_eq!((serve.config(), serve.history().len()), (before, 0));

    let waiting = actix_web::rt::spawn({
        let serve = serve.clone();
        async move { serve.deploy(new(1.0), how).await }
    });
    until("it waits", || serve.progress().is_some_and(|progress| progress.state == DeployState::Pending))
        .await;
    let told = serve.progress().unwrap().waits_for.unwrap();
    assert!(told.contains("free: num_cpus 0 of 2"), "{told}");
    // Nothing has begun, so changes by hand are taken; another deploy is not.
    assert_eq!(deploy(&serve, ServeConfig::default()).await.unwrap_err(), ServeError::DeployInProgress);
    serve.delete_backend("old", false).await?;
    waiting.await.unwrap()?;
    assert_eq!(which(&serve, "new").await?, 1);
    serve.shutdown().await
}

#[actix_web::test]
async fn replicas_that_leave_one_backend_make_room_for_those_of_another() -> Result<(), ServeError> {
    let serve = two_cpus().await?;
    let halves = |a: u32, b: u32| {
        yaml(&format!(
            "backends:\n  - {{ name: b, registered: two, num_replicas: {b}, resources: {{ num_cpus: 0.5 }} }}\n  \
             - {{ name: a, registered: one, num_replicas: {a}, resources: {{ num_cpus: 0.5 }} }}\n"
        ))
    };
    for (a, b) in [(3, 1), (1, 3), (4, 0), (0, 4)] {
        deploy(&serve, halves(a, b)).await?;
        assert_eq!(serve.get_backend_config("b")?.num_replicas, b);
    }
    serve.shutdown().await
}

#[cfg(all(unix, feature = "onnx"))]
#[actix_web::test]
async fn a_model_that_is_a_pipe_or_a_device_is_refused_and_not_read() -> Result<(), ServeError> {
    let (stage, _) = staged().await?;
    let folder = crate::state::Folder::new();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
        let wanted = changed(|config| {
            let text = format!("backends: [{{ name: f, onnx: {} }}]", path.display());
            config.backends.extend(yaml(&text).backends);
        });
        let found = problems(deploy(stage.serve(), wanted).await.unwrap_err());
        assert_eq!(found[0].place, "backends[2].onnx");
        assert!(found[0].what.contains("is no file"), "{found:?}");
    }
    stage.end().await
}
