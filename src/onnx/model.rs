//! A loaded model: what it takes, and runs of it.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use tract_linalg::multithread::Executor;
use tract_onnx::prelude::{Symbol, TVec, ToDim, TypedModel};

use super::{
    convert,
    load::{detail, guarded, load, refuse},
    plan::{Plan, executor},
    port::{Axis, Port, match_inputs},
};
use crate::{error::ServeError, oip::ModelMetadata, tensor::Tensor};

/// What runs the models, as metadata tells it.
const PLATFORM: &str = "tract_onnx";

/// Memory that the weights of prepared row counts may take together; each has its own copy of them.
const PREPARED_BYTES_MAX: usize = 64 << 20;

/// What the first axis of a model's inputs and outputs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchAxis {
    /// Rows, any number of them, the same in every input and output: requests can be joined.
    Rows,
    /// Exactly so many in every input and output: requests cannot be joined.
    Fixed(usize),
    /// Something else, or not the same everywhere: requests cannot be joined.
    None,
}

/// An ONNX model, ready to run; clones share it, its weights and its threads.
///
/// ```
/// use greenroom::{OnnxModel, Tensor};
/// let model = OnnxModel::load(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx"), 1)?;
/// assert_eq!(model.metadata().inputs[0].shape, [-1, 64]);
/// let pixels = Tensor::new("input", [2, 64], vec![0.0_f32; 2 * 64])?;
/// assert_eq!(model.run(&[pixels])?[0].shape(), [2]);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone)]
pub struct OnnxModel {
    source: Arc<Source>,
    plans: Arc<Plans>,
}

/// What is read once and never changes.
struct Source {
    path: Box<Path>,
    typed: TypedModel,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    metadata: ModelMetadata,
    /// The symbol for the rows, where requests can be joined.
    rows: Option<Symbol>,
}

/// The graphs, and their plans on one executor.
struct Plans {
    executor: Executor,
    any: (Arc<TypedModel>, Plan),
    prepared: HashMap<usize, (Arc<TypedModel>, Plan)>,
}

impl OnnxModel {
    /// Reads, checks and optimises the model in the file at `path`, to run on `threads` threads: 1 is the
    /// caller's own, more are a pool of exactly as many that all clones share.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] with the path when the file cannot be read, is no ONNX file, uses operators
    /// or element types that are not supported, or does not fit together; and when `threads` is 0 or more
    /// than [`ONNX_THREADS_MAX`](crate::ONNX_THREADS_MAX).
    pub fn load(path: impl AsRef<Path>, threads: usize) -> Result<Self, ServeError> {
        let path = path.as_ref();
        let executor = executor(threads)?;
        let loaded = load(path)?;
        let rows = match batch_axis(&loaded.inputs, &loaded.outputs) {
            (BatchAxis::Rows, symbol) => symbol,
            _ => None,
        };
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        let metadata = ModelMetadata {
            name: stem.to_string_lossy().into_owned(),
            versions: Vec::new(),
            platform: PLATFORM.into(),
            inputs: loaded.inputs.iter().map(Port::metadata).collect(),
            outputs: loaded.outputs.iter().map(Port::metadata).collect(),
        };
        let any = optimise(path, loaded.typed.clone())?;
        let plans =
            Plans { any: (any.clone(), Plan::new(any, &executor)?), prepared: HashMap::new(), executor };
        let source = Source {
            path: path.into(),
            typed: loaded.typed,
            inputs: loaded.inputs,
            outputs: loaded.outputs,
            metadata,
            rows,
        };
        Ok(Self { source: Arc::new(source), plans: Arc::new(plans) })
    }

    /// The same model with plans of their own for these numbers of rows, up to twice as fast as the one for
    /// any number; slow to make, so call it before serving. Does nothing where requests cannot be joined, and
    /// stops in silence when the copies of the weights would take more than 64 MiB.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] when the model does not work with so many rows.
    pub fn prepared(self, rows: impl IntoIterator<Item = usize>) -> Result<Self, ServeError> {
        let (source, plans) = (&self.source, &self.plans);
        let Some(symbol) = &source.rows else { return Ok(self) };
        let room = PREPARED_BYTES_MAX.checked_div(weight_bytes(&source.typed)).unwrap_or(usize::MAX);
        let mut graphs: HashMap<usize, Arc<TypedModel>> =
            plans.prepared.iter().map(|(rows, (graph, _))| (*rows, graph.clone())).collect();
        for rows in rows {
            if rows == 0 || graphs.contains_key(&rows) {
                continue;
            }
            if graphs.len() >= room {
                break;
            }
            let length = HashMap::from([(symbol.clone(), rows.to_dim())]);
            let failed =
                |error| refuse(&source.path, format!("it has no form for {rows} rows: {}", detail(error)));
            let fixed = guarded(&source.path, || source.typed.set_symbols(&length).map_err(failed))?;
            graphs.insert(rows, optimise(&source.path, fixed)?);
        }
        let plans = plans_of(&plans.any.0, graphs, plans.executor.clone())?;
        Ok(Self { source: self.source, plans: Arc::new(plans) })
    }

    /// The same model, sharing its weights, with threads of its own: how each replica gets exactly as many
    /// as it may use.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] when `threads` is 0 or more than [`ONNX_THREADS_MAX`](crate::ONNX_THREADS_MAX).
    pub fn with_threads(&self, threads: usize) -> Result<Self, ServeError> {
        let graphs = self.plans.prepared.iter().map(|(rows, (graph, _))| (*rows, graph.clone()));
        let plans = plans_of(&self.plans.any.0, graphs.collect(), executor(threads)?)?;
        Ok(Self { source: self.source.clone(), plans: Arc::new(plans) })
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        match &self.plans.executor {
            Executor::MultiThread(pool) => pool.current_num_threads(),
            _ => 1,
        }
    }

    /// Its name (that of the file), inputs and outputs.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.source.metadata
    }

    /// Whether requests can be joined along the first axis. That rows do not influence each other is the
    /// model's promise; nothing checks it.
    pub fn batch_axis(&self) -> BatchAxis {
        batch_axis(&self.source.inputs, &self.source.outputs).0
    }

    /// `inputs` in the model's order, once they are known to fit.
    pub(super) fn in_order(&self, mut inputs: Vec<Tensor>) -> Result<Vec<Tensor>, ServeError> {
        let ports = &self.source.inputs;
        match_inputs(ports, &inputs)?;
        inputs.sort_by_key(|input| ports.iter().position(|port| *port.name == *input.name()));
        Ok(inputs)
    }

    /// Runs it once on `inputs`, in any order; answers every output, in the model's order.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] for an input that is unknown, missing, given twice, or of another datatype
    /// or shape than the model takes; a backend's error (`onnx_failed`) when the run itself fails.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ServeError> {
        let inputs = match_inputs(&self.source.inputs, inputs)?;
        let rows = self.source.rows.as_ref().and_then(|_| inputs.first()?.rows());
        let prepared = rows.and_then(|rows| self.plans.prepared.get(&rows));
        let (_, plan) = prepared.unwrap_or(&self.plans.any);
        let given: TVec<_> = inputs
            .iter()
            .map(|input| convert::to_tract(input.shape(), input.data()))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(detail(error)))?;
        // Some values make an operator panic, an integer divided by zero for one; the state of the run, the only
        // thing that could be left half done, is dropped with it.
        let values = catch_unwind(AssertUnwindSafe(|| plan.run(given)))
            .map_err(|_| failed("tract panicked over these values"))?
            .map_err(|error| failed(detail(error)))?;
        let output = |(port, value): (&Port, &tract_onnx::prelude::TValue)| {
            let data = convert::from_tract(value).map_err(|error| failed(detail(error)))?;
            Tensor::new(port.name.clone(), value.shape(), data).map_err(failed)
        };
        self.source.outputs.iter().zip(&values).map(output).collect()
    }
}

impl fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, threads) = (&self.source.path, self.threads());
        f.debug_struct("OnnxModel").field("path", path).field("threads", &threads).finish_non_exhaustive()
    }
}

fn failed(why: impl fmt::Display) -> ServeError {
    ServeError::backend(500, "onnx_failed", format!("the model could not be run: {why}"))
}

fn optimise(path: &Path, typed: TypedModel) -> Result<Arc<TypedModel>, ServeError> {
    let failed = |error| refuse(path, format!("it cannot be made ready to run: {}", detail(error)));
    guarded(path, || typed.into_optimized().map(Arc::new).map_err(failed))
}

fn plans_of(
    any: &Arc<TypedModel>,
    prepared: HashMap<usize, Arc<TypedModel>>,
    executor: Executor,
) -> Result<Plans, ServeError> {
    let plan = |graph: Arc<TypedModel>| Ok::<_, ServeError>((graph.clone(), Plan::new(graph, &executor)?));
    let any = plan(any.clone())?;
    let prepared = prepared.into_iter().map(|(rows, graph)| Ok((rows, plan(graph)?)));
    let prepared = prepared.collect::<Result<_, ServeError>>()?;
    Ok(Plans { any, prepared, executor })
}

/// Bytes of every constant in the graph.
fn weight_bytes(graph: &TypedModel) -> usize {
    let facts = graph.nodes().iter().flat_map(|node| &node.outputs).filter_map(|o| o.fact.konst.as_ref());
    facts.map(|konst| konst.len() * konst.datum_type().size_of()).sum()
}

fn batch_axis(inputs: &[Port], outputs: &[Port]) -> (BatchAxis, Option<Symbol>) {
    let mut first_axes = inputs.iter().chain(outputs).map(|port| port.axes.first());
    match first_axes.next().flatten() {
        Some(Axis::Symbol(rows)) => {
            let same = first_axes.all(|axis| matches!(axis, Some(Axis::Symbol(other)) if other == rows));
            if same { (BatchAxis::Rows, Some(rows.clone())) } else { (BatchAxis::None, None) }
        }
        Some(Axis::Fixed(rows)) => {
            let same = first_axes.all(|axis| matches!(axis, Some(Axis::Fixed(other)) if other == rows));
            (if same { BatchAxis::Fixed(*rows) } else { BatchAxis::None }, None)
        }
        _ => (BatchAxis::None, None),
    }
}
