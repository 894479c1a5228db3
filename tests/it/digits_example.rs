//! The example `digits` does what it says.

use greenroom::{Serve, ServeError};
use serde_json::{Value, json};

use crate::digits::{held_out, request};

#[allow(dead_code, reason = "the example's own `main` is not called here")]
#[path = "../../examples/digits.rs"]
mod example;

#[actix_web::test]
async fn the_example_answers_on_the_hosts_routes_with_the_hosts_errors() -> Result<(), ServeError> {
    use actix_web::{App, test};
    let serve = Serve::start(crate::support::uncounted()).await?;
    example::deploy(&serve).await?;
    let handle = serve.handle("classifier")?;
    let app = App::new().configure(|config| example::routes(config, &serve, handle));
    let app = test::init_service(app).await;
    let held_out = held_out();
    let get = |path: String| test::TestRequest::get().uri(&path).to_request();
    for (image, label) in held_out.x.iter().zip(&held_out.sklearn).take(20) {
        let pixels: Vec<_> = image.iter().map(f32::to_string).collect();
        let answer = test::call_and_read_body(&app, get(format!("/guess/{}", pixels.join(",")))).await;
        assert_eq!(answer, format!("this is a {label}\n"));
    }
    let wrong = test::call_service(&app, get("/guess/1,2".into())).await;
    assert_eq!(wrong.status(), 422);
    assert_eq!(test::read_body(wrong).await, "this is no image: 64 pixels are needed, 2 were given");
    let post = test::TestRequest::post().uri("/digits").set_payload(request(&held_out.x)).to_request();
    let answer: Value = test::call_and_read_body_json(&app, post).await;
    assert_eq!(answer["outputs"][0]["data"], json!(held_out.sklearn));
    serve.shutdown().await?;
    // The host's own handler gives the runtime's refusals as they are.
    let pixels = vec!["0"; 64].join(",");
    let refused = test::call_service(&app, get(format!("/guess/{pixels}"))).await;
    assert_eq!(refused.status(), 503);
    Ok(())
}
