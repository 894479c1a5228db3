//! HTTP: methods, routes, bodies, the backend's own answers, errors.

use actix::{Actor, Handler, Message};
use actix_web::{
    App, HttpResponse,
    http::{Method, StatusCode, header},
    middleware::DefaultHeaders,
    test,
};
use greenroom::{
    Backend, BackendConfig, Endpoint, HttpAnswer, HttpCall, Ingress, Listen, ReplicaContext, Serve,
    ServeError,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Name, create_named, here, named};
use crate::{
    support::{MEANT, quiet_panics},
    wire::get,
};

/// What an app with this Serve's routes answers: status, `Allow` or `Location`, content type, body. A macro,
/// since actix-web does not name the type of its requests.
macro_rules! answer {
    ($serve:expr, $request:expr) => {{
        let ingress = Ingress::default().service_routes();
        let app = test::init_service(App::new().configure($serve.ingress_with(ingress))).await;
        let response = test::call_service(&app, $request.to_request()).await;
        let text = |name| response.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let (kind, allow, to) = (text(header::CONTENT_TYPE), text(header::ALLOW), text(header::LOCATION));
        let status = response.status().as_u16();
        Told { status, kind, allow, to, body: test::read_body(response).await.to_vec() }
    }};
}

struct Told {
    status: u16,
    kind: String,
    allow: String,
    to: String,
    body: Vec<u8>,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn request(method: Method, path: &str) -> test::TestRequest {
    test::TestRequest::with_uri(path).method(method)
}

#[actix_web::test]
async fn an_endpoint_answers_each_of_its_methods_and_is_listed_among_the_routes() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve
        .create_endpoint("endpoint", Endpoint::new("a").route("/api").methods(["GET", "POST"]))
        .await
        .unwrap();
    assert_eq!(answer!(serve, request(Method::GET, "/api")).json(), "a");
    assert_eq!(answer!(serve, request(Method::POST, "/api").set_json(json!({}))).json(), "a");
    let routes = answer!(serve, request(Method::GET, "/-/routes")).json();
    assert_eq!(routes, json!({"/api": ["endpoint", ["GET", "POST"]]}));
    let refused = answer!(serve, request(Method::PUT, "/api"));
    assert_eq!((refused.status, refused.allow.as_str()), (405, "GET, HEAD, POST"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_route_is_matched_exactly() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/api")).await.unwrap();
    for path in ["/", "/ap", "/api/", "/api/more", "/API"] {
        assert_eq!(answer!(serve, request(Method::GET, path)).status, 404, "{path}");
    }
    assert_eq!(answer!(serve, request(Method::GET, "/api?more=1")).status, 200);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_route_leads_to_the_newest_endpoint_that_has_it() {
    let serve = here().await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("one", Endpoint::new("a").route("/api")).await.unwrap();
    assert_eq!(answer!(serve, request(Method::GET, "/api")).json(), "a");
    serve.delete_endpoint("one").await.unwrap();
    assert_eq!(answer!(serve, request(Method::GET, "/api")).status, 404);
    serve.create_endpoint("two", Endpoint::new("b").route("/api")).await.unwrap();
    assert_eq!(answer!(serve, request(Method::GET, "/api")).json(), "b");
    serve.shutdown().await.unwrap();
}

/// Answers by the path: text, HTML, JSON, a redirect, a teapot, or the body it was sent.
struct Raw;

impl Actor for Raw {
    type Context = ReplicaContext<Self>;
}

impl Handler<HttpCall> for Raw {
    type Result = Result<HttpAnswer, ServeError>;
    fn handle(&mut self, call: HttpCall, _: &mut Self::Context) -> Self::Result {
        let location = header::HeaderValue::from_static("/raw/plain");
        Ok(match call.param("what").unwrap() {
            "plain" => HttpAnswer::ok("text/plain", "Hello, world!"),
            "html" => HttpAnswer::ok("text/html", "<html>Hello</html>"),
            "json" => HttpAnswer::ok("application/json", r#"{"hello":"world"}"#),
            "redirect" => {
                HttpAnswer::ok("text/plain", "").status(StatusCode::FOUND).header(header::LOCATION, location)
            }
            "teapot" => HttpAnswer::ok("text/plain", "short and stout").status(StatusCode::IM_A_TEAPOT),
            _ => HttpAnswer::ok("application/octet-stream", call.body),
        })
    }
}

async fn raw() -> Serve {
    let serve = here().await;
    serve.create_backend("raw", Backend::new(|_| Ok(Raw)).raw(), BackendConfig::default()).await.unwrap();
    let endpoint = Endpoint::new("raw").route("/raw/{what}").methods(["GET", "POST"]);
    serve.create_endpoint("raw", endpoint).await.unwrap();
    serve
}

#[actix_web::test]
async fn a_backend_s_own_response_comes_through_with_status_headers_and_body() {
    let serve = raw().await;
    for (what, status, kind, to, body) in [
        ("plain", 200, "text/plain", "", "Hello, world!"),
        ("html", 200, "text/html", "", "<html>Hello</html>"),
        ("json", 200, "application/json", "", r#"{"hello":"world"}"#),
        ("redirect", 302, "text/plain", "/raw/plain", ""),
        ("teapot", 418, "text/plain", "", "short and stout"),
    ] {
        let told = answer!(serve, request(Method::GET, &format!("/raw/{what}")));
        assert_eq!((told.status, told.kind.as_str(), told.to.as_str()), (status, kind, to), "{what}");
        assert_eq!(told.body, body.as_bytes());
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_of_640_kib_comes_back_whole() {
    let serve = raw().await;
    let body = "a long and winding body, ".repeat(640 * 1024 / 25);
    let told = answer!(serve, request(Method::POST, "/raw/echo").set_payload(body.clone()));
    assert!(told.status == 200 && told.body == body.into_bytes());
    serve.shutdown().await.unwrap();
}

/// A message with fields.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<(u64, String, Option<bool>), ServeError>")]
struct Fields {
    n: u64,
    text: String,
    flag: Option<bool>,
}

/// Another method of the same class.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<Option<u64>, ServeError>")]
struct Nothing {}

#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
struct Fail {
    panics: bool,
}

struct Class;

impl Actor for Class {
    type Context = ReplicaContext<Self>;
}

impl Handler<Fields> for Class {
    type Result = Result<(u64, String, Option<bool>), ServeError>;
    fn handle(&mut self, Fields { n, text, flag }: Fields, _: &mut Self::Context) -> Self::Result {
        Ok((n, text, flag))
    }
}

impl Handler<Nothing> for Class {
    type Result = Result<Option<u64>, ServeError>;
    fn handle(&mut self, _: Nothing, _: &mut Self::Context) -> Self::Result {
        Ok(None)
    }
}

impl Handler<Fail> for Class {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Fail { panics }: Fail, _: &mut Self::Context) -> Self::Result {
        assert!(!panics, "{MEANT}");
        Err(ServeError::from_user("a secret place, line 7"))
    }
}

async fn class() -> Serve {
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Class)).json::<Fields>().json::<Nothing>().json::<Fail>();
    serve.create_backend("class", backend, BackendConfig::default()).await.unwrap();
    let endpoint = Endpoint::new("class").route("/class").methods(["GET", "POST"]);
    serve.create_endpoint("class", endpoint).await.unwrap();
    serve
}

#[actix_web::test]
async fn a_query_a_body_and_a_handle_bring_the_same_message() {
    let serve = class().await;
    let by_query = answer!(serve, request(Method::GET, "/class?n=1&text=a%20b&flag=true")).json();
    let body = json!({"n": 1, "text": "a b", "flag": true});
    let by_body = answer!(serve, request(Method::POST, "/class").set_json(body)).json();
    let handle = serve.handle::<Fields>("class").unwrap();
    let by_handle = handle.call(Fields { n: 1, text: "a b".into(), flag: Some(true) }).await.unwrap();
    assert_eq!(
        (by_query, by_body, by_handle),
        (json!([1, "a b", true]), json!([1, "a b", true]), (1, "a b".into(), Some(true)))
    );
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_header_names_the_method_and_an_unknown_one_is_told_which_there_are() {
    let serve = class().await;
    let call = |method| request(Method::GET, "/class").insert_header(("X-SERVE-CALL-METHOD", method));
    assert_eq!(answer!(serve, call("nothing")).json(), Value::Null);
    let unknown = answer!(serve, call("nobody"));
    let detail = unknown.json()["detail"].as_str().unwrap().to_owned();
    assert!(unknown.status == 400 && detail.contains("fields, nothing, fail"), "{detail}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_failing_or_panicking_handler_is_500_with_a_code_and_no_traceback_and_the_next_call_is_served() {
    quiet_panics();
    let serve = class().await;
    let fail = |panics| {
        let request = request(Method::GET, &format!("/class?panics={panics}"));
        request.insert_header(("x-serve-call-method", "fail"))
    };
    for (panics, code) in [(false, "backend_error"), (true, "panicked"), (true, "panicked")] {
        let told = answer!(serve, fail(panics));
        assert_eq!((told.status, told.kind.as_str()), (500, "application/problem+json"));
        assert_eq!(told.json()["code"], code);
        let text = String::from_utf8(told.body).unwrap();
        assert!(!text.contains(MEANT) && !text.contains(".rs"), "{text}");
    }
    assert_eq!(answer!(serve, request(Method::GET, "/class?n=1&text=x")).status, 200);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_host_s_middleware_is_passed_by_endpoints_and_service_routes() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/api")).await.unwrap();
    let origin = DefaultHeaders::new().add((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
    let app = App::new().wrap(origin).configure(serve.ingress_with(Ingress::default().service_routes()));
    let app = test::init_service(app.route("/own", actix_web::web::to(HttpResponse::Ok))).await;
    for path in ["/api", "/-/routes", "/-/healthz", "/own"] {
        let response = test::call_service(&app, request(Method::GET, path).to_request()).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*", "{path}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn two_listeners_of_one_instance_serve_the_same_routes() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let listen = || Listen::default().threads(1.try_into().unwrap());
    let addresses = [serve.listen(listen()).await.unwrap(), serve.listen(listen()).await.unwrap()];
    serve.create_backend("a", named("a"), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a").route("/api")).await.unwrap();
    for address in addresses {
        assert_eq!(get(address, "/api").await.json(), "a");
    }
    assert_eq!(serve.handle::<Name>("e").unwrap().call(Name {}).await, Ok("a"));
    serve.shutdown().await.unwrap();
}
