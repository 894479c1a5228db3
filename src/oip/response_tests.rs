//! Tests of answers: what travels, and what has no form in JSON.

use super::*;
use crate::{error::Fault, tensor::TensorData};

fn answer(data: impl Into<TensorData>) -> InferResponse {
    let outputs = vec![Tensor::new("y", [1], data).unwrap()];
    InferResponse { model_name: "m".into(), model_version: Some("2".into()), id: Some("7".into()), outputs }
}

#[test]
fn json_has_the_fields_of_the_protocol() {
    let sent = answer(vec![1.5_f32]).encode(|_| Form::Json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    let want = serde_json::json!({
        "model_name": "m", "model_version": "2", "id": "7",
        "outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [1.5]}]
    });
    assert_eq!((json, sent.header_length), (want, None));
}

#[test]
fn binary_elements_follow_the_json_and_forms_may_be_mixed() {
    let mut answer = answer(vec![1.5_f32]);
    answer.outputs.push(Tensor::new("z", [2], vec![3_i16, -1]).unwrap());
    let form = |name: &str| if name == "z" { Form::Binary } else { Form::Json };
    let sent = answer.encode(form).unwrap();
    let header = sent.header_length.unwrap();
    assert_eq!(&sent.body[header..], [3, 0, 0xff, 0xff]);
    let json: serde_json::Value = serde_json::from_slice(&sent.body[..header]).unwrap();
    assert_eq!(json["outputs"][1]["parameters"]["binary_data_size"], 4);
    assert!(json["outputs"][1].get("data").is_none());
    assert_eq!(InferResponse::decode(&sent.body, sent.header_length).unwrap(), answer);
}

#[test]
fn what_json_cannot_say_is_the_backends_error_and_goes_as_binary() {
    let cases = [
        (answer(vec![f32::NAN]), "element 0 is NaN"),
        (answer(vec![f64::INFINITY]), "element 0 is inf"),
        (answer(TensorData::Fp16(vec![0x3c00])), "FP16"),
        (answer(vec![Bytes::from_static(&[0xff])]), "not UTF-8"),
    ];
    for (answer, told) in cases {
        let error = answer.encode(|_| Form::Json).unwrap_err();
        let text = error.to_string();
        assert_eq!((error.fault(), error.code()), (Fault::Backend, "not_json"));
        assert!(text.contains("`y`") && text.contains(told) && text.contains("binary_data: true"), "{text}");
        assert!(answer.encode(|_| Form::Binary).unwrap().header_length.is_some());
    }
}
