//! A graph ready to run, and the threads that it may use.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use tract_linalg::multithread::Executor;
use tract_onnx::prelude::{RunOptions, TValue, TVec, TractResult, TypedModel, TypedSimplePlan};
use tract_onnx::tract_core::model::TypedSimpleState;

use crate::error::ServeError;

/// Most threads that a model may be given.
pub const ONNX_THREADS_MAX: usize = 1024;

/// Run states kept for the next run; more runs at once make their own.
const IDLE_MAX: usize = 16;

/// The operator that tract spreads over whatever rayon pool it finds itself in, not over its executor.
const STRAY_OPERATOR: &str = "FlashSDPA";

/// Threads for runs: the caller's own, or a pool of exactly as many as were asked for.
///
/// tract takes its executor from the plan and puts it into a thread-local for the length of a run, so two
/// plans never mix theirs, whatever thread they run on.
pub(super) fn executor(threads: usize) -> Result<Executor, ServeError> {
    match threads {
        1 => Ok(Executor::SingleThread),
        2..=ONNX_THREADS_MAX => pool(threads),
        _ => Err(ServeError::invalid(
            "threads of an ONNX model",
            format!("{threads} was given; 1 to {ONNX_THREADS_MAX} are allowed"),
        )),
    }
}

fn pool(threads: usize) -> Result<Executor, ServeError> {
    // It panics where the system has no thread left to give.
    catch_unwind(|| Executor::multithread_with_name(threads, "greenroom-onnx"))
        .map_err(|_| ServeError::Internal(format!("no pool of {threads} threads could be started").into()))
}

/// An optimised graph with its executor.
#[derive(Debug)]
pub(super) struct Plan {
    plan: Arc<TypedSimplePlan>,
    idle: Mutex<Vec<TypedSimpleState>>,
    stateless: bool,
    /// Set where a run has to happen inside the pool from beginning to end.
    inside: Option<Executor>,
}

impl Plan {
    /// Plans `graph`, already optimised, for runs on `executor`.
    pub(super) fn new(graph: Arc<TypedModel>, executor: &Executor) -> Result<Self, ServeError> {
        let stray = graph.nodes().iter().any(|node| node.op().name() == STRAY_OPERATOR);
        let inside = match executor {
            _ if !stray => None,
            Executor::SingleThread => Some(pool(1)?),
            pool => Some(pool.clone()),
        };
        let options = RunOptions { executor: Some(executor.clone()), ..Default::default() };
        let failed = |error| ServeError::Internal(format!("the model cannot be planned: {error:#}").into());
        let plan = TypedSimplePlan::new_with_options(graph, &options).map_err(failed)?;
        let first = plan.spawn().map_err(failed)?;
        // Recurrent operators keep their state from run to run, and each request is on its own.
        let stateless = first.op_states.iter().all(Option::is_none);
        let idle = Mutex::new(if stateless { vec![first] } else { Vec::new() });
        Ok(Self { plan, idle, stateless, inside })
    }

    /// Runs it once.
    pub(super) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = match idle {
            Some(state) => state,
            None => self.plan.spawn()?,
        };
        let outputs = match &self.inside {
            Some(Executor::MultiThread(pool)) => pool.install(AssertUnwindSafe(|| state.run(inputs)))?,
            _ => state.run(inputs)?,
        };
        // Only a state whose run went well is clean enough for the next.
        if self.stateless {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(state);
            }
        }
        Ok(outputs)
    }
}
