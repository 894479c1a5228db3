//! The admin API: each route, asked well, badly and twice; who may ask; the dashboard; the end.

mod backends;
mod browsers;
mod config;
pub mod dashboard;
mod endpoints;
mod openapi;
mod read_back;
mod requests;
mod shutdown;
mod status;
#[cfg(feature = "onnx")]
mod verbs;
#[cfg(feature = "onnx")]
mod verbs_deploy;
#[cfg(feature = "onnx")]
mod verbs_under_load;

use std::net::SocketAddr;

use actix::Message;
use greenroom::{Backend, Listen, Serve, ServeError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire::{Answer, Client, listening};

/// Asks a backend which one it is.
#[derive(Message, Deserialize, Clone)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Which {}

/// A Serve with the code `one` and `two` that says so, where requests come in, and where it is steered.
pub async fn service() -> (Serve, SocketAddr, Api) {
    let (serve, data) = listening(1).await;
    for (name, number) in [("one", 1), ("two", 2)] {
        let code = Backend::from_fn(move |_: Which| async move { Ok(number) }).json::<Which>();
        serve.register(name, code.shadows::<Which>()).unwrap();
    }
    let admin = serve.listen_admin(Listen::default()).await.unwrap();
    (serve, data, Api(admin))
}

/// The same with the backends `one` and `two`, and the endpoint `which` at `/which`, all of it to `one`.
pub async fn deployed() -> (Serve, SocketAddr, Api) {
    let (serve, data, api) = service().await;
    let answer = api.put("/api/serve/config", &both()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (serve, data, api)
}

/// Both backends, and `which` over `one`.
pub fn both() -> Value {
    json!({
        "backends": [{"name": "one", "registered": "one"}, {"name": "two", "registered": "two"}],
        "endpoints": [{"name": "which", "route": "/which", "backend": "one"}],
    })
}

/// An admin listener.
#[derive(Clone, Copy)]
pub struct Api(pub SocketAddr);

impl Api {
    /// One request with these header lines; the host is not among them.
    pub async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("host: {}", self.0);
        self.raw(method, path, &[&[host.as_str()], headers].concat(), body).await
    }

    /// The same with no header but these.
    pub async fn raw(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        for line in headers {
            text += &format!("{line}\r\n");
        }
        if !body.is_empty() {
            text += &format!("content-length: {}\r\n", body.len());
        }
        let mut client = Client::connect(self.0).await;
        client.send(format!("{text}\r\n{body}")).await;
        client.try_answer(method == "HEAD").await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], "").await
    }

    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, &["content-type: application/json"], &body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, body).await
    }

    /// What a change did, as `action name` each; asked once more it does nothing.
    pub async fn twice(&self, method: &str, path: &str, body: &Value) -> Vec<String> {
        let first = did(&self.send(method, path, body).await);
        let again = did(&self.send(method, path, body).await);
        assert!(again.is_empty(), "{method} {path} again: {again:?}");
        first
    }
}

/// What a change did, as `action name` each.
pub fn did(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    steps(&answer.json()["changed"])
}

pub fn steps(steps: &Value) -> Vec<String> {
    let text = |step: &Value| {
        assert!(!step["why"].as_array().unwrap().is_empty(), "{step}");
        format!("{} {} {}", step["action"], step["subject"], step["name"]).replace('"', "")
    };
    steps.as_array().unwrap().iter().map(text).collect()
}

/// A refusal: its status, its code, and every place that it names.
pub fn refused(answer: &Answer) -> (u16, String, Vec<String>) {
    let problems = answer.json()["problems"].as_array().cloned().unwrap_or_default();
    let places = problems.iter().map(|problem| {
        assert!(!problem["what"].as_str().unwrap().is_empty());
        problem["place"].as_str().unwrap().to_owned()
    });
    (answer.status, answer.code(), places.collect())
}
