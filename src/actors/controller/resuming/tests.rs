//! What a Controller that ended in the middle of something leaves behind is put right by the next.

use std::time::Duration;

use crate::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};

#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Ask;

#[actix_web::test]
async fn calls_that_wait_for_nobody_are_let_go_by_the_controller_that_comes_next() {
    tokio::time::pause();
    let serve = Serve::start(ServeOptions::default().current_thread()).await.unwrap();
    let answers = Backend::from_fn(|_: Ask| async { Ok(()) });
    serve.create_backend("a", answers, BackendConfig::default().num_replicas(0)).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    // As if it had ended before the room was closed: calls may wait, and nobody holds them.
    serve.0.office.fleet().backends.values().for_each(|entry| entry.routes.hold(9));
    let waiting = serve.handle::<Ask>("a").unwrap().call(Ask);
    serve.crash_controller().await;
    let told = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    assert_eq!(told.unwrap_err().code(), "no_replica");
    serve.shutdown().await.unwrap();
}
