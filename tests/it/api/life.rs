//! Backends and endpoints from their making to their deletion.

use std::sync::atomic::Ordering;

use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaState, ServeError, TrafficPolicy};

use super::{Next, adder, here};

#[actix_web::test]
async fn a_backend_is_made_read_changed_listed_and_deleted() {
    let serve = here().await;
    let (backend, living) = adder();
    let config = BackendConfig::default().num_replicas(2).max_concurrent_queries(5);
    serve.create_backend("add", backend, config.clone()).await.unwrap();
    assert_eq!(serve.get_backend_config("add").unwrap(), config);
    serve.update_backend_config("add", BackendUpdate::default().max_queued_queries(7)).await.unwrap();
    let changed = config.max_queued_queries(7);
    assert_eq!(serve.get_backend_config("add").unwrap(), changed, "only what was given has changed");
    let (other, _) = adder();
    serve.create_backend("a-first", other, BackendConfig::default()).await.unwrap();
    let listed: Vec<_> = serve.list_backends().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(listed, ["a-first", "add"]);
    let status = serve.status();
    let slots: Vec<_> = status.backends[1].replicas.iter().map(|r| (r.id.slot, r.state)).collect();
    assert_eq!(slots, [(0, ReplicaState::Running), (1, ReplicaState::Running)]);
    assert_eq!(living.load(Ordering::SeqCst), 2);
    serve.delete_backend("add", false).await.unwrap();
    assert_eq!(living.load(Ordering::SeqCst), 0, "its actors are gone once delete has returned");
    assert_eq!(serve.get_backend_config("add").unwrap_err().code(), "unknown_backend");
    assert!(!serve.metrics().contains("backend=\"add\""), "its labels too");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_is_made_listed_and_deleted_and_its_handles_follow() {
    let serve = here().await;
    serve.create_backend("add", adder().0, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("add")).await.unwrap();
    let handle = serve.handle::<Next>("e").unwrap();
    assert_eq!(handle.call(Next(1)).await, Ok(2));
    let listed = serve.list_endpoints();
    assert_eq!((listed.len(), listed[0].name.as_str(), &listed[0].route), (1, "e", &None));
    assert_eq!(listed[0].traffic, TrafficPolicy::single("add".try_into().unwrap()));
    serve.delete_endpoint("e").await.unwrap();
    assert_eq!(handle.call(Next(1)).await.unwrap_err().code(), "unknown_endpoint");
    assert_eq!(serve.handle::<Next>("e").unwrap_err().code(), "unknown_endpoint");
    serve.create_endpoint("e", Endpoint::new("add")).await.unwrap();
    assert_eq!(handle.call(Next(2)).await, Ok(3), "an old handle finds the new endpoint of its name");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_an_endpoint_names_is_not_deleted() {
    let serve = here().await;
    serve.create_backend("add", adder().0, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("add")).await.unwrap();
    for force in [false, true] {
        let error = serve.delete_backend("add", force).await.unwrap_err();
        assert_eq!(error.code(), "in_use");
        assert!(error.to_string().contains("add") && error.to_string().contains("endpoint e"), "{error}");
    }
    assert_eq!(serve.handle::<Next>("e").unwrap().call(Next(1)).await, Ok(2));
    serve.delete_endpoint("e").await.unwrap();
    serve.delete_backend("add", false).await.unwrap();
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_over_two_backends_shares_its_calls() {
    let serve = here().await;
    for (name, answer) in [("a", 1), ("b", 2)] {
        let backend = Backend::from_fn(move |_: Next| async move { Ok(answer) });
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    }
    let policy = TrafficPolicy::new([("a", 0.5), ("b", 0.5)]).unwrap();
    serve.create_endpoint("split", Endpoint::split(policy)).await.unwrap();
    let handle = serve.handle::<Next>("split").unwrap();
    let mut sum = [0; 3];
    for _ in 0..400 {
        sum[usize::try_from(handle.call(Next(0)).await.unwrap()).unwrap()] += 1;
    }
    assert!(sum[1] > 100 && sum[2] > 100, "{sum:?}");
    for name in ["a", "b"] {
        assert_eq!(serve.delete_backend(name, true).await.unwrap_err().code(), "in_use", "{name}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn deleting_waits_for_what_runs_unless_it_is_forced() {
    tokio::time::pause();
    let serve = here().await;
    for force in [false, true] {
        let slow = Backend::from_fn(|_: Next| async {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            Ok(1)
        });
        serve.create_backend("slow", slow, BackendConfig::default()).await.unwrap();
        serve.create_endpoint("slow", Endpoint::new("slow")).await.unwrap();
        let call = serve.handle::<Next>("slow").unwrap().call(Next(1));
        serve.delete_endpoint("slow").await.unwrap();
        let began = tokio::time::Instant::now();
        serve.delete_backend("slow", force).await.unwrap();
        let took = began.elapsed().as_secs_f64();
        if force {
            assert!(took < 1.0, "{took}");
            assert_eq!(call.await, Err(ServeError::Stopped));
        } else {
            assert!((4.9..5.2).contains(&took), "{took}");
            assert_eq!(call.await, Ok(1));
        }
    }
    serve.shutdown().await.unwrap();
}
