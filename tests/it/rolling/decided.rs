//! What of a change replaces the replicas, and what leaves them as they are.

use greenroom::{BackendUpdate, Placement, Resources};

use super::*;
use crate::support::until;

#[actix_web::test]
async fn the_same_version_and_options_change_nothing_whatever_the_code() {
    let serve = with_cpus_for(9).await;
    open(&serve, counter("old"), config("1", 2)).await;
    serve.deploy_backend("counter", counter("other"), config("1", 2)).await.unwrap();
    assert_eq!((generations(&serve), status(&serve).release), (vec![1, 2], 1));
    assert_all(&serve, "old", 2).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_same_version_with_more_replicas_only_adds_some_of_the_code_that_runs() {
    let serve = with_cpus_for(9).await;
    open(&serve, counter("old"), config("1", 2)).await;
    serve.deploy_backend("counter", counter("other"), config("1", 3)).await.unwrap();
    assert_eq!((generations(&serve), status(&serve).release), (vec![1, 2, 3], 1));
    assert_all(&serve, "old", 3).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn limits_and_timeouts_are_told_to_those_that_run_and_a_user_config_is_given_in_place() {
    let serve = with_cpus_for(9).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let pushed = config("1", 2).max_queued_queries(7).graceful_shutdown_timeout(WORK);
    serve.deploy_backend("counter", counter("other"), pushed.clone()).await.unwrap();
    let told = pushed.user_config(json!({"ms": 1}));
    serve.deploy_backend("counter", counter("other"), told.clone()).await.unwrap();
    assert_eq!(serve.get_backend_config("counter").unwrap(), told);
    assert_eq!((generations(&serve), status(&serve).release), (vec![1, 2], 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_version_a_closure_is_always_new_and_what_has_a_fingerprint_is_new_with_another() {
    let serve = with_cpus_for(9).await;
    let config = || BackendConfig::default().resources(Resources::none());
    open(&serve, counter("first"), config()).await;
    let deploy = |backend| serve.deploy_backend("counter", backend, config());
    deploy(counter("second")).await.unwrap();
    assert_eq!(generations(&serve), [2]);
    deploy(counter("third").fingerprint("a")).await.unwrap();
    assert_eq!(generations(&serve), [3]);
    deploy(counter("the same").fingerprint("a")).await.unwrap();
    assert_eq!(generations(&serve), [3]);
    assert_all(&serve, "third", 1).await;
    deploy(counter("fourth").fingerprint("b")).await.unwrap();
    assert_all(&serve, "fourth", 1).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_update_of_options_that_only_new_replicas_can_follow_replaces_them() {
    let serve = with_cpus_for(4).await;
    open(&serve, counter("it"), config("1", 2)).await;
    let update = BackendUpdate::default;
    let larger = greenroom::ResourcesUpdate { num_cpus: Some(2.0), ..Default::default() };
    let updates = [
        update().placement(Placement::Dedicated),
        update().num_threads(7),
        update().resources(larger),
        update().idempotent(true),
        update().version("2"),
    ];
    for (i, update) in updates.into_iter().enumerate() {
        let last = status(&serve).release;
        serve.update_backend_config("counter", update.clone()).await.unwrap();
        assert_eq!(status(&serve).release, last + 1, "{update:?}");
        let first = 2 * i as u64 + 3;
        assert_eq!(generations(&serve), [first, first + 1], "{update:?}");
    }
    assert_all(&serve, "it", 2).await;
    assert_eq!(serve.handle::<Work>("counter").unwrap().call(Work).await.unwrap().threads, 7);
    assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), 0.0);
    let smaller = greenroom::ResourcesUpdate { num_cpus: Some(0.5), ..Default::default() };
    serve.update_backend_config("counter", update().resources(smaller)).await.unwrap();
    assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), 3.0);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn replicas_that_would_ask_for_more_than_there_is_are_refused_with_the_cure_and_nothing_changes() {
    let serve = with_cpus_for(4).await;
    open(&serve, counter("it"), config("1", 4)).await;
    let two = greenroom::ResourcesUpdate { num_cpus: Some(2.0), ..Default::default() };
    let refused = |update| serve.update_backend_config("counter", update);
    let error = refused(BackendUpdate::default().resources(two.clone())).await.unwrap_err().to_string();
    assert!(
        error.contains("num_replicas 4: each replica asks for num_cpus 2") && error.contains("2 would fit"),
        "{error}"
    );
    let error =
        refused(BackendUpdate::default().resources(two).num_replicas(2)).await.unwrap_err().to_string();
    assert!(error.ends_with("set num_replicas to 2 first, and what each asks for afterwards"), "{error}");
    assert_eq!((generations(&serve), status(&serve).release), (vec![1, 2, 3, 4], 1));
    assert_all(&serve, "it", 4).await;
    serve.shutdown().await.unwrap();
}

#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Other;

impl Handler<Other> for Counter {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Other, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

/// Another type of actor that takes the same.
struct Substitute;

impl Actor for Substitute {
    type Context = ReplicaContext<Self>;
}

impl Handler<Work> for Substitute {
    type Result = Result<Seen, ServeError>;
    fn handle(&mut self, _: Work, _: &mut Self::Context) -> Self::Result {
        Ok(Seen { made_as: "substitute", generation: 0, threads: 0 })
    }
}

#[actix_web::test]
async fn another_actor_type_takes_over_if_it_takes_the_same_messages_and_is_refused_with_what_differs_else() {
    let serve = with_cpus_for(2).await;
    let plain = || config("1", 2).user_config(None);
    open(&serve, counter("old"), plain()).await;
    let substitute = Backend::new(|_| Ok(Substitute)).handles::<Work>();
    let error = serve.deploy_backend("counter", substitute, plain().version("2")).await.unwrap_err();
    let told = error.to_string();
    assert!(
        error.code() == "invalid" && told.contains("does not take greenroom::http_call::HttpCall"),
        "{told}"
    );
    assert!(told.ends_with("deploy it as another backend and move the traffic there"), "{told}");
    let more = counter("more").handles::<Other>();
    let told = serve.deploy_backend("counter", more, plain().version("2")).await.unwrap_err().to_string();
    assert!(told.contains("Other, which the old code does not"), "{told}");
    assert_all(&serve, "old", 2).await;
    let substitute = Backend::new(|_| Ok(Substitute)).json::<Work>();
    let handle = serve.handle::<Work>("counter").unwrap();
    serve.deploy_backend("counter", substitute, plain().version("2")).await.unwrap();
    assert_eq!(handle.call(Work).await.unwrap().made_as, "substitute");
    assert_all(&serve, "substitute", 2).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_the_new_code_can_copy_can_be_shadowed_from_then_on() {
    let serve = with_cpus_for(4).await;
    let config = |version: &str| config(version, 1).user_config(None);
    let handles = || Backend::new(|_| Ok(Substitute)).handles::<Work>();
    serve.create_backend("counter", handles(), config("1")).await.unwrap();
    serve.create_backend("main", handles(), config("1")).await.unwrap();
    serve.create_endpoint("main", Endpoint::new("main")).await.unwrap();
    let refused = serve.shadow_traffic("main", "counter", 1.0).await;
    assert_eq!(refused.unwrap_err().code(), "not_copied");
    serve.deploy_backend("counter", handles().shadows::<Work>(), config("2")).await.unwrap();
    serve.shadow_traffic("main", "counter", 1.0).await.unwrap();
    // And what could be before still can.
    serve.deploy_backend("counter", handles(), config("3")).await.unwrap();
    serve.handle::<Work>("main").unwrap().call(Work).await.unwrap();
    let copies = || serve.status().endpoints[0].shadow[0].copies.answered;
    until("the copy is answered", || copies() == 1).await;
    serve.shutdown().await.unwrap();
}

#[cfg(feature = "onnx")]
#[actix_web::test]
async fn a_model_is_replaced_when_its_file_has_other_bytes_and_stays_when_it_has_the_same() {
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx");
    let folder = std::env::temp_dir().join(format!("greenroom-rolling-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("model.onnx");
    std::fs::copy(digits, &copy).unwrap();
    let serve = with_cpus_for(4).await;
    let deploy = |path: std::path::PathBuf| {
        serve.deploy_backend("digits", Backend::onnx(path), BackendConfig::default())
    };
    deploy(digits.into()).await.unwrap();
    deploy(copy.clone()).await.unwrap();
    assert_eq!((generations(&serve), status(&serve).release), (vec![1], 1), "the same bytes elsewhere");
    // Its documentation says something else: field 6 of the file's format.
    let mut bytes = std::fs::read(digits).unwrap();
    bytes.extend(b"\x32\x03new");
    std::fs::write(&copy, bytes).unwrap();
    deploy(copy.clone()).await.unwrap();
    assert_eq!((generations(&serve), status(&serve).release), (vec![2], 2));
    std::fs::remove_dir_all(&folder).unwrap();
    let error = deploy(copy).await.unwrap_err();
    assert!(error.code() == "invalid" && error.to_string().contains("cannot be read"), "{error}");
    assert_eq!((generations(&serve), status(&serve).state), (vec![2], BackendState::Running));
    serve.shutdown().await.unwrap();
}
