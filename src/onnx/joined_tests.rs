//! Tests of joined runs: who shares one, and who does not suffer from whom.

use super::{
    super::fixture::{self, Dim},
    *,
};
use crate::tensor::TensorData;

fn tensor(name: &str, shape: &[usize], data: impl Into<TensorData>) -> Tensor {
    Tensor::new(name, shape, data).unwrap()
}

fn ones(shape: &[usize]) -> Inputs {
    Ok(vec![tensor("x", shape, vec![0.0_f32; shape.iter().product()])])
}

/// `exp` over [N, any].
fn exp(test: &str) -> OnnxModel {
    let path = fixture::model(test, "Exp", &[("x", 1, &[Dim::Open, Dim::Open])]);
    OnnxModel::load(&*path, 1).unwrap()
}

/// Rows of each run that `model` makes of requests of these shapes.
fn runs(model: &OnnxModel, shapes: &[[usize; 2]]) -> Vec<Vec<usize>> {
    let requests = shapes.iter().map(|shape| ones(shape)).collect();
    let (groups, _) = group(model, requests);
    groups.iter().map(|group| group.members.iter().map(|member| member.rows).collect()).collect()
}

#[test]
fn requests_of_one_row_shape_share_a_run_up_to_the_rows_allowed() {
    let model = exp("rows");
    assert_eq!(runs(&model, &[[1, 2], [3, 2], [2, 5], [1, 2], [7, 5]]), [vec![1, 3, 1], vec![2, 7]]);
    let most = ONNX_JOINED_ROWS_MAX;
    assert_eq!(runs(&model, &[[most, 1], [1, 1], [1, 1]]), [vec![most], vec![1, 1]]);
    assert_eq!(runs(&model, &[[1, 1], [most, 1], [most - 1, 1]]), [vec![1], vec![most], vec![most - 1]]);
    assert_eq!(runs(&model, &[[1, JOINED_ELEMENTS_MAX], [1, JOINED_ELEMENTS_MAX]]), [vec![1], vec![1]]);
}

#[test]
fn each_request_gets_its_own_rows_in_order() {
    let model = exp("order");
    let of = |value: f32, shape: &[usize]| Ok(vec![tensor("x", shape, vec![value; shape.iter().product()])]);
    let wrong = Ok(vec![tensor("y", &[1, 1], vec![0.0_f32])]);
    let refused = Err(ServeError::bad_request("before"));
    let requests = vec![of(0.0, &[2, 1]), wrong, of(1.0, &[1, 3]), refused, of(2.0, &[1, 1])];
    let answers = run(&model, requests);
    let shape_and_first = |answer: &Outputs| {
        let output = &answer.as_ref().unwrap()[0];
        let TensorData::Fp32(values) = output.data() else { panic!("{output:?}") };
        assert!(values.iter().all(|value| value == &values[0]));
        (output.shape().to_vec(), values[0].ln().round())
    };
    assert_eq!(shape_and_first(&answers[0]), (vec![2, 1], 0.0));
    assert_eq!(shape_and_first(&answers[2]), (vec![1, 3], 1.0));
    assert_eq!(shape_and_first(&answers[4]), (vec![1, 1], 2.0));
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("`y`"));
    assert_eq!(answers[3], Err(ServeError::bad_request("before")));
}

#[test]
fn values_that_fail_a_run_fail_their_own_request_alone() {
    let inputs: [(&str, u8, &[Dim]); 2] = [("a", 7, &[Dim::Named("n")]), ("b", 7, &[Dim::Named("n")])];
    let model = OnnxModel::load(&*fixture::model("divide", "Div", &inputs), 1).unwrap();
    assert_eq!(model.batch_axis(), BatchAxis::Rows);
    let divide = |by: i64| Ok(vec![tensor("b", &[1], vec![by]), tensor("a", &[1], vec![12_i64])]);
    let answers = run(&model, vec![divide(3), divide(0), divide(4)]);
    assert_eq!(*answers[0].as_ref().unwrap()[0].data(), TensorData::Int64(vec![4]));
    assert_eq!(answers[1].as_ref().unwrap_err().code(), "onnx_failed");
    assert_eq!(*answers[2].as_ref().unwrap()[0].data(), TensorData::Int64(vec![3]));
}

#[test]
fn a_model_for_a_fixed_number_of_rows_runs_each_alone() {
    let path = fixture::model("alone", "Exp", &[("x", 1, &[Dim::Fixed(1), Dim::Fixed(2)])]);
    let model = OnnxModel::load(&*path, 1).unwrap();
    assert_eq!(runs(&model, &[[1, 2], [1, 2]]), [vec![1], vec![1]]);
    assert!(run(&model, vec![ones(&[1, 2]), ones(&[1, 2])]).iter().all(Result::is_ok));
}
