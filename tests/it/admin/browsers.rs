//! No web page changes anything: other hosts, other origins, and what a form can send are refused.

use greenroom::Listen;
use serde_json::json;

use super::{deployed, refused, service};

const JSON: &str = "content-type: application/json";

#[actix_web::test]
async fn a_host_that_is_not_this_machine_is_refused_so_that_no_name_can_be_bent_to_it() {
    let (serve, _, api) = deployed().await;
    for host in ["host: evil.example", "host: evil.example:8265", "host: 10.0.0.1", "host: "] {
        let read = api.raw("GET", "/api/serve/config", &[host], "").await;
        assert_eq!(refused(&read).1, "foreign_host", "{host}");
        let change = api.raw("PUT", "/api/serve/config", &[host, JSON], "{}").await;
        assert_eq!((change.status, change.code().as_str()), (403, "foreign_host"), "{host}");
    }
    assert_eq!(api.raw("GET", "/api/serve/status", &[], "").await.status / 100, 4, "no host at all");
    let port = api.0.port();
    for host in [format!("localhost:{port}"), "LOCALHOST".into(), format!("[::1]:{port}"), "127.0.0.2".into()]
    {
        let host = format!("host: {host}");
        assert_eq!(api.raw("GET", "/api/serve/status", &[&host], "").await.status, 200, "{host}");
    }
    assert_eq!(serve.list_backends().len(), 2, "nothing was changed");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_page_of_another_origin_is_refused_and_told_no_permission_beforehand() {
    let (serve, _, api) = deployed().await;
    let own = format!("origin: http://{}", api.0);
    for origin in ["origin: http://evil.example", "origin: null", "origin: http://localhost:3000"] {
        for (method, path) in [
            ("GET", "/api/serve/status"),
            ("PUT", "/api/serve/config"),
            ("DELETE", "/api/serve/endpoints/which"),
            ("POST", "/api/serve/shutdown"),
            ("OPTIONS", "/api/serve/config"),
            ("POST", "/api/unknown"),
        ] {
            let answer = api.ask(method, path, &[origin, JSON], "{}").await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, "foreign_origin"),
                "{origin} {method} {path}"
            );
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let site = api.ask("POST", "/api/serve/shutdown", &["sec-fetch-site: cross-site"], "").await;
    assert_eq!(site.code(), "foreign_origin");
    let preflight = api.ask("OPTIONS", "/api/serve/config", &[&own], "").await;
    assert_eq!((preflight.status, preflight.header("allow")), (405, Some("GET, HEAD, PUT")));
    assert_eq!(api.ask("GET", "/api/serve/status", &[&own], "").await.status, 200, "a page of our own");
    assert_eq!(serve.list_endpoints().len(), 1, "nothing was changed");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_a_form_can_send_changes_nothing() {
    let (serve, _, api) = service().await;
    let body = json!({"backends": [{"name": "one", "registered": "one"}]}).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let kind = format!("content-type: {kind}");
        for (method, path) in [
            ("PUT", "/api/serve/config"),
            ("POST", "/api/serve/rollback"),
            ("POST", "/api/serve/shutdown"),
            ("PATCH", "/api/serve/backends/one"),
        ] {
            let answer = api.ask(method, path, &[&kind], &body).await;
            let code = (answer.status, answer.code());
            assert_eq!(code, (415, "unsupported_media_type".into()), "{method} {path} {kind}");
        }
        let empty = api.ask("POST", "/api/serve/shutdown", &[&kind], "").await;
        assert_eq!(empty.status, 415, "a form without fields");
    }
    let untyped = api.ask("POST", "/api/serve/rollback", &[], &body).await;
    assert_eq!(untyped.status, 415, "a body without a type");
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_service_s_own_routes_stay_on_the_admin_listener_for_whoever_asks() {
    let (serve, _, api) = service().await;
    for path in ["/-/healthz", "/-/readyz", "/-/routes", "/metrics"] {
        assert_eq!(api.raw("GET", path, &["host: monitoring.example"], "").await.status, 200, "{path}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_address_that_others_reach_is_refused_with_the_reason() {
    let (serve, _, _) = service().await;
    for host in ["0.0.0.0", "::", "192.0.2.1", "example.com"] {
        let error = serve.listen_admin(Listen::on(host, 0)).await.unwrap_err();
        assert_eq!(error.code(), "invalid", "{host}");
        let text = error.to_string();
        assert!(text.contains("loopback") && text.contains("tokens and TLS"), "{text}");
    }
    for host in ["localhost", "127.0.0.1"] {
        serve.listen_admin(Listen::on(host, 0)).await.unwrap();
    }
    serve.shutdown().await.unwrap();
}
