//! ONNX models in process and over HTTP: scikit-learn's labels exactly, batches, and every refusal.

use std::{net::SocketAddr, time::Duration};

use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Infer, Inferred, Listen, RestartPolicy, Serve,
    ServeError, Tensor, TensorData,
    oip::{Form, InferRequest, InferResponse, OutputSelection, RequestedOutput},
    testing::Stage,
};
use serde_json::{Value, json};

use crate::{
    digits::{self, held_out, labels, request},
    socket::Socket,
};

/// Serves the digits at `/digits` with these options.
async fn serving(config: BackendConfig) -> (Serve, SocketAddr) {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let address = serve.listen(Listen::default()).await.unwrap();
    serve.create_backend("digits", Backend::onnx(digits::model()), config).await.unwrap();
    let endpoint = Endpoint::new("digits").route("/digits").methods(["POST"]);
    serve.create_endpoint("digits", endpoint).await.unwrap();
    (serve, address)
}

/// Count and sum of the sizes of batches.
fn batches(serve: &Serve) -> (u64, u64) {
    let text = serve.metrics();
    let value = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(&format!("serve_batch_size_{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>() as u64
    };
    (value("count"), value("sum"))
}

#[actix_web::test]
async fn every_held_out_digit_over_http_is_told_as_sklearn_tells_it() {
    let (serve, address) = serving(BackendConfig::default()).await;
    let held_out = held_out();
    for path in ["/digits", "/v2/models/digits/infer"] {
        let mut socket = Socket::connect(address);
        for (image, label) in held_out.x.iter().zip(&held_out.sklearn) {
            let answer = socket.post(path, &request(std::slice::from_ref(image)));
            assert_eq!(answer.output("label"), [*label as f64]);
        }
        let answer = socket.post(path, &request(&held_out.x));
        assert_eq!(answer.output("label"), labels(&held_out.sklearn));
        assert_eq!(answer.output("probabilities").len(), 3600);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn requests_of_many_connections_share_runs_and_get_their_own_labels() {
    let config = BackendConfig::default().max_batch_size(32).batch_wait_timeout(Duration::from_millis(20));
    let (serve, address) = serving(config).await;
    let held_out = held_out();
    std::thread::scope(|scope| {
        for share in 0..12 {
            let held_out = &held_out;
            scope.spawn(move || {
                let mut socket = Socket::connect(address);
                for place in (share..360).step_by(12) {
                    // One to three images a request: rows and requests are not the same.
                    let images = place..(place + 1 + place % 3).min(360);
                    let answer = socket.post("/digits", &request(&held_out.x[images.clone()]));
                    assert_eq!(answer.output("label"), labels(&held_out.sklearn[images]));
                }
            });
        }
    });
    let (count, sum) = batches(&serve);
    assert_eq!(sum, 360);
    assert!(count < 360, "no two requests shared a run");
    serve.shutdown().await.unwrap();
}

fn image(index: usize) -> Tensor {
    Tensor::new("input", [1, 64], held_out().x[index].clone()).unwrap()
}

fn label(answer: &Inferred) -> i64 {
    match answer.output("label").unwrap().data() {
        TensorData::Int64(labels) if labels.len() == 1 => labels[0],
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn in_one_batch_what_is_wrong_fails_alone() -> Result<(), ServeError> {
    tokio::time::pause();
    let stage = Stage::new().await?;
    let config = BackendConfig::default().max_batch_size(7).batch_wait_timeout(Duration::from_secs(60));
    let model = stage.replicas::<_, Infer>("digits", Backend::onnx(digits::model()), config).await?;
    let started = tokio::time::Instant::now();
    let calls = [
        Infer::new([image(0)]),
        Infer::new([Tensor::new("pixels", [1, 64], vec![0.0_f32; 64])?]),
        Infer::new([Tensor::new("input", [1, 63], vec![0.0_f32; 63])?]),
        Infer::new([Tensor::new("input", [1, 64], vec![0_i64; 64])?]),
        Infer::new([]),
        Infer::new([image(1)]).outputs(["nothing"]),
        Infer { id: Some("second".into()), ..Infer::new([image(1)]).outputs(["label"]) },
    ]
    .map(|infer| model.call(infer));
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    assert!(started.elapsed() < Duration::from_secs(60), "a full batch does not wait");
    assert_eq!(batches(stage.serve()), (1, 7));
    let held_out = held_out();
    assert_eq!(label(answers[0].as_ref().unwrap()), held_out.sklearn[0]);
    let second = answers[6].as_ref().unwrap();
    assert_eq!((label(second), second.outputs.len()), (held_out.sklearn[1], 1));
    assert_eq!((second.model.as_str(), second.id.as_deref()), ("digits", Some("second")));
    for (answer, told) in answers[1..6].iter().zip(["`pixels`", "[1, 63]", "INT64", "missing", "`nothing`"]) {
        let error = answer.as_ref().unwrap_err();
        assert!(error.code() == "bad_request" && error.to_string().contains(told), "{error}");
    }
    stage.end().await
}

#[actix_web::test]
async fn binary_tensors_travel_both_ways_in_the_form_that_was_asked_for() {
    let (serve, address) = serving(BackendConfig::default()).await;
    let held_out = held_out();
    let named = |name: &str, form| RequestedOutput { name: name.into(), form };
    let request = InferRequest {
        id: Some("mine".into()),
        inputs: vec![Tensor::new("input", [2, 64], held_out.x[..2].concat()).unwrap()],
        selection: OutputSelection {
            outputs: vec![named("probabilities", None), named("label", Some(Form::Binary))],
            default: Form::Json,
        },
    };
    let sent = request.encode(Form::Binary).unwrap();
    let header = format!("Inference-Header-Content-Length: {}\r\n", sent.header_length.unwrap());
    for path in ["/digits", "/v2/models/digits/infer"] {
        let mut socket = Socket::connect(address);
        socket.send("POST", path, &header, &sent.body).unwrap();
        let answer = socket.receive().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let length = answer.header("inference-header-content-length").map(|value| value.parse().unwrap());
        assert_eq!(answer.body.len() - length.unwrap(), 2 * 8, "labels alone are binary");
        let got = InferResponse::decode(&answer.body.clone().into(), length).unwrap();
        assert_eq!((got.model_name.as_str(), got.id.as_deref()), ("digits", Some("mine")));
        assert_eq!(got.outputs.iter().map(Tensor::name).collect::<Vec<_>>(), ["probabilities", "label"]);
        assert_eq!(*got.outputs[1].data(), TensorData::Int64(held_out.sklearn[..2].to_vec()));
        // The header is wrong: too large, and no number.
        for wrong in ["1000000", "-1"] {
            let header = format!("Inference-Header-Content-Length: {wrong}\r\n");
            socket.send("POST", path, &header, &sent.body).unwrap();
            let answer = socket.receive().unwrap();
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")));
        }
    }
    serve.shutdown().await.unwrap();
}

fn input(name: &str, shape: Value, datatype: &str, data: Value) -> Vec<u8> {
    let input = json!({"name": name, "shape": shape, "datatype": datatype, "data": data});
    serde_json::to_vec(&json!({ "inputs": [input] })).unwrap()
}

#[actix_web::test]
async fn requests_that_do_not_fit_are_refused_and_say_why() {
    let (serve, address) = serving(BackendConfig::default().max_batch_size(8)).await;
    let row = json!(vec![0.5; 64]);
    let cases = [
        (input("pixels", json!([1, 64]), "FP32", row.clone()), "`pixels`"),
        (input("input", json!([1, 63]), "FP32", json!(vec![0.0; 63])), "[1, 63]"),
        (input("input", json!([64]), "FP32", row.clone()), "[64]"),
        (input("input", json!([0, 64]), "FP32", json!([])), "[0, 64]"),
        (input("input", json!([2, 64]), "FP32", row.clone()), "128 elements"),
        (input("input", json!([1, 64]), "FP64", row.clone()), "FP64"),
        (input("input", json!([1, 64]), "FLOAT", row.clone()), "FLOAT"),
        (input("input", json!([1, 64]), "INT32", row), "integers"),
        (b"{\"inputs\": []}".to_vec(), "`input`"),
        (b"{\"inputs\": [".to_vec(), "EOF"),
        (Vec::new(), "EOF"),
    ];
    for (path, v2) in [("/digits", false), ("/v2/models/digits/infer", true)] {
        let mut socket = Socket::connect(address);
        for (body, told) in &cases {
            let answer = socket.post(path, body);
            let problem = answer.json();
            assert_eq!((answer.status, &problem["code"]), (400, &json!("bad_request")), "{told}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(problem["detail"].as_str().unwrap().contains(told), "{told}: {problem}");
            let error = if v2 { problem["detail"].clone() } else { Value::Null };
            assert_eq!(problem["error"], error, "inference clients look there");
        }
        // The connection and the replica are as good as before.
        assert_eq!(socket.post(path, &request(&held_out().x[..1])).status, 200);
        assert_eq!(socket.get(path).status, 405);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_protocols_routes_tell_what_there_is() {
    let (serve, address) = serving(BackendConfig::default()).await;
    let mut socket = Socket::connect(address);
    assert_eq!(socket.get("/v2").json()["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(socket.get("/v2/health/live").status, 200);
    assert_eq!(socket.get("/v2/health/ready").json(), json!({"ready": true}));
    assert_eq!(socket.get("/v2/models/digits/ready").json(), json!({"name": "digits", "ready": true}));
    let metadata = socket.get("/v2/models/digits").json();
    assert_eq!(metadata["name"], "digits");
    assert_eq!(metadata["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]));
    assert_eq!(metadata["outputs"][0], json!({"name": "label", "datatype": "INT64", "shape": [-1]}));
    for path in ["/v2/models/other", "/v2/models/other/ready", "/v2/models/digits/versions/7"] {
        let answer = socket.get(path);
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("unknown_model")), "{path}");
        assert_eq!(answer.json()["error"], answer.json()["detail"]);
    }
    let answer = socket.post("/v2/models/other/infer", &request(&held_out().x[..1]));
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("unknown_model")));
    let wrong = socket.get("/v2/models/digits/infer");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    let counted = |line: &str| serve.metrics().lines().any(|l| l == line);
    assert!(counted(
        "serve_num_http_requests_total{route=\"/v2/models/{model}/infer\",method=\"POST\",status_code=\"404\"} 1"
    ));

    // A backend that is no model is none of the protocol's, and one without replicas is not ready.
    serve
        .create_backend(
            "echo",
            Backend::from_fn(|echo: Infer| async move {
                Err(ServeError::backend(500, "echo", format!("{} inputs", echo.inputs.len())))
            }),
            BackendConfig::default(),
        )
        .await
        .unwrap();
    assert_eq!(socket.get("/v2/models/echo").status, 404);
    serve.update_backend_config("digits", BackendUpdate::default().num_replicas(0)).await.unwrap();
    for path in ["/v2/models/digits/ready", "/v2/health/ready"] {
        let answer = socket.get(path);
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_ready")), "{path}");
    }
    let answer = socket.post("/v2/models/digits/infer", &request(&held_out().x[..1]));
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("no_replica")));
    serve.delete_endpoint("digits").await.unwrap();
    serve.delete_backend("digits", false).await.unwrap();
    assert_eq!(socket.get("/v2/models/digits").status, 404);
    serve.shutdown().await.unwrap();
}

/// A copy of the model of its own, gone with the guard.
struct Copied(std::path::PathBuf);

impl Copied {
    fn new(test: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("greenroom-{}-{test}.onnx", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[actix_web::test]
async fn the_file_is_read_once_for_all_replicas() -> Result<(), ServeError> {
    let copied = Copied::new("once", &std::fs::read(digits::model()).unwrap());
    let stage = Stage::new().await?;
    let backend = Backend::onnx(&copied.0);
    let model = stage.replicas::<_, Infer>("digits", backend, BackendConfig::default()).await?;
    drop(copied);
    stage.serve().update_backend_config("digits", BackendUpdate::default().num_replicas(0)).await?;
    stage.serve().update_backend_config("digits", BackendUpdate::default().num_replicas(3)).await?;
    assert_eq!(label(&model.call(Infer::new([image(5)])).await?), held_out().sklearn[5]);
    stage.end().await
}

#[actix_web::test]
async fn a_file_that_cannot_be_served_is_told_with_its_path() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let text = Copied::new("text", b"this is no model");
    let missing = std::path::PathBuf::from("no/such/file.onnx");
    let cases = [(&missing, "cannot be read", "invalid"), (&text.0, "not an ONNX file", "start_failed")];
    for (path, told, code) in cases {
        let once = BackendConfig::default().restart(RestartPolicy { max_restarts: 0, ..Default::default() });
        let error = stage.serve().create_backend("model", Backend::onnx(path), once).await.unwrap_err();
        assert_eq!(error.code(), code);
        for part in [told, &path.display().to_string()] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
    assert!(stage.serve().list_backends().is_empty());
    stage.end().await
}
