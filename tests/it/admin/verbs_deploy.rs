//! `plan`, `deploy` and `rollback` of the binary, against a service in another process.

use std::{
    io::{BufRead, BufReader},
    time::Instant,
};

use serde_json::Value;

use super::verbs::{FIRST, NOTHING, answer, ask, file, folder, refused, told};
use crate::{
    process::{LIMIT, Server, greenroom},
    socket::Socket,
};

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
fn progress_is_told_until_a_deploy_that_waits_has_its_resources() {
    let folder = folder("verbs-progress");
    let yaml = format!("{FIRST}capacity: {{ num_cpus: 0.5 }}\n");
    std::fs::write(folder.yaml(), &yaml).unwrap();
    let server = Server::start(&folder);
    let next = "{ name: next, onnx: digits.onnx, resources: { num_cpus: 0.1 } }";
    let later = "{ name: later, onnx: digits.onnx, resources: { num_cpus: 0.4 } }";
    let file = file(&folder, "more.yaml", &yaml.replace(next, later));
    let address = format!("http://{}", server.admin);
    let words = ["deploy", file.to_str().unwrap(), "--timeout", "60", "--wait-for-resources"];
    let mut deploy = greenroom(&[&words[..], &["--address", &address]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(deploy.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("pending, 0 of 0 steps done: ")), "never told");
    // Now there is room.
    told(&server, &["delete", "backend", "next", "--force"]);
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
