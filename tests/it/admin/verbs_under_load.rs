//! The commands of the binary while requests come: none of them fails.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use super::verbs::{FIRST, ask, file, folder, told};
use crate::{
    digits::{held_out, request},
    process::{LIMIT, Server},
    socket::Socket,
};

/// Callers that ask one request after the other.
const CALLERS: usize = 4;

/// Asks for digits from the beginning of `act` to its end; how many requests were answered. Each has to be.
fn under_load(server: &Server, act: impl FnOnce(&AtomicUsize)) -> usize {
    let (held_out, address) = (held_out(), server.data());
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for share in 0..CALLERS {
            let (held_out, answered, over) = (&held_out, &answered, &over);
            scope.spawn(move || {
                let mut socket = Socket::connect(address);
                for place in (share..).step_by(CALLERS).map(|place| place % 360) {
                    let body = request(&held_out.x[place..=place]);
                    let answer = socket.post("/digits", &body);
                    assert_eq!(answer.output("label"), [held_out.sklearn[place] as f64]);
                    answered.fetch_add(1, SeqCst);
                    if over.load(SeqCst) || answer.header("connection") == Some("close") {
                        return;
                    }
                }
            });
        }
        more(&answered, 50);
        act(&answered);
        over.store(true, SeqCst);
    });
    answered.into_inner()
}

/// Waits until so many more were answered.
fn more(answered: &AtomicUsize, requests: usize) {
    let (wanted, until) = (answered.load(SeqCst) + requests, Instant::now() + LIMIT);
    while answered.load(SeqCst) < wanted {
        assert!(Instant::now() < until, "no more requests are answered");
        std::thread::yield_now();
    }
}

#[test]
fn plan_deploy_scale_move_traffic_and_roll_back_fail_no_request() {
    let folder = folder("load-deploy");
    let server = Server::start(&folder);
    let yaml = FIRST
        .replace("version: '1'", "version: '2', num_replicas: 3")
        .replace("backend: digits }", "traffic: { digits: 0.5, next: 0.5 } }");
    let second = file(&folder, "second.yaml", &yaml);
    let second = second.to_str().unwrap();
    let answered = under_load(&server, |answered| {
        assert!(told(&server, &["plan", second]).contains("roll"));
        assert!(told(&server, &["deploy", second]).contains("applied"));
        more(answered, 50);
        assert!(told(&server, &["traffic", "digits", "next=1"]).contains("set_traffic"));
        more(answered, 50);
        assert!(told(&server, &["rollback", "--to", "1"]).contains("version: \"2\" -> \"1\""));
        more(answered, 50);
        let first = folder.yaml();
        assert_eq!(told(&server, &["plan", first.to_str().unwrap()]), "nothing to do\n");
    });
    assert!(answered > 200);
    server.end();
}

#[test]
fn shutdown_under_load_answers_every_request_that_it_took() {
    let folder = folder("load-shutdown");
    let mut server = Server::start(&folder);
    let (held_out, address) = (held_out(), server.data());
    let (answered, ending) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for share in 0..CALLERS {
            let (held_out, answered, ending) = (&held_out, &answered, &ending);
            scope.spawn(move || {
                let mut socket = Socket::connect(address);
                let mut before = Instant::now();
                for place in (share..).step_by(CALLERS).map(|place| place % 360) {
                    let body = request(&held_out.x[place..=place]);
                    let sent = socket.send("POST", "/digits", "", &body);
                    let pause = before.elapsed();
                    before = Instant::now();
                    let Some(answer) = sent.ok().and_then(|()| socket.receive()) else {
                        // Whoever asks without a pause hears that the connection closes, and is never cut off.
                        assert!(ending.load(SeqCst), "the connection ended before it was asked for");
                        assert!(pause > Duration::from_millis(50), "a request was lost");
                        return;
                    };
                    assert_eq!(answer.output("label"), [held_out.sklearn[place] as f64]);
                    answered.fetch_add(1, SeqCst);
                    if answer.header("connection") == Some("close") {
                        return;
                    }
                }
            });
        }
        more(&answered, 200);
        ending.store(true, SeqCst);
        assert_eq!(ask(&server, &["shutdown"]).status.code(), Some(0));
    });
    server.ended();
}
