//! Answers over HTTP: by value where they are JSON, byte by byte where they are not, never those that are large.

use actix::{Actor, Handler};
use actix_web::{
    App,
    http::StatusCode,
    test::{TestRequest, call_and_read_body, init_service},
};
use bytes::Bytes;
use greenroom::{
    Backend, BackendConfig, Compare, Comparisons, Endpoint, HttpAnswer, HttpCall, ReplicaContext, ServeError,
    testing::Stage,
};

use super::{after, beside, compare, counted, off_by, report};

/// Answers with the same bytes whatever it is asked.
struct Parrot(HttpAnswer);

impl Actor for Parrot {
    type Context = ReplicaContext<Self>;
}

impl Handler<HttpCall> for Parrot {
    type Result = Result<HttpAnswer, ServeError>;
    fn handle(&mut self, _: HttpCall, _: &mut Self::Context) -> Self::Result {
        Ok(self.0.clone())
    }
}

/// What came of one request to `primary`, compared with `shadow`.
async fn compared(
    primary: HttpAnswer,
    shadow: HttpAnswer,
    how: Compare,
) -> (Comparisons, Option<[String; 3]>) {
    let stage = Stage::new().await.unwrap();
    for (name, answer) in [("now", primary.clone()), ("next", shadow)] {
        let parrot = Backend::new(move |_| Ok(Parrot(answer.clone()))).raw();
        stage.serve().create_backend(name, parrot, BackendConfig::default()).await.unwrap();
    }
    stage.serve().create_endpoint("shop", Endpoint::new("now").route("/price")).await.unwrap();
    compare(stage.serve(), how).await;
    let app = init_service(App::new().configure(stage.serve().ingress())).await;
    let body = call_and_read_body(&app, TestRequest::get().uri("/price").to_request()).await;
    assert_eq!(body, primary.body);
    let report = after(stage.serve(), 1).await;
    stage.end().await.unwrap();
    let place = report
        .sample
        .first()
        .map(|pair| [pair.path.clone(), pair.primary.found.clone(), pair.shadow.found.clone()]);
    (report.shadow, place)
}

fn json(body: impl Into<Bytes>) -> HttpAnswer {
    HttpAnswer::ok("application/json", body)
}

const AGREED: Comparisons = Comparisons { agreed: 1, differed: 0, failed: 0, skipped: 0, unpaired: 0 };
const DIFFERED: Comparisons = Comparisons { agreed: 0, differed: 1, ..AGREED };

fn place(path: &str, primary: &str, shadow: &str) -> Option<[String; 3]> {
    Some([path.into(), primary.into(), shadow.into()])
}

#[actix_web::test]
async fn json_is_compared_by_value_not_by_its_text() {
    let (a, b) = (json(r#"{"a": [1, 2.50], "b": "x"}"#), json("{\"b\":\"x\",\n\"a\":[1.0,2.5]}"));
    assert_eq!(compared(a.clone(), b, Compare::exact()).await, (AGREED, None));
    let c = json(r#"{"a":[1,2.5],"b":"y"}"#);
    let differs = place("b", "\"x\"", "\"y\"");
    assert_eq!(compared(a.clone(), c.clone(), Compare::exact()).await, (DIFFERED, differs));
    assert_eq!(
        compared(a, c, Compare::by(|p, s| p["a"] == s["a"] || p["b"] != s["b"])).await,
        (AGREED, None)
    );
}

#[actix_web::test]
async fn the_tolerance_holds_for_json_too() {
    let (a, b) = (json(r#"{"p": [0.5]}"#), json(r#"{"p": [0.5009]}"#));
    assert_eq!(compared(a.clone(), b.clone(), Compare::within(1e-3, 0.0)).await, (AGREED, None));
    let differs = place("p[0]", "0.5", "0.5009");
    assert_eq!(compared(a, b, Compare::within(1e-4, 0.0)).await, (DIFFERED, differs));
}

#[actix_web::test]
async fn statuses_are_compared_and_other_headers_are_not() {
    let created = json("1").status(StatusCode::CREATED);
    let differs = place("(status)", "200", "201");
    assert_eq!(compared(json("1"), created, Compare::within(9.0, 9.0)).await, (DIFFERED, differs));
    let other = HttpAnswer::ok("text/plain", "1");
    assert_eq!(compared(json("1"), other, Compare::exact()).await, (AGREED, None));
}

#[actix_web::test]
async fn what_is_no_json_is_compared_byte_by_byte() {
    let text = |text: &'static str| HttpAnswer::ok("text/plain", text);
    let same = compared(text("hello, world"), text("hello, world"), Compare::exact()).await;
    assert_eq!(same, (AGREED, None));
    let differs = place("(body)[7]", "world", "moon");
    assert_eq!(
        compared(text("hello, world"), text("hello, moon"), Compare::exact()).await,
        (DIFFERED, differs)
    );
}

#[actix_web::test]
async fn answers_over_a_mebibyte_are_skipped() {
    let large = |bytes: usize| json(format!("\"{}\"", "x".repeat(bytes - 2)));
    let mebibyte = 1 << 20;
    assert_eq!(compared(large(mebibyte), large(mebibyte), Compare::exact()).await, (AGREED, None));
    let skipped = Comparisons { agreed: 0, skipped: 1, ..AGREED };
    for (primary, shadow) in [(mebibyte + 1, 10), (10, mebibyte + 1)] {
        assert_eq!(compared(large(primary), large(shadow), Compare::exact()).await, (skipped, None));
    }
}

#[actix_web::test]
async fn a_json_backend_is_compared_over_http_and_machines_can_read_the_report() {
    let stage = beside(off_by(0.5), Compare::within(0.01, 0.0)).await;
    let app = init_service(App::new().configure(stage.serve().ingress())).await;
    let request = TestRequest::get().uri("/price?article=100").insert_header(("x-request-id", "mine"));
    let body = call_and_read_body(&app, request.to_request()).await;
    assert_eq!(body, r#"{"article":100,"prices":[1.0,2.0]}"#);
    after(stage.serve(), 1).await;
    assert_eq!(counted(stage.serve(), "differed"), 1);
    let status = serde_json::to_value(stage.serve().status()).unwrap();
    let told = &status["endpoints"][0]["shadow"][0]["compare"];
    let pair = &told["sample"][0];
    let form = serde_json::json!({"absolute": 0.01, "relative": 0.0, "noise_floor": 0.0, "sample": 16});
    assert_eq!(told["compare"], form, "as in a file");
    assert_eq!((&told["agreement"], &told["shadow"]["differed"]), (&0.0.into(), &1.into()));
    assert_eq!((&pair["request_id"], &pair["path"]), (&"mine".into(), &"prices[1]".into()));
    assert_eq!((&pair["primary"]["found"], &pair["shadow"]["found"]), (&"2.0".into(), &"2.5".into()));
    assert!(pair["primary"]["latency_ms"].is_f64() && report(stage.serve()).sample.len() == 1);
    stage.end().await.unwrap();
}
