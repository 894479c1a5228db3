//! A file into a graph: every way in which it can fail is told with the path.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use tract_onnx::prelude::{Framework, InferenceModelExt, TypedModel};
use tract_onnx::tract_hir::{
    infer::{Factoid, InferenceModel},
    internal::ToDim,
};

use super::port::Port;
use crate::error::ServeError;

/// Characters of tract's own explanation that are shown; it may quote whole tensors.
const DETAIL_CHARS_MAX: usize = 500;

/// Symbol for the first axis where the file leaves it open.
const ROWS: &str = "rows";

/// What is read from a file.
pub(super) struct Loaded {
    /// Not yet optimised, its symbols still open.
    pub typed: TypedModel,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// Refuses a model: `why` is a whole clause.
pub(super) fn refuse(path: &Path, why: impl fmt::Display) -> ServeError {
    ServeError::invalid(format!("ONNX model {}", path.display()), why.to_string())
}

/// A file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> ServeError {
    refuse(path, format!("it cannot be read: {error}"))
}

/// tract's explanation, shortened.
pub(super) fn detail(error: impl fmt::Display) -> String {
    format!("{error:#}").chars().take(DETAIL_CHARS_MAX).collect()
}

/// Does what may panic on a graph that nobody has tried before.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, ServeError>) -> Result<T, ServeError> {
    let failed = |_| refuse(path, "tract panicked over it; the graph is malformed or not supported");
    catch_unwind(AssertUnwindSafe(work)).map_err(failed)?
}

/// Reads the file and infers types and shapes.
pub(super) fn load(path: &Path) -> Result<Loaded, ServeError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    guarded(path, || parse(path, &bytes))
}

fn parse(path: &Path, mut bytes: &[u8]) -> Result<Loaded, ServeError> {
    let onnx = tract_onnx::onnx();
    let proto = onnx
        .proto_model_for_read(&mut bytes)
        .map_err(|error| refuse(path, format!("it is not an ONNX file: {}", detail(error))))?;
    let Some(graph) = &proto.graph else {
        return Err(refuse(path, "it is not an ONNX file: there is no graph in it"));
    };
    let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    if names.is_empty() {
        return Err(refuse(path, "its graph has no output"));
    }
    let folder = path.parent().and_then(Path::to_str);
    let parsed = onnx
        .parse(&proto, folder)
        .map_err(|error| refuse(path, format!("its graph is not understood: {}", detail(error))))?;
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(refuse(path, format!("its graph uses `{name}`, which nothing makes")));
    }
    let mut model = parsed.model;
    check_operators(path, &model)?;
    name_open_axes(path, &mut model)?;
    let inputs: Vec<String> =
        model.inputs.iter().map(|outlet| model.node(outlet.node).name.clone()).collect();
    let typed = model
        .into_typed()
        .and_then(TypedModel::into_decluttered)
        .map_err(|error| refuse(path, format!("its shapes do not work out: {}", detail(error))))?;
    let port = |name: &str, fact: Result<&_, _>| {
        let fact = fact.map_err(|error| refuse(path, detail(error)))?;
        Port::new(name, fact).map_err(|why| refuse(path, why))
    };
    let inputs = inputs.iter().enumerate().map(|(ix, name)| port(name, typed.input_fact(ix)));
    let inputs = inputs.collect::<Result<_, _>>()?;
    let outputs = names.iter().enumerate().map(|(ix, name)| port(name, typed.output_fact(ix)));
    let outputs = outputs.collect::<Result<_, _>>()?;
    Ok(Loaded { typed, inputs, outputs })
}

/// tract keeps a placeholder for what it does not know; all of them are told at once.
fn check_operators(path: &Path, model: &InferenceModel) -> Result<(), ServeError> {
    let placeholder = |name: &str| {
        let inner = name.strip_prefix("Unimplemented(")?.strip_suffix(')')?;
        Some(inner.to_owned())
    };
    let mut unknown: Vec<String> =
        model.nodes().iter().filter_map(|node| placeholder(&node.op.name())).collect();
    unknown.sort();
    unknown.dedup();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(refuse(path, format!("it uses operators that are not supported: {}", unknown.join(", "))))
}

/// An axis without a length or a name becomes a symbol, so that any length may come; first axes that are
/// open all become the same one.
fn name_open_axes(path: &Path, model: &mut InferenceModel) -> Result<(), ServeError> {
    let scope = model.symbols.clone();
    for (index, outlet) in model.inputs.clone().into_iter().enumerate() {
        let name = model.node(outlet.node).name.clone();
        let failed = |error| refuse(path, detail(error));
        let fact = model.input_fact_mut(index).map_err(failed)?;
        if fact.shape.is_open() {
            return Err(refuse(
                path,
                format!("input `{name}` has no shape; the number of its axes is needed"),
            ));
        }
        let lengths: Vec<_> = fact.shape.dims().cloned().collect();
        for (axis, length) in lengths.iter().enumerate() {
            if !length.is_concrete() {
                let symbol = if axis == 0 { scope.sym(ROWS) } else { scope.sym(&format!("{name}_{axis}")) };
                fact.shape.set_dim(axis, symbol.to_dim());
            }
        }
    }
    Ok(())
}
