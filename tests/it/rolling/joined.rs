//! A newer change while replicas are replaced: it joins, and what fails goes back to what was before the first.

use greenroom::{BackendUpdate, ResourcesUpdate};

use super::*;
use crate::support::until;

async fn until_release(serve: &Serve, release: u64) {
    until("one of it is there", || status(serve).replicas.iter().any(|r| r.release == release)).await;
}

#[actix_web::test]
async fn a_newer_release_takes_the_place_of_the_one_that_is_rolled_out() {
    tokio::time::pause();
    let serve = with_cpus_for(5).await;
    open(&serve, counter("old"), config("1", 5)).await;
    let load = Load::of(&serve, 8);
    let second = deploying(&serve, counter("second"), config("2", 5));
    until_release(&serve, 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = deploying(&serve, counter("third"), config("3", 5));
    second.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_all(&serve, "third", 5).await;
    let (_, Watched { least, most }) = load.end().await;
    assert!(least >= 5 && most <= 6, "{least} to {most}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_old_version_asked_for_again_keeps_the_replicas_of_it_that_there_are() {
    tokio::time::pause();
    let serve = with_cpus_for(5).await;
    open(&serve, counter("old"), config("1", 5)).await;
    let second = deploying(&serve, counter("second"), config("2", 5));
    until("one is replaced", || status(&serve).replicas.iter().filter(|r| r.release == 1).count() == 4).await;
    serve.deploy_backend("counter", counter("made again"), config("1", 5)).await.unwrap();
    second.await.unwrap().unwrap();
    assert_all(&serve, "old", 5).await;
    assert_eq!(status(&serve).release, 1);
    assert!(generations(&serve).iter().filter(|generation| **generation <= 5).count() >= 3);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_newer_release_that_fails_goes_back_to_the_one_before_both_and_both_are_told() {
    tokio::time::pause();
    let serve = with_cpus_for(5).await;
    open(&serve, counter("old"), config("1", 5)).await;
    let load = Load::of(&serve, 8);
    let second = deploying(&serve, counter("second"), config("2", 5));
    until("one is replaced", || status(&serve).replicas.iter().filter(|r| r.release == 1).count() == 4).await;
    let third = deploying(&serve, counter("broken"), config("3", 5));
    for told in [second, third] {
        assert_eq!(told.await.unwrap().unwrap_err().code(), "rollout_failed");
    }
    assert_all(&serve, "old", 5).await;
    let (_, Watched { least, .. }) = load.end().await;
    assert!(least >= 5, "{least}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_user_config_that_comes_meanwhile_is_what_all_have_in_the_end() {
    tokio::time::pause();
    let serve = with_cpus_for(3).await;
    open(&serve, counter("old"), config("1", 3)).await;
    let load = Load::of(&serve, 8);
    let second = deploying(&serve, counter("second"), config("2", 3));
    until_release(&serve, 2).await;
    let more = BackendUpdate::default().user_config(json!({"ms": 5})).num_replicas(2);
    serve.update_backend_config("counter", more).await.unwrap();
    second.await.unwrap().unwrap();
    assert_all(&serve, "second", 2).await;
    load.end().await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_same_deployed_again_meanwhile_waits_for_the_same_end() {
    tokio::time::pause();
    let serve = with_cpus_for(3).await;
    open(&serve, counter("old"), config("1", 3)).await;
    let first = deploying(&serve, counter("new"), config("2", 3));
    until_release(&serve, 2).await;
    serve.deploy_backend("counter", counter("again"), config("2", 3)).await.unwrap();
    assert_all(&serve, "new", 3).await;
    first.await.unwrap().unwrap();
    assert_eq!((generations(&serve), status(&serve).release), (vec![4, 5, 6], 2));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_reconfiguration_under_way_ends_before_its_replica_is_replaced() {
    tokio::time::pause();
    let serve = with_cpus_for(2).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let load = Load::of(&serve, 8);
    let update = BackendUpdate::default().user_config(json!({"ms": 200}));
    let updating = serve.clone();
    let updated = spawn(async move { updating.update_backend_config("counter", update).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    serve.deploy_backend("counter", counter("new"), config("2", 2)).await.unwrap();
    updated.await.unwrap().unwrap();
    assert_all(&serve, "new", 2).await;
    load.end().await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_a_wave_has_beyond_the_cpus_lets_no_other_replica_in() {
    tokio::time::pause();
    let serve = with_cpus_for(2).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let load = Load::of(&serve, 4);
    let second = deploying(&serve, counter("second"), config("2", 2));
    until_release(&serve, 2).await;
    assert_eq!(status(&serve).replicas.len(), 3);
    let refused = serve.update_backend_config("counter", BackendUpdate::default().num_replicas(3)).await;
    assert!(matches!(refused, Err(ServeError::NoResources { replicas: 3, fit: 2, .. })), "{refused:?}");
    second.await.unwrap().unwrap();
    assert_all(&serve, "second", 2).await;
    load.end().await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn larger_replicas_that_there_are_cpus_for_are_let_in_while_a_wave_has_more_than_there_are() {
    tokio::time::pause();
    let serve = with_cpus_for(4).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let load = Load::of(&serve, 4);
    let second = deploying(&serve, counter("second"), config("2", 2));
    until_release(&serve, 2).await;
    let larger = ResourcesUpdate { num_cpus: Some(2.0), ..ResourcesUpdate::default() };
    serve.update_backend_config("counter", BackendUpdate::default().resources(larger)).await.unwrap();
    second.await.unwrap().unwrap();
    assert_all(&serve, "second", 2).await;
    assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), 0.0);
    load.end().await;
    serve.shutdown().await.unwrap();
}
