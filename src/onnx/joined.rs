//! Many requests in few runs: which go together, and each one's share of what came out.

use std::collections::HashMap;

use super::model::{BatchAxis, OnnxModel};
use crate::{error::ServeError, tensor::Tensor};

/// Most rows in one run of several requests; a request with more of its own runs alone.
pub const ONNX_JOINED_ROWS_MAX: usize = 1024;

/// Most elements of one input in such a run: 64 MiB of FP32.
const JOINED_ELEMENTS_MAX: usize = 1 << 24;

/// The inputs of one request, or why it is refused before anything runs.
pub(super) type Inputs = Result<Vec<Tensor>, ServeError>;

/// The outputs of one request.
pub(super) type Outputs = Result<Vec<Tensor>, ServeError>;

/// Requests that go into one run.
#[derive(Default)]
struct Group {
    rows: usize,
    elements: usize,
    members: Vec<Member>,
}

/// One request of a group: its place among all, its inputs in the model's order.
struct Member {
    place: usize,
    rows: usize,
    inputs: Vec<Tensor>,
}

/// Answers every request, in order. Those that fit together share a run; one that is wrong fails alone.
pub(super) fn run(model: &OnnxModel, requests: Vec<Inputs>) -> Vec<Outputs> {
    let (groups, mut answers) = group(model, requests);
    for group in groups {
        run_group(model, group, &mut answers);
    }
    answers.into_iter().map(|answer| answer.unwrap_or(Err(ServeError::NoAnswer))).collect()
}

/// Which requests share a run, and the answers of those that are refused before it.
fn group(model: &OnnxModel, requests: Vec<Inputs>) -> (Vec<Group>, Vec<Option<Outputs>>) {
    let mut answers: Vec<Option<Outputs>> = requests.iter().map(|_| None).collect();
    let joins = model.batch_axis() == BatchAxis::Rows;
    let mut groups: Vec<Group> = Vec::new();
    // By the lengths of all axes but the first: the group that still takes requests.
    let mut open: HashMap<Vec<usize>, usize> = HashMap::new();
    for (place, inputs) in requests.into_iter().enumerate() {
        let inputs = match inputs.and_then(|inputs| model.in_order(inputs)) {
            Ok(inputs) => inputs,
            Err(error) => {
                answers[place] = Some(Err(error));
                continue;
            }
        };
        let rows = inputs.first().and_then(Tensor::rows).unwrap_or(0);
        let elements = inputs.iter().map(|input| input.data().len()).max().unwrap_or(0);
        let key = inputs.iter().flat_map(|input| input.shape().iter().skip(1).copied()).collect();
        let next = groups.len();
        let index = open.entry(key).or_insert(next);
        if *index < next && !(joins && groups[*index].has_room(rows, elements)) {
            *index = next;
        }
        if *index == next {
            groups.push(Group::default());
        }
        groups[*index].push(Member { place, rows, inputs }, elements);
    }
    (groups, answers)
}

impl Group {
    fn has_room(&self, rows: usize, elements: usize) -> bool {
        self.rows + rows <= ONNX_JOINED_ROWS_MAX && self.elements + elements <= JOINED_ELEMENTS_MAX
    }

    fn push(&mut self, member: Member, elements: usize) {
        self.rows += member.rows;
        self.elements += elements;
        self.members.push(member);
    }
}

fn run_group(model: &OnnxModel, mut group: Group, answers: &mut [Option<Outputs>]) {
    if group.members.len() > 1 {
        let places: Vec<_> = group.members.iter().map(|member| member.place).collect();
        // After an error perhaps the values of one request are to blame, for which the others must not pay.
        if let Ok(outputs) = run_together(model, &mut group.members) {
            places.into_iter().zip(outputs).for_each(|(place, outputs)| answers[place] = Some(Ok(outputs)));
            return;
        }
    }
    for Member { place, inputs, .. } in group.members {
        answers[place] = Some(model.run(&inputs));
    }
}

/// Runs a group once; after an error its members have their inputs as before.
fn run_together(model: &OnnxModel, members: &mut [Member]) -> Result<Vec<Vec<Tensor>>, ServeError> {
    let rows: Vec<usize> = members.iter().map(|member| member.rows).collect();
    let mut columns: Vec<Vec<Tensor>> = Vec::new();
    for member in members.iter_mut() {
        for (index, input) in std::mem::take(&mut member.inputs).into_iter().enumerate() {
            match columns.get_mut(index) {
                Some(column) => column.push(input),
                None => columns.push(vec![input]),
            }
        }
    }
    // Their shapes fit and they are few enough, so joining cannot fail.
    let joined = columns.into_iter().map(Tensor::concat).collect::<Result<Vec<_>, _>>()?;
    let outputs = model.run(&joined).and_then(|outputs| {
        outputs.into_iter().map(|output| output.split(&rows)).collect::<Result<Vec<_>, _>>()
    });
    match outputs {
        Ok(columns) => Ok(to_rows(columns, rows.len())),
        Err(error) => {
            let columns =
                joined.into_iter().map(|input| input.split(&rows)).collect::<Result<Vec<_>, _>>()?;
            for (member, inputs) in members.iter_mut().zip(to_rows(columns, rows.len())) {
                member.inputs = inputs;
            }
            Err(error)
        }
    }
}

/// From one list for each tensor to one list for each request.
fn to_rows(columns: Vec<Vec<Tensor>>, requests: usize) -> Vec<Vec<Tensor>> {
    let mut rows: Vec<Vec<Tensor>> = (0..requests).map(|_| Vec::with_capacity(columns.len())).collect();
    for column in columns {
        rows.iter_mut().zip(column).for_each(|(row, tensor)| row.push(tensor));
    }
    rows
}

#[cfg(test)]
#[path = "joined_tests.rs"]
mod tests;
