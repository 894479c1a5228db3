//! A model as a backend: an ordinary actor that takes [`Infer`], one by one or many at once.

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use actix::{Actor, Handler};

use super::{
    external,
    infer::{Infer, Inferred},
    joined,
    model::OnnxModel,
};
use crate::{
    actors::context::ReplicaContext,
    backend::{Backend, Batch, fingerprint::Fingerprinted},
    error::ServeError,
    ids::BackendName,
    oip::OutputSelection,
    tensor::Tensor,
};

/// Row counts that a model is prepared for at most: one plan each.
const PREPARED_ROWS_MAX: usize = 32;

/// One replica of an ONNX model; made by [`Backend::onnx`].
#[derive(Debug)]
pub struct OnnxReplica {
    model: OnnxModel,
    name: BackendName,
}

/// The loaded model that all replicas share, and every rebuild of them.
struct Shared(Mutex<OnnxModel>);

impl Shared {
    fn load(path: &Path) -> Result<Self, ServeError> {
        OnnxModel::load(path, 1).map(|model| Self(Mutex::new(model)))
    }

    /// The model with plans for 1 to `rows` rows, which are made once, on `threads` threads of its own.
    fn prepared(&self, rows: usize, threads: usize) -> Result<OnnxModel, ServeError> {
        // The model is only replaced whole.
        let mut model = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *model = model.clone().prepared(1..=rows)?;
        model.with_threads(threads)
    }
}

impl Backend<OnnxReplica> {
    /// The ONNX model in the file at `path`: it takes [`Infer`] through handles and, over HTTP, the Open
    /// Inference Protocol, version 2, as JSON or with binary tensors.
    ///
    /// The file must be there when the backend is created or deployed: a fingerprint of its bytes, and of those of
    /// the files beside it that hold tensors of it, is taken then, which tells it from another model where no
    /// [`version`](field@crate::BackendConfig::version) is given.
    ///
    /// The file is loaded when the first replica starts, and once: all replicas share the weights. Each replica
    /// has a thread of its own unless the options say otherwise, and computes on as many threads as
    /// `num_threads` says.
    ///
    /// With `max_batch_size` set, which counts requests, requests whose shapes allow it are joined along the
    /// first axis and run together, up to [`ONNX_JOINED_ROWS_MAX`](crate::ONNX_JOINED_ROWS_MAX) rows a run; a
    /// request that is wrong fails alone. One with more rows of its own is run alone.
    ///
    /// ```
    /// # use greenroom::{Backend, BackendConfig, Endpoint, Infer, Serve, ServeError, ServeOptions, Tensor};
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// # let serve = Serve::start(ServeOptions::default()).await?;
    /// let digits = Backend::onnx(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx"));
    /// serve.create_backend("digits", digits, BackendConfig::default().max_batch_size(32)).await?;
    /// serve.create_endpoint("digits", Endpoint::new("digits").route("/digits").methods(["POST"])).await?;
    /// let pixels = Tensor::new("input", [1, 64], vec![0.0_f32; 64])?;
    /// let answer = serve.handle::<Infer>("digits")?.call(Infer::new([pixels])).await?;
    /// assert_eq!(answer.output("label").unwrap().shape(), [1]);
    /// # serve.shutdown().await
    /// # }
    /// ```
    pub fn onnx(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let file = path.clone();
        let known = Arc::new(OnceLock::new());
        let metadata = Arc::clone(&known);
        let mut backend = Self::with_shared(
            move || {
                let shared = Shared::load(&path)?;
                let model = shared.0.lock().unwrap_or_else(PoisonError::into_inner).metadata().clone();
                // Whoever loads it a second time, as nothing does, finds the same.
                let _ = metadata.set(model);
                Ok(shared)
            },
            |shared, ctx| {
                let rows = ctx.max_batch_size().min(PREPARED_ROWS_MAX);
                let model = shared.prepared(rows, ctx.num_threads())?;
                Ok(OnnxReplica { model, name: ctx.backend_name().clone() })
            },
        );
        backend.model = Some(known);
        backend.no_gpu = Some("an ONNX model is run on CPUs here and can use no GPU; ask for num_cpus");
        backend.fingerprint = Some(Fingerprinted::by(move || external::fingerprint(&file)));
        backend.infers().batched::<Infer>().retries_batches::<Infer>().compute()
    }
}

impl OnnxReplica {
    /// A request whose outputs, too, are the model's: what goes in, and what is kept for the answer.
    fn open(&self, infer: Infer) -> (joined::Inputs, (OutputSelection, Option<String>)) {
        let Infer { inputs, selection, id } = infer;
        let outputs = &self.model.metadata().outputs;
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        (selection.check(&names).map(|()| inputs), (selection, id))
    }

    fn close(
        &self,
        outputs: Vec<Tensor>,
        (selection, id): (OutputSelection, Option<String>),
    ) -> Result<Inferred, ServeError> {
        Ok(Inferred { model: self.name.clone(), outputs: selection.select(outputs)?, selection, id })
    }
}

impl Actor for OnnxReplica {
    type Context = ReplicaContext<Self>;
}

impl Handler<Infer> for OnnxReplica {
    type Result = Result<Inferred, ServeError>;

    fn handle(&mut self, infer: Infer, _: &mut Self::Context) -> Self::Result {
        let (inputs, kept) = self.open(infer);
        self.close(self.model.run(&inputs?)?, kept)
    }
}

impl Handler<Batch<Infer>> for OnnxReplica {
    type Result = Result<Vec<Result<Inferred, ServeError>>, ServeError>;

    fn handle(&mut self, batch: Batch<Infer>, _: &mut Self::Context) -> Self::Result {
        let (inputs, kept): (Vec<_>, Vec<_>) = batch.into_iter().map(|infer| self.open(infer)).unzip();
        let outputs = joined::run(&self.model, inputs).into_iter().zip(kept);
        Ok(outputs.map(|(outputs, kept)| self.close(outputs?, kept)).collect())
    }
}
