//! The held-out handwritten digits: images, scikit-learn's labels, requests made of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

/// The committed model and its data.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits"))
}

pub fn model() -> PathBuf {
    folder().join("digits.onnx")
}

#[derive(Deserialize)]
pub struct HeldOut {
    /// 360 images of 64 pixels.
    pub x: Vec<Vec<f32>>,
    /// What scikit-learn said to each.
    pub sklearn: Vec<i64>,
}

pub fn held_out() -> HeldOut {
    let held_out: HeldOut =
        serde_json::from_slice(&std::fs::read(folder().join("test.json")).unwrap()).unwrap();
    assert_eq!((held_out.x.len(), held_out.sklearn.len()), (360, 360));
    held_out
}

/// An inference request for these images, as JSON.
pub fn request(images: &[Vec<f32>]) -> Vec<u8> {
    let input = json!({"name": "input", "shape": [images.len(), 64], "datatype": "FP32", "data": images});
    serde_json::to_vec(&json!({ "inputs": [input] })).unwrap()
}

/// Labels as they stand in a JSON answer.
pub fn labels(sklearn: &[i64]) -> Vec<f64> {
    sklearn.iter().map(|label| *label as f64).collect()
}
