//! The commands of the binary, against a service in another process.

use std::{net::TcpListener, path::PathBuf, process::Output};

use serde_json::{Value, json};

use crate::{
    digits,
    process::{Folder, Server, greenroom, output},
    socket::{Socket, head},
};

/// Two copies of the model, `digits` and `next`, and the endpoint over the first.
pub const FIRST: &str = "\
http: { port: 0, threads: 1 }
admin: { port: 0 }
backends:
  - { name: digits, onnx: digits.onnx, version: '1', resources: { num_cpus: 0.1 } }
  - { name: next, onnx: digits.onnx, resources: { num_cpus: 0.1 } }
endpoints:
  - { name: digits, route: /digits, backend: digits }
";

/// A folder with that as `serve.yaml`, and the model beside it.
pub fn folder(test: &str) -> Folder {
    let folder = Folder::new(test, FIRST);
    std::fs::copy(digits::model(), folder.yaml().with_file_name("digits.onnx")).unwrap();
    folder
}

/// Another configuration in the same folder.
pub fn file(folder: &Folder, name: &str, yaml: &str) -> PathBuf {
    let path = folder.yaml().with_file_name(name);
    std::fs::write(&path, yaml).unwrap();
    path
}

/// The words of a command line, to this server.
pub fn ask(server: &Server, words: &[&str]) -> Output {
    let address = format!("http://{}", server.admin);
    output(&[words, &["--address", &address]].concat())
}

/// What it told, with exit code 0.
pub fn told(server: &Server, words: &[&str]) -> String {
    let output = ask(server, words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complained of, with exit code 1 and nothing told.
pub fn refused(server: &Server, words: &[&str]) -> String {
    let output = ask(server, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    assert!(output.stdout.is_empty(), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// What a machine is told.
pub fn answer(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&told(server, &[words, &["--json"]].concat())).unwrap()
}

pub const NOTHING: &str = "nothing to do: all is so already\n";

#[test]
fn status_and_config_show_what_there_is() {
    let folder = folder("verbs-status");
    let server = Server::start(&folder);
    let status = told(&server, &["status"]);
    for part in [
        "BACKEND",
        "digits",
        "next",
        "1 of 1",
        "RUNNING",
        "REPLICA",
        "digits/0 (generation",
        "ENDPOINT",
        "/digits",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(status.contains("POST") && status.contains("digits 100%"), "{status}");
    assert_eq!(answer(&server, &["status"])["backends"][0]["replicas"].as_array().unwrap().len(), 1);
    let config: Value = serde_json::from_str(&told(&server, &["config"])).unwrap();
    assert_eq!(config, answer(&server, &["config"]));
    assert_eq!((&config["http"]["threads"], &config["admin"]["port"]), (&json!(1), &json!(0)));
    let model = folder.yaml().with_file_name("digits.onnx");
    assert_eq!(config["backends"][0]["onnx"], model.to_str().unwrap());
    assert_eq!(config["endpoints"][0]["traffic"]["digits"], 1.0);
    server.end();
}

#[test]
fn traffic_and_shadow_change_where_requests_go_and_say_so_once() {
    let server = Server::start(&folder("verbs-traffic"));
    let set = ["traffic", "digits", "digits=0.75", "next=0.25"];
    let did = told(&server, &set);
    assert!(did.contains("set_traffic  endpoint  digits") && did.contains("0.75"), "{did}");
    assert_eq!(told(&server, &set), NOTHING);
    assert!(told(&server, &["status"]).contains("digits 75%, next 25%"));
    told(&server, &["traffic", "digits", "digits=1"]);
    let did = told(&server, &["shadow", "digits", "next", "0.5"]);
    assert!(did.contains("set_shadow  endpoint  digits"), "{did}");
    assert_eq!(told(&server, &["shadow", "digits", "next", "0.5"]), NOTHING);
    assert!(told(&server, &["status"]).contains("next 50%"));
    assert!(told(&server, &["shadow", "digits", "next", "0"]).contains("set_shadow"));
    for (words, part) in [
        (&["traffic", "digits", "digits=0.5"][..], "add up to 0.5"),
        (&["traffic", "digits", "none=1"], "there is no backend none; there are: digits, next"),
        (&["traffic", "none", "digits=1"], "there is no endpoint none"),
        (&["shadow", "digits", "next", "1.5"], "from 0 to 1"),
        (&["shadow", "digits", "digits", "0.5"], "serves all"),
    ] {
        let error = refused(&server, words);
        assert!(error.starts_with("greenroom: ") && error.contains(part), "{words:?}: {error}");
    }
    server.end();
}

#[test]
fn delete_says_what_kind_it_deletes() {
    let server = Server::start(&folder("verbs-delete"));
    let error = refused(&server, &["delete", "backend", "digits"]);
    assert!(error.contains("is used by endpoint digits"), "{error}");
    assert!(told(&server, &["delete", "endpoint", "digits"]).contains("delete  endpoint  digits"));
    assert_eq!(told(&server, &["delete", "endpoint", "digits"]), NOTHING);
    assert!(told(&server, &["delete", "backend", "digits", "--force"]).contains("delete  backend  digits"));
    assert_eq!(told(&server, &["delete", "backend", "digits"]), NOTHING);
    assert_eq!(answer(&server, &["delete", "backend", "next"])["changed"][0]["action"], "delete");
    assert!(told(&server, &["status"]).starts_with("no backends"));
    server.end();
}

#[test]
fn shutdown_ends_the_process_in_order() {
    let mut server = Server::start(&folder("verbs-shutdown"));
    assert_eq!(told(&server, &["shutdown"]), "the service ends\n");
    server.ended();
}

#[test]
fn what_was_changed_by_hand_is_there_when_the_service_comes_back() {
    let folder = folder("verbs-state");
    std::fs::write(folder.yaml(), format!("state: ./kept\n{FIRST}")).unwrap();
    let mut server = Server::start(&folder);
    told(&server, &["traffic", "digits", "next=1"]);
    let mut admin = Socket::connect(server.admin);
    let model = folder.yaml().with_file_name("digits.onnx");
    for (path, body) in [
        ("backends/more", json!({"onnx": model, "resources": {"num_cpus": 0.1}})),
        ("endpoints/more", json!({"route": "/more", "backend": "more"})),
    ] {
        let headers = "content-type: application/json\r\n";
        let request = head("PUT", &format!("/api/serve/{path}"), headers, body.to_string().len());
        admin.write(request.replace("host: test", "host: localhost").as_bytes()).unwrap();
        admin.write(body.to_string().as_bytes()).unwrap();
        let answer = admin.receive().expect("an answer");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
    let config = told(&server, &["config"]);
    told(&server, &["shutdown"]);
    server.ended();
    let server = Server::start(&folder);
    assert_eq!(told(&server, &["config"]), config);
    assert!(told(&server, &["status"]).contains("/more"));
    server.end();
}

#[test]
fn where_nobody_listens_it_says_so_and_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for words in [&["status"][..], &["shutdown"], &["traffic", "a", "a=1"], &["history", "--json"]] {
        let address = format!("http://{free}");
        let output = output(&[words, &["--address", &address]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(&format!("nothing listens at {address}")), "{error}");
        assert!(error.contains("is `greenroom run` running?"), "{error}");
    }
}

#[test]
fn what_is_no_admin_api_is_told_apart() {
    let server = Server::start(&folder("verbs-data"));
    let output = output(&["status", "--address", &format!("http://{}", server.data())]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no endpoint has the route /api/serve/status"), "{error}");
    server.end();
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for words in [
        &["traffic", "digits"][..],
        &["traffic", "digits", "digits"],
        &["traffic", "digits", "digits=half"],
        &["traffic", "digits", "a=0.5", "a=0.5"],
        &["shadow", "digits", "next"],
        &["shadow", "digits", "next", "some"],
        &["rollback", "--to", "0"],
        &["rollback", "--to", "first"],
        &["delete", "digits"],
        &["delete", "backend"],
        &["delete", "endpoint", "digits", "--force"],
        &["deploy"],
        &["deploy", "a.yaml", "--timeout", "soon"],
        &["deploy", "a.yaml", "--wait-for-resources"],
        &["status", "--address", "127.0.0.1:8265"],
        &["status", "--address", "http://"],
        &["run", "--json"],
    ] {
        let output = output(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(!error.is_empty() && output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    let server = Server::start(&folder("verbs-pipe"));
    let address = format!("http://{}", server.admin);
    for words in [&["status"][..], &["config"], &["status", "--json"], &["history"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let words = [words, &["--address", &address]].concat();
        let output = greenroom(&words).stdout(writer).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
    }
    server.end();
}
