//! The `greenroom` binary reads its file again on SIGHUP, while requests come.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use crate::{
    digits::folder,
    process::{Folder, Server},
    socket::Socket,
};

/// Asks for a digit on four connections while `change` runs; every answer must be a good one.
fn with_load(address: SocketAddr, change: impl FnOnce()) {
    let three = std::fs::read(folder().join("three.json")).unwrap();
    let (ends, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut socket = Socket::connect(address);
                while !ends.load(SeqCst) {
                    assert_eq!(socket.post("/digits", &three).output("label"), [3.0]);
                    calls.fetch_add(1, SeqCst);
                }
            });
        }
        change();
        ends.store(true, SeqCst);
    });
    assert!(calls.load(SeqCst) > 0);
}

/// What is told from now on, up to the line that begins so.
fn told(server: &mut Server, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.starts_with(last)) {
        lines.push(server.told());
    }
    lines
}

/// The digits with room for four replicas, whatever the machine.
fn digits(test: &str) -> (Folder, String) {
    let folder = Folder::digits(test);
    let yaml = std::fs::read_to_string(folder.yaml()).unwrap() + "capacity: { num_cpus: 4 }\n";
    std::fs::write(folder.yaml(), &yaml).unwrap();
    (folder, yaml)
}

#[test]
fn a_changed_file_is_deployed_under_load_and_an_unchanged_one_touches_nothing() {
    let (folder, yaml) = digits("reload");
    let mut server = Server::start(&folder);
    let address = server.data();
    let changes = [
        (yaml.replace("num_replicas: 2", "num_replicas: 3"), "num_replicas: 2 -> 3"),
        (yaml.replace("num_replicas: 2", "version: \"2\"\n    num_replicas: 1"), "version: none -> \"2\""),
        (
            yaml.replace("methods: [POST]", "methods: [POST, PUT]"),
            "methods: [\"POST\"] -> [\"POST\",\"PUT\"]",
        ),
    ];
    for (changed, why) in changes {
        assert_ne!(changed, yaml);
        with_load(address, || {
            std::fs::write(folder.yaml(), &changed).unwrap();
            server.signal("-HUP");
            let lines = told(&mut server, "reloaded");
            assert!(lines.iter().any(|line| line.contains(why)), "{why}: {lines:#?}");
        });
    }
    server.signal("-HUP");
    let lines = told(&mut server, "unchanged");
    assert_eq!(lines.len(), 1, "{lines:?}");
    server.end();
}

#[test]
fn a_bad_file_is_complained_of_and_the_old_one_serves_on() {
    let (folder, yaml) = digits("reload-bad");
    let mut server = Server::start(&folder);
    let broken = [
        ("backends: [", "line"),
        (&yaml.replace("onnx: digits.onnx", "onnx: nothing.onnx"), "nothing.onnx"),
        (&yaml.replacen("port: 0", "port: 8123", 1), "restart it to change this"),
        (&yaml.replace("onnx: digits.onnx", "onnx: serve.yaml"), "all is as it was before"),
    ];
    let address = server.data();
    for (text, told) in broken {
        assert_ne!(text, yaml);
        with_load(address, || {
            std::fs::write(folder.yaml(), text).unwrap();
            server.signal("-HUP");
            let mut complaint = server.complaint();
            assert!(complaint.starts_with("greenroom: not reloaded, what was served before is served on: "));
            while !complaint.contains(told) {
                complaint = server.complaint();
            }
        });
    }
    std::fs::write(folder.yaml(), &yaml).unwrap();
    server.signal("-HUP");
    assert!(server.told().starts_with("unchanged"));
    server.terminate();
}

#[test]
fn while_what_was_restored_is_not_ready_a_file_that_mends_it_is_heard() {
    let (folder, yaml) = digits("reload-restored");
    let yaml = format!("{yaml}state: kept\n");
    std::fs::write(folder.yaml(), &yaml).unwrap();
    Server::start(&folder).end();
    std::fs::rename(folder.path("digits.onnx"), folder.path("mended.onnx")).unwrap();
    let mut server = Server::starting(&folder);
    std::fs::write(folder.yaml(), yaml.replace("onnx: digits.onnx", "onnx: mended.onnx")).unwrap();
    server.signal("-HUP");
    assert_eq!(told(&mut server, "reloaded").last().unwrap(), "reloaded");
    assert_eq!(server.told(), "ready");
    server.end();
}
