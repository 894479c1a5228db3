//! The binary with a state directory: what holds when its file is the same, and when it is another.

use std::path::PathBuf;

use greenroom::{BackendState, BackendUpdate, Capacity, Infer, ResourcesUpdate, Serve, ServeOptions, Tensor};
use serde_json::{Value, json};

use crate::{
    digits,
    process::{Folder, Server, output, refusal},
    socket::Socket,
    support::until,
};

/// A folder with a file that keeps its state beside it, by relative paths.
fn folder(test: &str) -> Folder {
    let folder = Folder::new(test, &yaml(1));
    std::fs::copy(digits::model(), folder.yaml().with_file_name("digits.onnx")).unwrap();
    folder
}

fn yaml(replicas: u32) -> String {
    format!(
        "http: {{ port: 0 }}\nadmin: {{ port: 0 }}\nstate: kept\nbackends:\n  - name: digits\n    onnx: digits.onnx\n    \
         num_replicas: {replicas}\n    resources: {{ num_cpus: 0.25 }}\nendpoints:\n  - name: digits\n    \
         route: /digits\n    backend: digits\n"
    )
}

fn state(folder: &Folder) -> PathBuf {
    folder.yaml().with_file_name("kept").join("state.json")
}

fn read(folder: &Folder) -> Value {
    serde_json::from_slice(&std::fs::read(state(folder)).unwrap()).unwrap()
}

/// Replicas that the server has started.
fn started(server: &Server) -> u64 {
    let metrics = String::from_utf8(Socket::connect(server.admin).get("/metrics").body).unwrap();
    let name = "serve_backend_replica_starts_total{backend=\"digits\"";
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_change_made_by_hand_holds_until_the_file_changes() {
    let folder = folder("state-by-hand");
    let server = Server::start(&folder);
    assert_eq!(started(&server), 1);
    let told = refusal(&folder.yaml());
    assert!(told.contains("is in use by process") && told.contains("stop that one first"), "{told}");
    server.end();
    let mut kept = read(&folder);
    assert_eq!(kept["history"], json!([1]));
    let model = kept["desired"]["backends"][0]["onnx"].as_str().unwrap();
    assert!(PathBuf::from(model).is_absolute(), "{model}");

    // As if it had been changed while it ran.
    kept["desired"]["backends"][0]["num_replicas"] = json!(3);
    std::fs::write(state(&folder), serde_json::to_vec(&kept).unwrap()).unwrap();
    let server = Server::start(&folder);
    assert_eq!(started(&server), 3, "the file is as it was: what was changed by hand holds");
    let three = std::fs::read(digits::folder().join("three.json")).unwrap();
    assert_eq!(Socket::connect(server.data()).post("/digits", &three).output("label"), [3.0]);
    server.end();
    assert_eq!(read(&folder)["history"], json!([1]));

    std::fs::write(folder.yaml(), yaml(2)).unwrap();
    let server = Server::start(&folder);
    assert_eq!(started(&server), 2, "another file");
    server.end();
    assert_eq!(read(&folder)["history"], json!([1, 2]));
}

/// Has a verb done by hand; the replicas that are wanted then.
fn told(server: &Server, args: &[&str]) -> u64 {
    let address = format!("http://{}", server.admin);
    let output = output(&[args, &["--address", &address]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    replicas(server)
}

fn replicas(server: &Server) -> u64 {
    ask(server, "GET", "")["num_replicas"].as_u64().unwrap()
}

/// Changes by hand how many there are.
fn scale(server: &Server, replicas: u64) {
    ask(server, "PATCH", &json!({"num_replicas": replicas}).to_string());
}

fn ask(server: &Server, method: &str, body: &str) -> Value {
    let (admin, length) = (server.admin, body.len());
    let head = format!("{method} /api/serve/backends/digits HTTP/1.1\r\nhost: {admin}\r\n");
    let rest = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut socket = Socket::connect(admin);
    socket.write((head + &rest).as_bytes()).unwrap();
    let answer = socket.receive().unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[test]
fn what_was_deployed_beside_the_file_holds_until_the_file_changes() {
    let folder = folder("state-beside-file");
    let other = folder.path("other.yaml");
    std::fs::write(&other, yaml(3)).unwrap();
    let other = other.to_str().unwrap();
    let server = Server::start(&folder);
    assert_eq!(told(&server, &["deploy", other]), 3);
    // It is killed, not ended.
    drop(server);
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 3, "the file is as it was when it was deployed");
    assert_eq!(told(&server, &["rollback"]), 1);
    assert_eq!(told(&server, &["deploy", other]), 3);
    assert_eq!(told(&server, &["rollback"]), 1);
    assert_eq!(told(&server, &["rollback"]), 3);
    drop(server);
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 3, "what was gone back to");
    drop(server);

    std::fs::write(folder.yaml(), yaml(2)).unwrap();
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 2, "another file");
    // The file is changed, and deployed by hand: so it holds from now on as the file does.
    std::fs::write(folder.yaml(), yaml(1)).unwrap();
    assert_eq!(told(&server, &["deploy", folder.yaml().to_str().unwrap()]), 1);
    scale(&server, 4);
    drop(server);
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 4, "with what was changed by hand since");
    assert_eq!(told(&server, &["deploy", other]), 3);
    drop(server);
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 3);
    server.end();
}

#[test]
fn what_the_process_runs_with_and_what_was_found_on_the_machine_make_no_other_file() {
    let folder = folder("state-process");
    let server = Server::start(&folder);
    let other = folder.path("other.yaml");
    std::fs::write(&other, yaml(3)).unwrap();
    assert_eq!(told(&server, &["deploy", other.to_str().unwrap()]), 3);
    scale(&server, 2);
    server.end();
    // As if it had been written on a machine with other cores.
    let kept = state(&folder).with_file_name(read(&folder)["file"].as_str().unwrap());
    let mut file: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let cores = &mut file["config"]["capacity"]["num_cpus"];
    *cores = json!(cores.as_f64().unwrap() + 8.0);
    std::fs::write(&kept, serde_json::to_vec(&file).unwrap()).unwrap();
    let limit = "http: { port: 0, max_body_bytes: 100000 }\ncapacity: { memory_bytes: 1000000 }";
    std::fs::write(folder.yaml(), yaml(1).replace("http: { port: 0 }", limit)).unwrap();
    let server = Server::start(&folder);
    assert_eq!(replicas(&server), 2, "what was changed by hand holds");
    assert_eq!(told(&server, &["rollback", "--to", "1"]), 1, "though that ran with another limit");
    assert_eq!(
        told(&server, &["deploy", folder.yaml().to_str().unwrap()]),
        1,
        "it may say what it runs with"
    );
    server.end();
}

#[test]
fn a_file_that_cannot_be_made_true_leaves_the_state_of_the_one_before() {
    let folder = folder("state-bad-file");
    Server::start(&folder).end();
    let before = read(&folder);
    std::fs::write(folder.yaml(), yaml(2).replace("onnx: digits.onnx", "onnx: serve.yaml")).unwrap();
    assert!(refusal(&folder.yaml()).contains("not an ONNX file"));
    let after = read(&folder);
    assert_eq!((&after["desired"], &after["history"]), (&before["desired"], &before["history"]));
    std::fs::write(folder.yaml(), yaml(1)).unwrap();
    let server = Server::start(&folder);
    assert_eq!(started(&server), 1);
    server.end();
}

#[actix_web::test]
async fn a_restored_model_starts_without_a_program_and_waits_for_room_when_it_does_not_fit() {
    let folder = folder("state-room");
    Server::start(&folder).end();
    let kept = folder.yaml().with_file_name("kept");
    let start = |cpus: f64| {
        let capacity = Capacity::default().num_cpus(cpus);
        Serve::start(ServeOptions::default().current_thread().capacity(capacity).state(&kept))
    };
    let serve = start(0.1).await.unwrap();
    let digits = || serve.status().backends.swap_remove(0);
    until("that it does not fit", || digits().last_error.is_some()).await;
    assert_eq!(digits().state, BackendState::Pending);
    assert!(digits().reason.unwrap().contains("num_cpus"), "{:?}", digits().reason);
    assert_eq!(serve.handle::<Infer>("digits").map(drop), Ok(()));
    let pixels = || Tensor::new("input", [1, 64], vec![0.0_f32; 64]).unwrap();
    let refused = serve.handle::<Infer>("digits").unwrap().call(Infer::new([pixels()])).await;
    assert_eq!(refused.unwrap_err().code(), "no_replica");
    // It asks for less, which is kept.
    let less = ResourcesUpdate { num_cpus: Some(0.05), ..ResourcesUpdate::default() };
    serve.update_backend_config("digits", BackendUpdate::default().resources(less)).await.unwrap();
    serve.shutdown().await.unwrap();
    let serve = start(0.1).await.unwrap();
    until("a replica", || serve.ready().is_ok()).await;
    let answer = serve.handle::<Infer>("digits").unwrap().call(Infer::new([pixels()])).await.unwrap();
    assert_eq!(answer.output("label").unwrap().shape(), [1]);
    serve.shutdown().await.unwrap();
}
