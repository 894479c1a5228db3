//! What is read of the configuration as a whole is put back: that changes nothing, whatever changes by hand led to.

use actix::{Actor, Handler};
use greenroom::{Backend, BackendConfig, Reconfigure, ReplicaContext, ServeError};
use serde_json::{Value, json};

use super::{Which, deployed};

const AT: &str = "/api/serve/config";

/// Takes any configuration.
struct Any;

impl Actor for Any {
    type Context = ReplicaContext<Self>;
}

impl Handler<Which> for Any {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Which, _: &mut Self::Context) -> Self::Result {
        Ok(3)
    }
}

impl Handler<Reconfigure<Value>> for Any {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Reconfigure<Value>, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

#[actix_web::test]
async fn also_with_a_rule_that_rests_and_a_user_config_as_deep_as_one_can_be() {
    let (serve, _, api) = deployed().await;
    let deep = (0..32)
        .fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"": inner}) });
    let any = Backend::new(|_| Ok(Any)).json::<Which>().reconfigure::<Value>();
    serve.create_backend("any", any, BackendConfig::default().user_config(deep)).await.unwrap();
    serve.shadow_traffic("which", "two", 0.5).await.unwrap();
    serve.set_traffic("which", [("two", 1.0)]).await.unwrap();
    let read = api.get(AT).await.json();
    for _ in 0..2 {
        let put = api.put(AT, &read).await;
        assert_eq!((put.status, &put.json()["changed"]), (200, &json!([])), "{}", put.text());
        assert_eq!(api.get(AT).await.json(), read);
    }
    // Such a rule still cannot be made.
    let mut other = read.clone();
    other["endpoints"][0]["traffic"] = json!({"one": 1.0});
    other["endpoints"][0]["shadow"] = json!({"one": 0.5});
    let refused = api.put(AT, &other).await;
    assert!(refused.status == 400 && refused.text().contains("serves all"), "{}", refused.text());
    assert_eq!(api.get(AT).await.json(), read);
    serve.shutdown().await.unwrap();
}

#[cfg(feature = "onnx")]
#[actix_web::test]
async fn a_file_that_is_spelled_otherwise_is_the_same_file() {
    let (serve, _, api) = deployed().await;
    let spelled = |folder: &str| format!("{}/{folder}/digits/digits.onnx", env!("CARGO_MANIFEST_DIR"));
    let backend = |folder| json!({"onnx": spelled(folder)});
    let at = "/api/serve/backends/digits";
    assert_eq!(api.put(at, &backend("models")).await.json()["changed"].as_array().unwrap().len(), 1);
    let read = api.get(AT).await.json();
    for folder in ["./models", "tests/../models", "models/."] {
        assert_eq!(api.put(at, &backend(folder)).await.json()["changed"], json!([]), "{folder}");
        let mut whole = read.clone();
        let digits = whole["backends"].as_array_mut().unwrap().iter_mut().find(|b| b["name"] == "digits");
        digits.unwrap()["onnx"] = json!(spelled(folder));
        assert_eq!(api.put(AT, &whole).await.json()["changed"], json!([]), "{folder}");
    }
    serve.shutdown().await.unwrap();
}
