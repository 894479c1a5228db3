//! Takeover between real processes of the `greenroom` binary: restarts under load, and starts that fail.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    digits::{held_out, request},
    process::{Folder, LIMIT, Server, output, refusal},
    socket::{Response, Socket},
};

const RESTARTS: usize = 5;
/// Answers that are waited for before each restart and after the last.
const ANSWERS: usize = 200;

/// The digits, whose process can be taken over from.
fn folder(test: &str) -> Folder {
    let folder = Folder::digits(test);
    declare(&folder, "takeover: takeover.sock\n");
    folder
}

fn declare(folder: &Folder, more: &str) {
    let yaml = std::fs::read_to_string(folder.yaml()).unwrap();
    std::fs::write(folder.yaml(), yaml + more).unwrap();
}

fn socket(folder: &Folder) -> PathBuf {
    folder.path("takeover.sock")
}

/// The process offers its sockets; it does so once it has told that it is ready.
fn offered(folder: &Folder) {
    let until = Instant::now() + LIMIT;
    let path = socket(folder);
    // Somebody listens there; whoever connects would count as one that takes over.
    let listens = |line: &str| line.contains(" 00010000 ") && line.ends_with(path.to_str().unwrap());
    while !std::fs::read_to_string("/proc/net/unix").unwrap().lines().any(listens) {
        assert!(Instant::now() < until, "no socket");
        std::thread::yield_now();
    }
}

/// Requests of several clients that go on until it is dropped.
struct Load {
    body: Vec<u8>,
    label: f64,
    address: SocketAddr,
    answered: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let held_out = held_out();
        Self {
            body: request(&held_out.x[..1]),
            label: held_out.sklearn[0] as f64,
            address,
            answered: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn ask(&self, socket: &mut Socket, headers: &str) -> Response {
        let sent = socket.send("POST", "/digits", headers, &self.body);
        let answer = sent.ok().and_then(|()| socket.receive()).expect("a request was lost");
        assert_eq!(answer.output("label"), [self.label]);
        self.answered.fetch_add(1, SeqCst);
        answer
    }

    /// Opens another connection only when it was told that the last one closes; how often that was.
    fn keep_alive(&self) -> usize {
        let mut connections = 0;
        while !self.over.load(SeqCst) {
            let mut socket = Socket::connect(self.address);
            connections += 1;
            while !self.over.load(SeqCst) {
                if self.ask(&mut socket, "").header("connection") == Some("close") {
                    break;
                }
            }
        }
        connections
    }

    fn once_each(&self) {
        while !self.over.load(SeqCst) {
            self.ask(&mut Socket::connect(self.address), "connection: close\r\n");
        }
    }

    fn more_answers(&self) {
        let (before, until) = (self.answered.load(SeqCst), Instant::now() + LIMIT);
        while self.answered.load(SeqCst) < before + ANSWERS {
            assert!(Instant::now() < until, "no answers come");
            std::thread::yield_now();
        }
    }
}

/// Ends the load also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Restarts five times under load, with `between` before each; the last process.
fn restarted(folder: &Folder, between: impl Fn(&Server, usize)) -> Server {
    let mut server = Server::start(folder);
    let (data, admin) = (server.data(), server.admin);
    let load = Load::on(data);
    std::thread::scope(|scope| {
        let ends = Ends(&load.over);
        let keepers: Vec<_> = (0..4).map(|_| scope.spawn(|| load.keep_alive())).collect();
        for _ in 0..2 {
            scope.spawn(|| load.once_each());
        }
        for restart in 0..RESTARTS {
            load.more_answers();
            offered(folder);
            between(&server, restart);
            let next = Server::start(folder);
            assert_eq!((next.data(), next.admin), (data, admin), "the same sockets");
            server.replaced();
            server = next;
        }
        load.more_answers();
        drop(ends);
        for keeper in keepers {
            let connections = keeper.join().unwrap();
            assert!(connections > RESTARTS, "{connections} connections: no process was left for the next");
        }
        server
    })
}

#[test]
fn restarts_under_load_lose_no_request_and_leave_nothing_behind() {
    let folder = folder("restarts");
    let server = restarted(&folder, |_, _| {});
    let (data, admin) = (server.data(), server.admin);
    assert_eq!(Socket::connect(admin).get("/-/readyz").status, 200);
    offered(&folder);
    assert_eq!(std::fs::metadata(socket(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
    server.end();
    for address in [data, admin] {
        assert!(TcpStream::connect(address).is_err(), "somebody still listens on {address}");
        TcpListener::bind(address).unwrap();
    }
    assert!(!socket(&folder).exists());
}

/// Where the requests of the digits go.
fn traffic(server: &Server) -> Value {
    let status = output(&["status", "--json", "--address", &format!("http://{}", server.admin)]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    status["endpoints"][0]["traffic"].clone()
}

#[test]
fn changes_made_by_hand_between_restarts_under_load_hold() {
    let folder = folder("state-restarts");
    let yaml = std::fs::read_to_string(folder.yaml()).unwrap();
    let next = "  - { name: next, onnx: digits.onnx, resources: { num_cpus: 0.1 } }\nendpoints:";
    std::fs::write(folder.yaml(), yaml.replacen("endpoints:", next, 1) + "state: kept\n").unwrap();
    let weights = |restart: usize| [0.9, 0.75, 0.5, 0.25, 0.125][restart];
    let wanted = |restart| json!({"digits": weights(restart), "next": 1.0 - weights(restart)});
    let server = restarted(&folder, |server, restart| {
        if let Some(before) = restart.checked_sub(1) {
            assert_eq!(traffic(server), wanted(before), "what was changed before this process");
        }
        let to = wanted(restart);
        let address = format!("http://{}", server.admin);
        let (digits, next) = (format!("digits={}", to["digits"]), format!("next={}", to["next"]));
        let changed = output(&["traffic", "digits", &digits, &next, "--address", &address]);
        assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    });
    assert_eq!(traffic(&server), wanted(RESTARTS - 1));
    server.end();
}

#[test]
fn without_takeover_a_second_process_is_refused_the_port() {
    let folder = folder("second");
    let server = Server::start(&folder);
    let second = Folder::digits("second-without");
    let yaml = std::fs::read_to_string(second.yaml()).unwrap();
    let port = format!("port: {}", server.data().port());
    std::fs::write(second.yaml(), yaml.replacen("port: 0", &port, 1)).unwrap();
    let error = refusal(&second.yaml());
    assert!(error.contains("http: ") && error.contains("Address already in use"), "{error}");
    assert_eq!(Socket::connect(server.data()).get("/-/readyz").status, 200);
    server.end();
}

#[test]
fn a_process_that_does_not_start_leaves_the_running_one_as_it_was() {
    let folder = folder("fails");
    let server = Server::start(&folder);
    let load = Load::on(server.data());
    let (model, aside) = (folder.path("digits.onnx"), folder.path("aside"));
    let mut kept = Socket::connect(server.data());
    for _ in 0..2 {
        offered(&folder);
        std::fs::rename(&model, &aside).unwrap();
        let error = refusal(&folder.yaml());
        assert!(error.contains("digits.onnx"), "{error}");
        std::fs::rename(&aside, &model).unwrap();
        assert_eq!(load.ask(&mut kept, "").header("connection"), None);
        load.ask(&mut Socket::connect(server.data()), "");
    }
    offered(&folder);
    let next = Server::start(&folder);
    let until = Instant::now() + LIMIT;
    while load.ask(&mut kept, "").header("connection") != Some("close") {
        assert!(Instant::now() < until, "it goes on as before");
    }
    server.replaced();
    next.end();
}

#[test]
fn a_killed_process_leaves_its_file_to_the_next() {
    let folder = folder("killed");
    let server = Server::start(&folder);
    offered(&folder);
    server.signal("-KILL");
    drop(server);
    assert!(socket(&folder).exists());
    let server = Server::start(&folder);
    offered(&folder);
    let next = Server::start(&folder);
    server.replaced();
    next.end();
}

#[test]
fn a_path_that_cannot_be_is_refused_before_anything_is_served() {
    for (name, path) in [("folder", "absent/takeover.sock"), ("file", "digits.onnx")] {
        let folder = Folder::digits(&format!("path-{name}"));
        declare(&folder, &format!("takeover: {path}\n"));
        let error = refusal(&folder.yaml());
        assert!(error.contains("cannot take over through") && error.contains(path), "{error}");
        assert!(folder.path("digits.onnx").is_file());
    }
}

#[test]
fn a_restart_is_over_soon_when_no_connection_is_open() {
    let folder = folder("soon");
    let server = Server::start(&folder);
    offered(&folder);
    let next = Server::start(&folder);
    let began = Instant::now();
    server.replaced();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    next.end();
}
