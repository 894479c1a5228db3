//! Who gave a backend: what is put by hand over what the program gives, and onto what awaits its code.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use greenroom::{Endpoint, Listen, Serve};
use serde_json::{Value, json};

use super::{Folder, ask, config, frail, number};
use crate::{admin::Api, support::uncounted};

/// A Serve that can be asked from outside, with a thread of its own.
async fn start(folder: &Folder) -> Serve {
    let options = uncounted().serving_threads(NonZeroUsize::MIN);
    Serve::start(options.state(folder.state())).await.unwrap()
}

/// Puts the backend `a` by hand.
async fn put(serve: &Serve, decl: &Value) {
    let api = Api(serve.listen_admin(Listen::default()).await.unwrap());
    let answer = api.put("/api/serve/backends/a", decl).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[actix_web::test]
async fn what_is_put_over_a_backend_of_the_program_holds_when_the_program_gives_the_same_again() {
    let folder = Folder::new();
    let serve = start(&folder).await;
    serve.create_backend("a", number(1), config()).await.unwrap();
    put(&serve, &json!({"registered": "a", "num_replicas": 3})).await;
    serve.shutdown().await.unwrap();
    let serve = start(&folder).await;
    serve.create_backend("a", number(1), config()).await.unwrap();
    assert_eq!(serve.get_backend_config("a").unwrap().num_replicas, 3);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_the_program_gave_in_vain_is_not_what_it_gave_last() {
    let folder = Folder::new();
    let serve = start(&folder).await;
    let fails = Arc::new(AtomicBool::new(false));
    serve.create_backend("a", frail(1, &fails), config().version("1")).await.unwrap();
    let given = folder.json()["given"].clone();
    fails.store(true, SeqCst);
    serve.deploy_backend("a", frail(2, &fails), config().version("2")).await.unwrap_err();
    assert_eq!(folder.json()["given"], given);
    serve.shutdown().await.unwrap();
    // So the same again is something new, and holds.
    let serve = start(&folder).await;
    serve.create_backend("a", number(2), config().version("2")).await.unwrap();
    assert_eq!(serve.get_backend_config("a").unwrap().version.as_deref(), Some("2"));
    serve.shutdown().await.unwrap();

    let folder = Folder::new();
    let serve = start(&folder).await;
    serve.register("a", frail(1, &fails)).unwrap();
    fails.store(false, SeqCst);
    put(&serve, &json!({"registered": "a"})).await;
    fails.store(true, SeqCst);
    serve.deploy_backend("a", frail(2, &fails), config().version("2")).await.unwrap_err();
    assert_eq!(folder.json()["given"]["backends"], json!([]), "the program had given nothing before");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_is_put_onto_a_backend_that_awaits_its_code_is_taken_with_all_that_it_says() {
    let folder = Folder::new();
    let serve = start(&folder).await;
    serve.create_backend("a", number(1), config()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.shutdown().await.unwrap();
    let serve = start(&folder).await;
    serve.register("other", number(2)).unwrap();
    put(&serve, &json!({"registered": "other", "max_queued_queries": 7})).await;
    assert_eq!(ask(&serve, "e").await, Ok(2));
    assert_eq!(serve.get_backend_config("a").unwrap(), config().max_queued_queries(7));
    let kept = folder.kept("a").unwrap();
    assert_eq!((&kept["registered"], &kept["max_queued_queries"]), (&json!("other"), &json!(7)));
    serve.shutdown().await.unwrap();
}
