//! A release that does not start: the old one serves on, whoever asked is told why, and no call fails.

use actix_web::ResponseError;
use greenroom::{BackendUpdate, Resources};
use tokio::time::Instant;

use super::*;

/// Deploys it, which fails, and all is as before.
async fn fails(serve: &Serve, replicas: u32, backend: Backend<Counter>, config: BackendConfig) -> String {
    let (load, before) = (Load::of(serve, 8), status(serve));
    let begun = Instant::now();
    let timeout = config.startup_timeout;
    let error = serve.deploy_backend("counter", backend, config).await.unwrap_err();
    assert!(begun.elapsed() <= 2 * timeout, "{:?}", begun.elapsed());
    assert_eq!((error.code(), error.status_code().as_u16()), ("rollout_failed", 409));
    let ServeError::RolloutFailed { why, version: Some(version), .. } = &error else { panic!("{error}") };
    assert_eq!(&**version, "2");
    let after = status(serve);
    assert_eq!((after.release, &after.config), (before.release, &before.config));
    assert_eq!(after.last_error.as_deref(), Some(&**why), "the status keeps it");
    assert_all(serve, "old", replicas).await;
    let (calls, _) = load.end().await;
    assert!(calls > 0);
    why.to_string()
}

#[actix_web::test]
async fn one_that_cannot_be_made_is_given_up_and_the_old_one_serves_on() {
    tokio::time::pause();
    for n in [1, 5, 10] {
        let serve = with_cpus_for(n).await;
        open(&serve, counter("old"), config("1", n)).await;
        let why = fails(&serve, n, counter("broken"), config("2", n)).await;
        assert_eq!(why, "there is no counter");
        assert_eq!(generations(&serve), (1..=u64::from(n)).collect::<Vec<_>>(), "none was replaced");
        assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), 0.0);
        serve.deploy_backend("counter", counter("new"), config("3", n)).await.unwrap();
        assert_all(&serve, "new", n).await;
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn one_that_is_never_ready_is_given_up_when_it_should_have_been() {
    tokio::time::pause();
    let serve = with_cpus_for(5).await;
    open(&serve, counter("old"), config("1", 5)).await;
    let never = config("2", 5).user_config(json!({"ms": 3_600_000}));
    let why = fails(&serve, 5, counter("new"), never).await;
    assert!(why.contains("2 s"), "{why}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_that_refuses_its_user_config_is_given_up() {
    tokio::time::pause();
    let serve = with_cpus_for(2).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let refuses = config("2", 2).user_config(json!({"ms": 1, "fails_for": "new"}));
    let why = fails(&serve, 2, counter("new"), refuses).await;
    assert_eq!(why, "it did not take its user_config: this one stays closed");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_room_the_old_replicas_that_made_it_are_started_again() {
    tokio::time::pause();
    for n in [1, 5] {
        let serve = serve_with(Capacity::unlimited().custom("seat", f64::from(n))).await;
        let seated = |version| config(version, n).resources(Resources::none().custom("seat", 1.0));
        open(&serve, counter("old"), seated("1")).await;
        let why = fails(&serve, n, counter("broken"), seated("2")).await;
        assert_eq!(why, "there is no counter");
        assert!(generations(&serve).iter().any(|generation| *generation > u64::from(n)));
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn options_that_the_new_replicas_cannot_be_made_with_are_taken_back_with_all_others_of_the_update() {
    tokio::time::pause();
    let serve = with_cpus_for(4).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let before = serve.get_backend_config("counter").unwrap();
    let update = BackendUpdate::default().num_threads(3).num_replicas(3).max_queued_queries(3);
    let update = update.user_config(json!({"ms": 1, "fails_for": "old"}));
    let load = Load::of(&serve, 4);
    let error = serve.update_backend_config("counter", update).await.unwrap_err();
    assert!(matches!(&error, ServeError::RolloutFailed { version: Some(v), .. } if &**v == "1"), "{error}");
    assert_eq!(serve.get_backend_config("counter").unwrap(), before);
    assert_eq!(generations(&serve), [1, 2]);
    assert_all(&serve, "old", 2).await;
    load.end().await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn while_it_goes_on_the_status_tells_each_replica_its_release_its_version_and_why() {
    tokio::time::pause();
    let serve = with_cpus_for(1).await;
    open(&serve, counter("old"), config("1", 1)).await;
    let slow = RestartPolicy { max_restarts: 1, backoff: Duration::from_secs(1), ..Default::default() };
    let deployed = deploying(&serve, counter("broken"), config("2", 1).restart(slow));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = status(&serve);
    assert_eq!((now.state, now.release), (BackendState::Updating, 2));
    assert_eq!(now.reason.as_deref(), Some("release 2 is rolled out: 0 of 1 replicas have it"));
    let told: Vec<_> = now.replicas.iter().map(|r| (r.release, r.version.as_deref(), r.state)).collect();
    assert_eq!(told, [(1, Some("1"), ReplicaState::Running), (2, Some("2"), ReplicaState::Starting)]);
    assert_eq!(now.replicas[1].reason.as_deref(), Some("there is no counter"));
    let json = serde_json::to_value(&now).unwrap();
    assert_eq!(
        (json["state"].as_str(), json["replicas"][1]["version"].as_str()),
        (Some("UPDATING"), Some("2"))
    );
    assert_eq!(deployed.await.unwrap().unwrap_err().code(), "rollout_failed");
    assert_eq!(status(&serve).state, BackendState::Running);
    serve.shutdown().await.unwrap();
}
