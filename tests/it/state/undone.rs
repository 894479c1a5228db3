//! Changes that fail, and changes that cannot be kept: memory and file do not differ.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use greenroom::{Backend, BackendUpdate, Capacity, Endpoint, Serve, ServeError, ServeOptions};
use serde_json::json;

use super::{Ask, Folder, Number, ask, config, frail, number};
use crate::support::until;

/// What is seen of it all.
fn seen(serve: &Serve) -> serde_json::Value {
    let mut seen = serde_json::to_value(serve.status()).unwrap();
    for backend in seen["backends"].as_array_mut().unwrap() {
        backend.as_object_mut().unwrap().remove("for_s");
        for replica in backend["replicas"].as_array_mut().unwrap() {
            replica.as_object_mut().unwrap().remove("for_s");
        }
    }
    seen
}

#[actix_web::test]
async fn a_change_that_fails_is_written_down_as_undone_before_that_is_told() {
    let folder = Folder::new();
    let serve = folder.serve().await;
    let fails = Arc::new(AtomicBool::new(true));
    serve.create_backend("a", frail(1, &fails), config()).await.unwrap_err();
    assert_eq!(folder.kept("a"), None);
    assert_eq!(folder.json()["given"]["backends"], json!([]));
    fails.store(false, SeqCst);
    serve.create_backend("a", frail(1, &fails), config()).await.unwrap();
    fails.store(true, SeqCst);
    let update = BackendUpdate::default().num_replicas(3).max_queued_queries(5);
    serve.update_backend_config("a", update).await.unwrap_err();
    let kept = folder.kept("a").unwrap();
    assert_eq!((&kept["num_replicas"], &kept["max_queued_queries"]), (&json!(1), &json!(1000)));
    let rolled = serve.deploy_backend("a", frail(2, &fails), config().version("2")).await;
    assert_eq!(rolled.unwrap_err().code(), "rollout_failed");
    assert_eq!(folder.kept("a").unwrap()["version"], json!(null));
    fails.store(false, SeqCst);
    serve.deploy_backend("a", frail(2, &fails), config().version("2")).await.unwrap();
    assert_eq!(folder.kept("a").unwrap()["version"], "2");
    serve.delete_backend("a", true).await.unwrap();
    assert_eq!(folder.kept("a"), None);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_change_that_cannot_be_kept_is_refused_and_nothing_has_changed() {
    let folder = Folder::new();
    let capacity = Capacity::default().num_cpus(8.0);
    let options = ServeOptions::default().current_thread().capacity(capacity).state(folder.state());
    let serve = Serve::start(options).await.unwrap();
    serve.create_backend("a", number(1), config()).await.unwrap();
    serve.create_backend("b", number(2), config()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let (before, kept) = (seen(&serve), folder.json());
    folder.obstruct();
    let refused = |changed: Result<(), ServeError>| {
        let why = changed.unwrap_err();
        assert!(matches!(&why, ServeError::StateNotSaved { why } if why.contains("state")), "{why}");
        assert_eq!(actix_web::ResponseError::status_code(&why).as_u16(), 507);
        assert_eq!((seen(&serve), folder.json()), (before.clone(), kept.clone()));
    };
    refused(serve.create_backend("c", number(3), config()).await);
    refused(serve.update_backend_config("a", BackendUpdate::default().num_replicas(3)).await);
    refused(serve.deploy_backend("a", number(4), config().version("2").num_replicas(2)).await);
    refused(serve.delete_backend("b", true).await);
    refused(serve.create_endpoint("f", Endpoint::new("a").route("/f")).await);
    refused(serve.set_traffic("e", [("b", 1.0)]).await);
    refused(serve.shadow_traffic("e", "b", 0.5).await);
    refused(serve.delete_endpoint("e").await);
    assert_eq!(ask(&serve, "e").await, Ok(1), "what there is serves on");
    folder.clear();
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok(2));
    assert_eq!((folder.kept("c"), &folder.kept("a").unwrap()["num_replicas"]), (None, &json!(1)));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_cannot_be_written_down_as_undone_is_told_in_the_status_until_it_is() {
    let folder = Folder::new();
    let serve = folder.serve().await;
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    // Tried until the time-out, which leaves time to get in the way.
    let backend = Backend::new(move |_| match failing.load(SeqCst) {
        true => Err("not now".into()),
        false => Ok(Number(1)),
    });
    let config = config().startup_timeout(Duration::from_millis(200));
    serve.create_backend("a", backend.handles::<Ask>(), config).await.unwrap();
    fails.store(true, SeqCst);
    let update = serve.update_backend_config("a", BackendUpdate::default().num_replicas(3));
    let obstructed = async {
        until("the change, kept", || folder.kept("a").unwrap()["num_replicas"] == 3).await;
        folder.obstruct();
    };
    let (updated, ()) = tokio::join!(update, obstructed);
    assert_eq!(updated.unwrap_err().code(), "start_failed");
    assert_eq!(serve.get_backend_config("a").unwrap().num_replicas, 1);
    let unsaved = serve.status().unsaved.expect("the file says something else");
    assert!(unsaved.contains("state"), "{unsaved}");
    folder.clear();
    // Any change writes all of it, even one that changes nothing.
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(1)).await.unwrap();
    assert_eq!((serve.status().unsaved, &folder.kept("a").unwrap()["num_replicas"]), (None, &json!(1)));
    serve.shutdown().await.unwrap();
}
