//! Tests of requests: round trips, what tritonclient sends, truncation, and every refusal.

use proptest::prelude::*;

use super::*;
use crate::{
    oip::RequestedOutput,
    tensor::{Datatype, TensorData},
};

fn decode(json: impl Into<String>) -> Result<InferRequest, ServeError> {
    InferRequest::decode(&Bytes::from(json.into()), None)
}

/// A request with one input `x` made of the rest of its object.
fn input(rest: &str) -> Result<InferRequest, ServeError> {
    decode(format!(r#"{{"inputs": [{{"name": "x", {rest}}}]}}"#))
}

fn refused(rest: &str, told: &[&str]) {
    let error = input(rest).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "bad_request", "{text}");
    for part in told {
        assert!(text.contains(part), "{rest}: {text} should tell {part}");
    }
}

#[test]
fn flat_and_nested_arrays_are_the_same_in_any_order_of_fields() {
    let want = Tensor::new("x", [2, 2], vec![1.0_f32, 2.5, -3.0, 4e3]).unwrap();
    for rest in [
        r#""shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, -3, 4e3]"#,
        r#""shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 4e3]]"#,
        r#""data": [[1, 2.5], [-3, 4e3]], "datatype": "FP32", "shape": [2, 2]"#,
        r#""datatype": "FP32", "data": [1, 2.5, -3, 4e3], "shape": [2, 2], "more": {"a": [1]}"#,
        r#""shape": [2, 2], "datatype": "FP32", "parameters": {"content_type": "np"}, "data": [1, 2.5, -3, 4e3]"#,
    ] {
        assert_eq!(input(rest).unwrap().inputs, std::slice::from_ref(&want), "{rest}");
    }
}

#[test]
fn numbers_are_checked_with_name_index_and_range() {
    let cases = [
        (r#""shape": [2], "datatype": "INT64", "data": [1, 1.5]"#, ["`x`", "element 1", "1.5"]),
        (r#""shape": [1], "datatype": "INT8", "data": [128]"#, ["element 0", "128", "-128 to 127"]),
        (r#""shape": [1], "datatype": "UINT64", "data": [-1]"#, ["-1", "UINT64", "0 to"]),
        (r#""shape": [1], "datatype": "FP32", "data": [1e39]"#, ["1e39", "FP32", "3.4028235e38"]),
        (r#""shape": [1], "datatype": "FP32", "data": ["1"]"#, ["\"1\"", "FP32", "numbers"]),
        (r#""shape": [1], "datatype": "BOOL", "data": [1]"#, ["element 0 of `data` is 1", "BOOL", "true"]),
        (r#""shape": [1], "datatype": "FP64", "data": [null]"#, ["element 0", "null", "numbers"]),
        (r#""shape": [1], "datatype": "FP16", "data": [1]"#, ["`x`", "FP16", "binary"]),
    ];
    for (rest, told) in cases {
        refused(rest, &told);
    }
    assert!(input(r#""shape": [1], "datatype": "FP32", "data": [NaN]"#).is_err());
}

#[test]
fn arrays_that_do_not_fit_the_shape_are_refused() {
    let cases = [
        ("[1, 2, 3]", "`data` has 3"),
        ("[1, 2, 3, 4, 5]", "`data` has more"),
        ("[[1, 2, 3], [4]]", "array of 3 at depth 1"),
        ("[[1], [2], [3], [4]]", "array of 1 at depth 1"),
        ("[[[1, 2], [3, 4]]]", "does not fit"),
        ("[[[[1]]]]", "nested deeper"),
        ("[[1, 2], 3, 4]", "mixes"),
        ("7", "must be an array"),
        ("{}", "an array of numbers"),
    ];
    for (data, told) in cases {
        refused(&format!(r#""shape": [2, 2], "datatype": "FP64", "data": {data}"#), &["`x`", told]);
        refused(&format!(r#""data": {data}, "shape": [2, 2], "datatype": "FP64""#), &["`x`", told]);
    }
}

#[test]
fn missing_and_doubled_fields_are_named() {
    for (json, told) in [
        ("{}", "`inputs`"),
        (r#"{"inputs": [{}]}"#, "inputs[0]: field `name` is missing"),
        (r#"{"inputs": [{"name": "x"}]}"#, "`shape`"),
        (r#"{"inputs": [{"name": "x", "shape": [1]}]}"#, "`datatype`"),
        (r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}"#, "neither `data` nor"),
        (r#"{"inputs": [{"name": "x", "name": "y"}]}"#, "twice"),
        (r#"{"inputs": [], "outputs": [{"name": "a"}, {"name": "a"}]}"#, "asked for twice"),
        (
            r#"{"inputs": [], "outputs": [{"name": "a", "parameters": {"classification": 3}}]}"#,
            "classification",
        ),
    ] {
        let error = decode(json).unwrap_err();
        assert!(error.to_string().contains(told) && error.code() == "bad_request", "{json}: {error}");
    }
    refused(r#""shape": [-1], "datatype": "FP32", "data": []"#, &["`x`", "[-1]", "0 or more"]);
    refused(r#""shape": [1], "datatype": "FP99", "data": []"#, &["`x`", "FP99", "FP32"]);
    refused(
        r#""shape": [99999999999, 99999999999], "datatype": "FP32", "data": []"#,
        &["more than 268435456"],
    );
    refused(
        r#""shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}"#,
        &["shared memory"],
    );
}

#[test]
fn the_number_of_inputs_is_limited_and_names_are_unique() {
    let one = |name: usize| format!(r#"{{"name": "{name}", "shape": [0], "datatype": "FP32", "data": []}}"#);
    let many = |n: usize| format!(r#"{{"inputs": [{}]}}"#, (0..n).map(one).collect::<Vec<_>>().join(","));
    assert_eq!(decode(many(64)).unwrap().inputs.len(), 64);
    assert!(decode(many(65)).unwrap_err().to_string().contains("more than 64 inputs"));
    let twice = format!(r#"{{"inputs": [{}, {}]}}"#, one(1), one(1));
    assert!(decode(twice).unwrap_err().to_string().contains("`1` is given twice"));
}

#[test]
fn what_tritonclient_sends_is_understood() {
    let json = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},
        {"name":"t","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}],
        "outputs":[{"name":"a","parameters":{"binary_data":true}},{"name":"b","parameters":{"binary_data":false}}],
        "parameters":{"binary_data_output":true,"sequence_id":0}}"#;
    let mut body = json.as_bytes().to_vec();
    body.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    body.extend(b"\x03\0\0\0abc\0\0\0\0");
    let request = InferRequest::decode(&body.clone().into(), Some(json.len())).unwrap();
    assert_eq!(*request.inputs[0].data(), TensorData::Fp32(vec![1.0, -2.0]));
    assert_eq!(*request.inputs[1].data(), TensorData::Bytes(vec!["abc".into(), "".into()]));
    let forms = ["a", "b", "other"].map(|name| request.selection.form(name));
    assert_eq!(forms, [Form::Binary, Form::Json, Form::Binary]);
    // Without the header the raw bytes are no JSON; with too long a one, there are not so many.
    assert!(InferRequest::decode(&body.clone().into(), None).is_err());
    let error = InferRequest::decode(&body.into(), Some(1 << 20)).unwrap_err();
    assert!(error.to_string().contains("1048576"), "{error}");
}

#[test]
fn outputs_are_selected_in_order_and_unknown_ones_refused() {
    let named = |name: &str| RequestedOutput { name: name.into(), form: None };
    let made = || ["a", "b", "c"].map(|name| Tensor::new(name, [1], vec![0_u8]).unwrap()).to_vec();
    let selection = |names: &[&str]| OutputSelection {
        outputs: names.iter().map(|name| named(name)).collect(),
        default: Form::Json,
    };
    let got = selection(&["c", "a"]).select(made()).unwrap();
    assert_eq!(got.iter().map(Tensor::name).collect::<Vec<_>>(), ["c", "a"]);
    let error = selection(&["d"]).select(made()).unwrap_err().to_string();
    assert!(error.contains("`d`") && error.contains("a, b, c"), "{error}");
}

/// Any data of `elements` elements that has a form in JSON too.
fn data(elements: usize) -> BoxedStrategy<TensorData> {
    fn of<T: Clone + std::fmt::Debug + 'static>(
        element: impl Strategy<Value = T> + 'static,
        elements: usize,
    ) -> BoxedStrategy<TensorData>
    where
        TensorData: From<Vec<T>>,
    {
        prop::collection::vec(element, elements).prop_map(TensorData::from).boxed()
    }
    prop_oneof![
        of(any::<bool>(), elements),
        of(any::<u8>(), elements),
        of(any::<u16>(), elements),
        of(any::<u32>(), elements),
        of(any::<u64>(), elements),
        of(any::<i8>(), elements),
        of(any::<i16>(), elements),
        of(any::<i32>(), elements),
        of(any::<i64>(), elements),
        of(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, elements),
        of(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, elements),
        of(any::<String>().prop_map(Bytes::from), elements),
    ]
    .boxed()
}

fn request() -> impl Strategy<Value = InferRequest> {
    let tensor = prop::collection::vec(0_usize..4, 0..4)
        .prop_flat_map(|shape| (data(shape.iter().product()), Just(shape)));
    (prop::collection::vec(tensor, 0..4), any::<Option<String>>()).prop_map(|(tensors, id)| {
        let named = tensors.into_iter().enumerate();
        let inputs = named.map(|(i, (data, shape))| Tensor::new(format!("{i}\"é"), shape, data).unwrap());
        InferRequest { id, inputs: inputs.collect(), selection: Default::default() }
    })
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(request in request(), binary: bool) {
        let sent = request.encode(if binary { Form::Binary } else { Form::Json }).unwrap();
        prop_assert_eq!(sent.header_length.is_some(), binary && !request.inputs.is_empty());
        prop_assert_eq!(InferRequest::decode(&sent.body, sent.header_length).unwrap(), request);
    }

    #[test]
    fn a_cut_body_is_a_bad_request(request in request(), cut in any::<prop::sample::Index>()) {
        let sent = request.encode(Form::Binary).unwrap();
        let short = sent.body.slice(..cut.index(sent.body.len()));
        let error = InferRequest::decode(&short, sent.header_length).unwrap_err();
        prop_assert_eq!(error.code(), "bad_request");
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, size in 0_usize..64, datatype in prop::sample::select(&Datatype::ALL[..])) {
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        let body: Bytes = [json.as_bytes(), &bytes].concat().into();
        let _either = InferRequest::decode(&body, Some(json.len()));
        let _either = InferRequest::decode(&bytes.into(), Some(size));
    }
}
