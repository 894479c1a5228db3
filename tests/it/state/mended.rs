//! A restored backend that does not start: an operator mends it, or takes it away, while the process runs.

use super::*;

/// A Serve that goes on with backend `b` behind `e`, whose code does not start in this process.
async fn ill(folder: &Folder) -> Serve {
    let serve = folder.serve().await;
    serve.create_backend("b", number(1), config()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    serve.shutdown().await.unwrap();
    let serve = folder.serve().await;
    let fails = Arc::new(AtomicBool::new(true));
    let failed = serve.create_backend("b", frail(1, &fails), config()).await.unwrap_err();
    assert_eq!((failed.code(), state(&serve)), ("start_failed", BackendState::Creating));
    serve
}

fn state(serve: &Serve) -> BackendState {
    serve.status().backends[0].state
}

#[actix_web::test]
async fn other_code_mends_it_and_what_does_not_start_either_is_told_and_taken_back() {
    tokio::time::pause();
    let folder = Folder::new();
    let serve = ill(&folder).await;
    let fails = Arc::new(AtomicBool::new(true));
    let failed = serve.deploy_backend("b", frail(2, &fails), config().num_replicas(2)).await.unwrap_err();
    assert_eq!((failed.code(), state(&serve)), ("rollout_failed", BackendState::Creating), "{failed}");
    assert_eq!(serve.get_backend_config("b").unwrap().num_replicas, 1);
    assert_eq!(folder.kept("b").unwrap()["num_replicas"], 1);
    assert!(serve.ready().is_err());
    serve.deploy_backend("b", number(3), config()).await.unwrap();
    assert_eq!((state(&serve), ask(&serve, "e").await), (BackendState::Running, Ok(3)));
    assert_eq!(serve.ready(), Ok(()));
    tokio::time::resume();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn it_can_be_deleted() {
    tokio::time::pause();
    let folder = Folder::new();
    let serve = ill(&folder).await;
    serve.delete_endpoint("e").await.unwrap();
    serve.delete_backend("b", false).await.unwrap();
    assert_eq!((serve.list_backends().len(), folder.kept("b")), (0, None));
    tokio::time::resume();
    serve.shutdown().await.unwrap();
}
