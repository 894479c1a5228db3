//! The service's own routes: alive, ready, routes, and where they are not.

use std::time::Duration;

use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Listen};

use super::{Lab, lab};
use crate::wire::{ask, get, listening};

#[actix_web::test]
async fn healthz_is_alive_and_routes_lists_what_there_is() {
    let (serve, address) = lab().await;
    serve.create_endpoint("hidden", Endpoint::new("lab")).await.unwrap();
    serve.create_endpoint("p", Endpoint::new("lab").route("/p/{a}").methods(["POST"])).await.unwrap();
    let admin = serve.listen_admin(Listen::default()).await.unwrap();
    for at in [address, admin] {
        assert_eq!(get(at, "/-/healthz").await.text(), "success");
        let want = serde_json::json!({"/lab": ["lab", ["GET", "POST"]], "/p/{a}": ["p", ["POST"]]});
        assert_eq!(get(at, "/-/routes").await.json(), want);
    }
    assert_eq!(get(admin, "/lab?a=1").await.status, 404, "the admin listener carries no data");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn readyz_names_the_endpoints_that_cannot_be_served() {
    let (serve, address) = lab().await;
    assert_eq!(get(address, "/-/readyz").await.status, 200);
    let none = BackendConfig::default().num_replicas(0);
    serve.create_backend("none", Backend::new(|_| Ok(Lab)).json::<super::Add>(), none).await.unwrap();
    serve.create_endpoint("later", Endpoint::new("none")).await.unwrap();
    let answer = get(address, "/-/readyz").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with(": later"), "{detail}");
    serve.update_backend_config("none", BackendUpdate::default().num_replicas(1)).await.unwrap();
    assert_eq!(get(address, "/-/readyz").await.text(), "ready");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn head_works_on_service_routes_and_other_methods_get_405() {
    let (serve, address) = lab().await;
    for path in ["/-/healthz", "/-/readyz", "/-/routes", "/metrics"] {
        assert_eq!(ask(address, "HEAD", path, &[], "").await.status, 200, "{path}");
        let answer = ask(address, "POST", path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
        assert_eq!(answer.code(), "method_not_allowed");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_s_route_does_not_hide_a_service_route() {
    let (serve, address) = listening(1).await;
    let lab = Backend::new(|_| Ok(Lab)).json::<super::Echo>();
    serve.create_backend("lab", lab, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("any", Endpoint::new("lab").route("/{text}")).await.unwrap();
    serve.create_endpoint("two", Endpoint::new("lab").route("/{text}/{more}")).await.unwrap();
    assert_eq!(get(address, "/-/healthz").await.text(), "success");
    assert!(get(address, "/metrics").await.text().starts_with("# HELP"));
    assert_eq!(get(address, "/other").await.text(), r#""other""#);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let (serve, address) = listening(1).await;
    let error = serve.listen(Listen::on("127.0.0.1", address.port())).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "internal");
    assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
    let error = serve.listen(Listen::on("no such host", 0)).await.unwrap_err();
    assert!(error.to_string().contains("no such host"), "{error}");
    assert_eq!(get(address, "/-/healthz").await.status, 200, "the first goes on");
    let began = std::time::Instant::now();
    serve.shutdown().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let error = serve.listen(Listen::default()).await.unwrap_err();
    assert_eq!(error.code(), "shutting_down");
}
