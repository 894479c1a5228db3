//! Tests of ONNX models: every label of the digits, every refusal, threads.

use super::{
    BatchAxis, OnnxModel,
    fixture::{self, Dim},
};
use crate::{
    backend::Backend,
    config::BackendConfig,
    error::ServeError,
    tensor::{Datatype, Tensor, TensorData},
    testing::Stage,
};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx");
const HELD_OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/test.json");

#[derive(serde::Deserialize)]
struct HeldOut {
    x: Vec<Vec<f32>>,
    sklearn: Vec<i64>,
    probabilities: Vec<Vec<f32>>,
}

fn held_out() -> HeldOut {
    serde_json::from_slice(&std::fs::read(HELD_OUT).unwrap()).unwrap()
}

fn digits() -> OnnxModel {
    OnnxModel::load(DIGITS, 1).unwrap()
}

fn pixels(rows: &[Vec<f32>]) -> Tensor {
    Tensor::new("input", [rows.len(), 64], rows.concat()).unwrap()
}

/// Labels and probabilities.
fn classify(model: &OnnxModel, rows: &[Vec<f32>]) -> (Vec<i64>, Vec<f32>) {
    let outputs = model.run(&[pixels(rows)]).unwrap();
    assert_eq!(outputs.iter().map(Tensor::name).collect::<Vec<_>>(), ["label", "probabilities"]);
    assert_eq!((outputs[0].shape(), outputs[1].shape()), (&[rows.len()][..], &[rows.len(), 10][..]));
    match (outputs[0].data(), outputs[1].data()) {
        (TensorData::Int64(labels), TensorData::Fp32(p)) => (labels.clone(), p.clone()),
        other => panic!("{other:?}"),
    }
}

fn assert_close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "differs by {worst}");
}

#[test]
fn every_held_out_digit_is_told_as_sklearn_tells_it() {
    let HeldOut { x, sklearn, probabilities } = held_out();
    assert_eq!(x.len(), 360);
    for model in [digits(), digits().prepared([1, 360]).unwrap()] {
        let (labels, p) = classify(&model, &x);
        assert_eq!(labels, sklearn);
        assert_close(&p, &probabilities.concat());
        for (row, label) in x.iter().zip(&sklearn) {
            assert_eq!(classify(&model, std::slice::from_ref(row)).0, [*label]);
        }
    }
}

#[test]
fn threads_are_as_many_as_asked_for_and_change_no_answer() {
    let x = std::iter::repeat_n(held_out().x, 4).flatten().collect::<Vec<_>>();
    let model = digits().prepared([1440]).unwrap();
    let want = classify(&model, &x);
    for threads in [1, 3] {
        let other = model.with_threads(threads).unwrap();
        assert_eq!((other.threads(), model.threads()), (threads, 1));
        let got = classify(&other, &x);
        assert_eq!(got.0, want.0);
        assert_close(&got.1, &want.1);
    }
    for threads in [0, 1025] {
        let error = model.with_threads(threads).unwrap_err().to_string();
        assert!(error.contains(&threads.to_string()) && error.contains("1 to 1024"), "{error}");
    }
}

#[test]
fn it_is_shared_between_threads() {
    let (model, HeldOut { x, sklearn, .. }) = (digits(), held_out());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let clone = model.clone();
            let (x, sklearn) = (&x, &sklearn);
            scope.spawn(move || assert_eq!(classify(&clone, x).0, *sklearn));
        }
    });
}

#[test]
fn metadata_names_types_and_shapes() {
    let model = digits();
    let metadata = model.metadata();
    assert_eq!((metadata.name.as_str(), metadata.platform.as_str()), ("digits", "tract_onnx"));
    assert_eq!((metadata.inputs[0].datatype, &metadata.inputs[0].shape[..]), (Datatype::Fp32, &[-1, 64][..]));
    assert_eq!((metadata.outputs[0].datatype, &metadata.outputs[0].shape[..]), (Datatype::Int64, &[-1][..]));
    assert_eq!(model.batch_axis(), BatchAxis::Rows);
}

/// The refusal of a run, which must tell all of `told`.
fn refused(model: &OnnxModel, inputs: &[Tensor], told: &[&str]) {
    let error = model.run(inputs).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "bad_request", "{text}");
    for part in told {
        assert!(text.contains(part), "{text} should tell {part}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_told() {
    let model = digits();
    let good = pixels(&[vec![0.0; 64]]);
    let named = |name: &str| Tensor::new(name, [1, 64], vec![0.0_f32; 64]).unwrap();
    let of = |shape: &[usize]| Tensor::new("input", shape, vec![0.0_f32; shape.iter().product()]).unwrap();
    refused(&model, &[], &["`input`", "missing", "FP32 [N, 64]"]);
    refused(&model, &[named("pixels")], &["`pixels`", "no such input", "`input` FP32 [N, 64]"]);
    refused(&model, &[good.clone(), good], &["`input`", "twice"]);
    refused(&model, &[of(&[1, 63])], &["[1, 63]", "FP32 [N, 64]"]);
    refused(&model, &[of(&[64])], &["[64]", "FP32 [N, 64]"]);
    refused(&model, &[of(&[0, 64])], &["[0, 64]", "at least 1"]);
    let integers = Tensor::new("input", [1, 64], vec![0_i64; 64]).unwrap();
    refused(&model, &[integers], &["INT64", "FP32 [N, 64]"]);
}

fn load_error(path: &std::path::Path, told: &[&str]) {
    let error = OnnxModel::load(path, 1).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ServeError::Invalid { .. }), "{text}");
    for part in [&path.display().to_string()[..]].iter().chain(told) {
        assert!(text.contains(part), "{text} should tell {part}");
    }
}

#[test]
fn files_that_cannot_be_served_are_told_with_their_path() {
    load_error("no/such/file.onnx".as_ref(), &["cannot be read"]);
    load_error(&fixture::write("text", b"this is no model"), &["not an ONNX file"]);
    load_error(&fixture::write("empty", b""), &["not an ONNX file"]);
    load_error(&fixture::model("unknown", "Frobnicate", &[("x", 1, &[Dim::Fixed(1)])]), &["Frobnicate"]);
    load_error(&fixture::model("strings", "Identity", &[("x", 8, &[Dim::Fixed(1)])]), &["BYTES"]);
    let square = |rows: u8| [Dim::Fixed(rows), Dim::Fixed(2)];
    let clash: [(&str, u8, &[Dim]); 2] = [("a", 1, &square(2)), ("b", 1, &square(3))];
    load_error(&fixture::model("clash", "MatMul", &clash), &["shapes"]);
    let whole = std::fs::read(DIGITS).unwrap();
    for cut in [1, 100, whole.len() / 2, whole.len() - 1] {
        load_error(&fixture::write("cut", &whole[..cut]), &[]);
    }
}

#[test]
fn a_fixed_first_axis_is_told() {
    let path = fixture::model("fixed", "Exp", &[("x", 1, &[Dim::Fixed(1), Dim::Fixed(2)])]);
    let model = OnnxModel::load(&*path, 1).unwrap().prepared([4]).unwrap();
    assert_eq!(model.batch_axis(), BatchAxis::Fixed(1));
    let of = |rows: usize| Tensor::new("x", [rows, 2], vec![0.0_f32; rows * 2]).unwrap();
    assert_eq!(*model.run(&[of(1)]).unwrap()[0].data(), TensorData::Fp32(vec![1.0, 1.0]));
    refused(&model, &[of(3)], &["`x`", "[3, 2]", "exactly 1", "not for 3"]);
}

#[test]
fn symbols_must_agree_and_open_axes_take_any_length() {
    let inputs: [(&str, u8, &[Dim]); 2] =
        [("a", 1, &[Dim::Named("n"), Dim::Open]), ("b", 1, &[Dim::Named("n"), Dim::Fixed(1)])];
    let model = OnnxModel::load(&*fixture::model("symbols", "Mul", &inputs), 1).unwrap();
    let of = |name: &str, shape: [usize; 2]| {
        let elements = shape.iter().product();
        Tensor::new(name, shape, vec![2.0_f32; elements]).unwrap()
    };
    let product = model.run(&[of("b", [3, 1]), of("a", [3, 2])]).unwrap();
    assert_eq!((product[0].shape(), product[0].data()), (&[3, 2][..], &TensorData::Fp32(vec![4.0; 6])));
    refused(&model, &[of("a", [3, 2]), of("b", [2, 1])], &["`b`", "[2, 1]", "n is 3 in `a`"]);
    let open = fixture::model("open", "Exp", &[("x", 1, &[Dim::Open, Dim::Fixed(2)])]);
    let open = OnnxModel::load(&*open, 1).unwrap();
    assert_eq!((open.batch_axis(), &open.metadata().inputs[0].shape[..]), (BatchAxis::Rows, &[-1, 2][..]));
}

#[actix_web::test]
async fn the_model_that_has_taken_over_is_the_one_that_is_told() {
    let stage = Stage::new().await.unwrap();
    let input = |name| fixture::model(name, "Exp", &[(name, 1, &[Dim::Fixed(1), Dim::Fixed(2)])]);
    for name in ["first", "second"] {
        let file = input(name);
        stage.serve().deploy_backend("m", Backend::onnx(&*file), BackendConfig::default()).await.unwrap();
        let models = &stage.serve().0.office.models;
        let told = models.find("m").unwrap().model().unwrap().get().unwrap().inputs[0].name.clone();
        assert_eq!(told, name);
    }
    stage.end().await.unwrap();
}
