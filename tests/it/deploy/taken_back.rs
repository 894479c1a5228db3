//! What a deploy that failed has done is taken back as far as it can be, and what is kept is what there is.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use greenroom::BackendState;

use super::*;
use crate::{state::Folder, support::until};

/// `slow` never finishes what it has, so that its deletion takes this long.
const DRAINS: Duration = Duration::from_secs(20);

/// The code `two` and `slow`; whether `slow` has begun something.
fn registered(serve: &Serve) -> Arc<AtomicBool> {
    serve.register("two", model(2)).unwrap();
    let begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&begun);
    let slow = move |_: Which| {
        begins.store(true, SeqCst);
        pending::<Result<u64, ServeError>>()
    };
    serve.register("slow", Backend::from_fn(slow)).unwrap();
    begun
}

/// `a`, `b` and `slow`, all behind endpoints.
fn all() -> ServeConfig {
    let mut config = yaml(
        "backends:\n  - { name: a, registered: one }\n  - { name: b, registered: two }\n  \
         - { name: slow, registered: slow }\nendpoints:\n  - { name: e, route: /e, backend: a }\n  \
         - { name: f, route: /f, backend: b }\n  - { name: slow, backend: slow }\n",
    );
    config.backends[2].config.graceful_shutdown_timeout = DRAINS;
    config
}

/// Deploys nothing, which takes longer than it may, as `slow` drains last.
async fn too_late(serve: &Serve, begun: &AtomicBool) -> ServeError {
    let call = serve.handle::<Which>("slow").unwrap().call(Which);
    let call = actix_web::rt::spawn(call);
    until("the call", || begun.load(SeqCst)).await;
    let how = DeployOptions::default().timeout(DRAINS / 4);
    let late = serve.deploy(ServeConfig::default(), how).await.unwrap_err();
    call.abort();
    late
}

fn names(folder: &Folder) -> Vec<String> {
    let backends = folder.json()["desired"]["backends"].clone();
    backends.as_array().unwrap().iter().map(|kept| kept["name"].as_str().unwrap().to_owned()).collect()
}

fn state(serve: &Serve, name: &str) -> Option<BackendState> {
    serve.status().backends.into_iter().find(|backend| backend.name.as_str() == name).map(|b| b.state)
}

#[actix_web::test]
async fn a_backend_that_awaited_its_code_awaits_it_again() -> Result<(), ServeError> {
    tokio::time::pause();
    let folder = Folder::new();
    let serve = folder.serve().await;
    registered(&serve);
    serve.register("one", model(1))?;
    deploy(&serve, all()).await?;
    serve.shutdown().await?;

    let serve = folder.serve().await;
    let begun = registered(&serve);
    until("those with code", || {
        ["b", "slow"].iter().all(|name| state(&serve, name) == Some(BackendState::Running))
    })
    .await;
    assert_eq!(state(&serve, "a"), Some(BackendState::AwaitingCode));
    let before = serve.config();
    let late = too_late(&serve, &begun).await;
    assert_eq!(late.code(), "timed_out", "nothing is left: {late}");
    assert_eq!(serve.config(), before);
    assert_eq!(
        (names(&folder), state(&serve, "a")),
        (["a", "b", "slow"].map(String::from).to_vec(), Some(BackendState::AwaitingCode))
    );
    serve.register("one", model(1))?;
    until("its code", || state(&serve, "a") == Some(BackendState::Running)).await;
    assert_eq!((which(&serve, "e").await?, which(&serve, "f").await?), (1, 2));
    serve.shutdown().await
}

#[actix_web::test]
async fn what_cannot_be_taken_back_keeps_nothing_else_from_it_and_what_there_is_is_kept()
-> Result<(), ServeError> {
    tokio::time::pause();
    let folder = Folder::new();
    let serve = folder.serve().await;
    let begun = registered(&serve);
    let made = Arc::new(AtomicBool::new(false));
    let once = Backend::new(move |_| match made.swap(true, SeqCst) {
        false => Ok(Model { number: 1, more: 0 }),
        true => Err(ServeError::invalid("weights", "they are gone").into()),
    });
    serve.register("one", once.json::<Which>())?;
    deploy(&serve, all()).await?;
    let late = too_late(&serve, &begun).await;
    assert_eq!(late.code(), "deploy_failed");
    let told = late.to_string();
    for part in ["create backend a", "they are gone", "endpoint e: there is no backend a"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("endpoint f"), "{told}");
    assert_eq!(which(&serve, "f").await?, 2, "what could be taken back was");
    let there: Vec<_> = serve.config().backends.iter().map(|decl| decl.name.to_string()).collect();
    assert_eq!((there, names(&folder)), (vec!["b".into(), "slow".into()], vec!["b".into(), "slow".into()]));
    // Changes are kept again.
    serve.update_backend_config("b", BackendUpdate::default().num_replicas(2)).await?;
    assert_eq!(folder.kept("b").unwrap()["num_replicas"], 2);
    serve.shutdown().await
}
