//! The commands of the binary, against a service in another process.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    digits,
    process::{Folder, LIMIT, Server, greenroom, output},
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
fn answer(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&told(server, &[words, &["--json"]].concat())).unwrap()
}

const NOTHING: &str = "nothing to do: all is so already\n";

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
fn a_file_is_planned_deployed_and_gone_back_from() {
    let folder = folder("verbs-deploy");
    let server = Server::start(&folder);
    let first = folder.yaml();
    let first = first.to_str().unwrap();
    assert_eq!(told(&server, &["plan", first]), "nothing to do\n", "it runs that file");
    let address = format!("http://{}", server.admin);
    let mut here = greenroom(&["plan", "serve.yaml", "--address", &address]);
    let here = here.current_dir(folder.yaml().parent().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(here.stdout).unwrap(), "nothing to do\n", "wherever it is told from");
    let yaml = FIRST
        .replace("version: '1'", "version: '2', num_replicas: 2")
        .replace("backend: digits }", "traffic: { digits: 0.5, next: 0.5 } }");
    let second = file(&folder, "second.yaml", &yaml);
    let second = second.to_str().unwrap();
    let plan = told(&server, &["plan", second]);
    for part in ["roll", "version: \"1\" -> \"2\"", "num_replicas: 1 -> 2", "set_traffic"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let did = told(&server, &["deploy", second, "--timeout", "60"]);
    assert!(did.contains("roll         backend   digits"), "{did}");
    assert!(did.contains("applied as number"), "{did}");
    assert_eq!(told(&server, &["deploy", second]), NOTHING);
    assert_eq!(told(&server, &["plan", second]), "nothing to do\n");
    let history = told(&server, &["history"]);
    assert!(history.contains("NUMBER") && history.contains("deploy") && history.contains("UTC"), "{history}");
    let back = told(&server, &["rollback"]);
    assert!(back.contains("version: \"2\" -> \"1\""), "{back}");
    assert_eq!(told(&server, &["plan", first]), "nothing to do\n");
    let begun = told(&server, &["deploy", second, "--no-wait"]);
    assert!(begun.contains("begun"), "{begun}");
    let until = Instant::now() + LIMIT;
    while answer(&server, &["status"])["last_deploy"]["id"] != 4 {
        assert!(Instant::now() < until, "it never ends");
    }
    assert_eq!(told(&server, &["plan", second]), "nothing to do\n");
    let ids: Vec<_> = answer(&server, &["history"])["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].clone())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    let error = refused(&server, &["rollback", "--to", "99"]);
    assert!(error.contains("there is no 99 in the history; it holds: 1, 2, 3, 4"), "{error}");
    server.end();
}

#[test]
fn progress_is_told_while_replicas_start() {
    let folder = folder("verbs-progress");
    let server = Server::start(&folder);
    let pipe = folder.yaml().with_file_name("later.onnx");
    // A model that is not there until somebody writes it.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let more = "  - { name: later, onnx: later.onnx, resources: { num_cpus: 0.1 } }\nendpoints:";
    let file = file(&folder, "more.yaml", &FIRST.replace("endpoints:", more));
    let address = format!("http://{}", server.admin);
    let mut deploy = greenroom(&["deploy", file.to_str().unwrap(), "--address", &address]).spawn().unwrap();
    let mut lines = BufReader::new(deploy.stderr.take().unwrap()).lines();
    let model = std::fs::read(digits::model()).unwrap();
    // It is read to know it, then to load it; each time whoever reads waits for this.
    for waits in ["preparing, 0 of 0 steps done", "applying, 0 of 1 steps done: later: 0 of 1 replicas ready"]
    {
        let told = lines.by_ref().map(Result::unwrap).find(|line| line == waits);
        assert!(told.is_some(), "never told: {waits}");
        File::options().write(true).open(&pipe).unwrap().write_all(&model).unwrap();
    }
    let output = deploy.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("create  backend  later"));
    server.end();
}

#[test]
fn a_file_with_mistakes_is_refused_with_line_and_column_and_nothing_is_asked() {
    let folder = folder("verbs-mistakes");
    let server = Server::start(&folder);
    let wrong =
        file(&folder, "wrong.yaml", "backends:\n  - name: a\n    onnx: digits.onnx\n    colour: red\n");
    let wrong = wrong.to_str().unwrap();
    for verb in ["plan", "deploy"] {
        let error = refused(&server, &[verb, wrong]);
        assert!(error.contains("wrong.yaml") && error.contains("colour (line 4, column 5)"), "{error}");
        let error = refused(&server, &[verb, "no/such.yaml"]);
        assert!(error.contains("no/such.yaml cannot be read"), "{error}");
    }
    // What only the service can know is told with its place.
    let missing = file(&folder, "missing.yaml", "backends:\n  - { name: a, onnx: none.onnx }\n");
    let error = refused(&server, &["deploy", missing.to_str().unwrap()]);
    assert!(error.contains("backends[0].onnx") && error.contains("none.onnx cannot be read"), "{error}");
    let output = ask(&server, &["deploy", missing.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problem["problems"][0]["place"], "backends[0].onnx");
    assert_eq!(Socket::connect(server.data()).get("/-/readyz").status, 200);
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
