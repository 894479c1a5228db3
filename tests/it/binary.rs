//! The `greenroom` binary as a real process: serving, ending in order, refusing.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use crate::{
    digits::{self, held_out, labels, request},
    process::{Folder, LIMIT, Server, output, refusal},
    socket::{Socket, head},
};

#[test]
fn it_serves_the_digits_and_ends_on_sigterm() {
    let folder = Folder::digits("serves");
    let server = Server::start(&folder);
    let mut socket = Socket::connect(server.data());
    let three = std::fs::read(digits::folder().join("three.json")).unwrap();
    assert_eq!(socket.post("/digits", &three).output("label"), [3.0]);
    let held_out = held_out();
    for (image, label) in held_out.x.iter().zip(&held_out.sklearn) {
        let answer = socket.post("/digits", &request(std::slice::from_ref(image)));
        assert_eq!(answer.output("label"), [*label as f64]);
    }
    let answer = socket.post("/v2/models/digits/infer", &request(&held_out.x));
    assert_eq!(answer.output("label"), labels(&held_out.sklearn));
    assert_eq!(socket.get("/-/readyz").status, 200);
    let mut admin = Socket::connect(server.admin);
    assert_eq!(admin.get("/-/readyz").status, 200);
    let metrics = String::from_utf8(admin.get("/metrics").body).unwrap();
    assert!(metrics.contains("serve_backend_request_counter_total{backend=\"digits\"} 362"), "{metrics}");
    assert_eq!(admin.get("/v2/models/digits").status, 404, "models are served where requests are");
    server.end();
}

#[test]
fn without_a_server_there_is_no_data_socket() {
    let model = digits::model();
    let yaml = format!(
        "http: {{ location: NoServer, threads: 1 }}\nadmin: {{ port: 0 }}\nbackends:\n  - name: digits\n    \
         onnx: {}\nendpoints:\n  - name: digits\n    route: /digits\n    backend: digits\n",
        model.display()
    );
    let folder = Folder::new("no-server", &yaml);
    let server = Server::start(&folder);
    assert_eq!(server.data, None);
    assert_eq!(Socket::connect(server.admin).get("/-/readyz").status, 200);
    server.end();
}

#[cfg(target_os = "linux")]
#[test]
fn each_replica_of_a_model_computes_on_as_many_threads_as_the_file_says() {
    // One: the replica's own thread, and none beside it.
    for (num_threads, beside) in [(1, 0), (2, 4), (3, 6)] {
        let yaml = format!(
            "http: {{ port: 0 }}\nadmin: {{ port: 0 }}\nbackends:\n  - name: digits\n    onnx: {}\n    \
             num_replicas: 2\n    resources: {{ num_cpus: 0.5 }}\n    num_threads: {num_threads}\n",
            digits::model().display()
        );
        let folder = Folder::new(&format!("threads-{num_threads}"), &yaml);
        let server = Server::start(&folder);
        let answer = Socket::connect(server.data()).post("/v2/models/digits/infer", &request(&held_out().x));
        assert_eq!(answer.output("label"), labels(&held_out().sklearn));
        let until = Instant::now() + LIMIT;
        // A thread gives itself its name.
        while server.threads("greenroom-onnx") < beside && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(server.threads("greenroom-onnx"), beside, "num_threads: {num_threads}");
        server.end();
    }
}

#[test]
fn sigterm_in_the_middle_of_a_request_does_not_lose_it() {
    let folder = Folder::digits("middle");
    let mut server = Server::start(&folder);
    let held_out = held_out();
    let body = request(&held_out.x);
    let mut admin = Socket::connect(server.admin);
    let mut sockets: Vec<_> = (0..8).map(|_| Socket::connect(server.data())).collect();
    for socket in &mut sockets {
        let head = head("POST", "/digits", "expect: 100-continue\r\n", body.len());
        socket.write(head.as_bytes()).unwrap();
        assert_eq!(socket.receive().expect("an answer").status, 100, "the request has been taken in");
        socket.write(&body[..body.len() / 2]).unwrap();
    }
    server.terminate();
    let until = Instant::now() + LIMIT;
    while admin.get("/-/readyz").status == 200 {
        assert!(Instant::now() < until, "it goes on as before");
    }
    for socket in &mut sockets {
        socket.write(&body[body.len() / 2..]).unwrap();
        let answer = socket.receive().expect("an answer");
        assert_eq!(answer.output("label"), labels(&held_out.sklearn));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    server.ended();
}

#[test]
fn sigterm_under_load_answers_every_request_that_it_took() {
    let folder = Folder::digits("load");
    let mut server = Server::start(&folder);
    let (held_out, address) = (held_out(), server.data());
    let (answered, ending) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for share in 0..8 {
            let (held_out, answered, ending) = (&held_out, &answered, &ending);
            scope.spawn(move || {
                let mut socket = Socket::connect(address);
                let mut before = Instant::now();
                for place in (share..).step_by(8).map(|place| place % 360) {
                    let body = request(&held_out.x[place..=place]);
                    let sent = socket.send("POST", "/digits", "", &body);
                    let pause = before.elapsed();
                    before = Instant::now();
                    let Some(answer) = sent.ok().and_then(|()| socket.receive()) else {
                        // Whoever asks without a pause hears that the connection closes, and is never cut off.
                        assert!(ending.load(SeqCst), "the connection ended before the signal");
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
        let until = Instant::now() + LIMIT;
        while answered.load(SeqCst) < 200 && Instant::now() < until {
            std::thread::yield_now();
        }
        ending.store(true, SeqCst);
        server.terminate();
    });
    server.ended();
}

#[test]
fn a_signal_while_a_model_loads_ends_it_in_order() {
    let folder = Folder::digits("loading");
    let model = folder.yaml().with_file_name("digits.onnx");
    // Whoever reads a terabyte, of which nothing is on the disk, is not done with it here.
    File::create(&model).unwrap().set_len(1 << 40).unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::starting(&folder);
        assert_eq!(Socket::connect(server.admin).get("/-/readyz").status, 503);
        let told = Instant::now();
        server.signal(signal);
        server.ended();
        assert!(told.elapsed() < Duration::from_secs(10), "it waited for the model: {:?}", told.elapsed());
    }
}

#[test]
fn a_signal_at_any_moment_of_the_start_ends_it_in_order() {
    let folder = Folder::digits("any-moment");
    for micros in (0..20).map(|i| i * 2_000) {
        let server = Server::starting(&folder);
        let until = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        server.terminate();
        server.over();
    }
}

#[test]
fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (listener, yaml) in [
        ("http", format!("http: {{ port: {} }}\nadmin: {{ port: 0 }}\n", address.port())),
        ("admin", format!("http: {{ port: 0 }}\nadmin: {{ port: {} }}\n", address.port())),
    ] {
        let folder = Folder::new(&format!("in-use-{listener}"), &yaml);
        let error = refusal(&folder.yaml());
        for part in [listener, &address.to_string(), "in use"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_place() {
    let folder = Folder::new(
        "mistakes",
        "http: { port: 80000 }\nbackends:\n  - name: digits\n    onnx: digits.onnx\n    num_replicas: -1\n    \
         colour: red\nendpoints:\n  - name: digits\n    route: digits\n    backend: other\n",
    );
    let error = refusal(&folder.yaml());
    for part in [
        "serve.yaml: 5 problems",
        "http.port (line 1, column",
        "backends[0].num_replicas (line 5, column",
        "colour",
        "endpoints[0].route (line 9, column",
        "endpoints[0].backend (line 10, column",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let free = "http: { port: 0 }\nadmin: { port: 0 }\n";
    let backend = |source: &str| {
        format!("{free}backends:\n  - name: digits\n    {source}\n    restart: {{ max_restarts: 0 }}\n")
    };
    let cases = [
        ("registered", backend("registered: mine"), ["backends[0].registered", "mine"]),
        ("missing", backend("onnx: nothing.onnx"), ["nothing.onnx", "cannot be read"]),
        ("no-onnx", backend("onnx: serve.yaml"), ["serve.yaml", "not an ONNX file"]),
    ];
    for (test, yaml, told) in cases {
        let folder = Folder::new(test, &yaml);
        let error = refusal(&folder.yaml());
        assert!(told.iter().all(|part| error.contains(part)), "{told:?}: {error}");
    }
    let error = refusal(Path::new("no/such/file.yaml"));
    assert!(error.contains("no/such/file.yaml") && error.contains("cannot be read"), "{error}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in [&[][..], &["serve"], &["run", "a", "b"], &["run", "--fast"]] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage"), "{args:?}");
    }
    assert_eq!(output(&["--version"]).status.code(), Some(0));
}
