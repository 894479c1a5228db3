//! A real model as an actor inside an actix-web app that has routes and an error type of its own.
//!
//! `cargo run --release --example digits`, then
//! `curl --json @models/digits/three.json http://127.0.0.1:8080/digits` and
//! `curl 'http://127.0.0.1:8080/guess/0,0,6,14,16,16,2,...'` with 64 pixels.

use std::fmt;

use actix::{Actor, Handler, Message};
use actix_web::{App, HttpResponse, HttpServer, ResponseError, web};
use greenroom::{
    Backend, BackendConfig, Batch, Capacity, Endpoint, Handle, OnnxModel, ReplicaContext, Serve, ServeError,
    ServeOptions, Tensor, TensorData,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx");

/// Which digit is on this image of 8x8 pixels, 0 to 16?
#[derive(Message)]
#[rtype(result = "Result<i64, ServeError>")]
pub struct Classify {
    pixels: Vec<f32>,
}

/// One replica: an ordinary actor with the model in it.
struct Digits {
    net: OnnxModel,
}

impl Actor for Digits {
    type Context = ReplicaContext<Self>;
}

impl Digits {
    fn run(&self, images: &[&[f32]]) -> Result<Vec<i64>, ServeError> {
        let pixels = Tensor::new("input", [images.len(), 64], images.concat())?;
        match self.net.run(&[pixels])?.swap_remove(0).into_data() {
            TensorData::Int64(labels) => Ok(labels),
            other => Err(ServeError::backend(500, "no_labels", format!("labels are {}", other.datatype()))),
        }
    }
}

impl Handler<Classify> for Digits {
    type Result = Result<i64, ServeError>;
    fn handle(&mut self, Classify { pixels }: Classify, _: &mut Self::Context) -> Self::Result {
        Ok(self.run(&[&pixels])?[0])
    }
}

/// Many at once: one run of the model for all of them.
impl Handler<Batch<Classify>> for Digits {
    type Result = Result<Vec<Result<i64, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Classify>, _: &mut Self::Context) -> Self::Result {
        let images: Vec<_> = batch.items().iter().map(|item| &item.pixels[..]).collect();
        Ok(self.run(&images)?.into_iter().map(Ok).collect())
    }
}

/// What this app's own callers are told.
#[derive(Debug)]
pub enum AppError {
    NotAnImage(String),
    Model(ServeError),
}

impl From<ServeError> for AppError {
    fn from(error: ServeError) -> Self {
        Self::Model(error)
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage(why) => write!(f, "this is no image: {why}"),
            Self::Model(error) => error.fmt(f),
        }
    }
}

impl ResponseError for AppError {
    fn error_response(&self) -> HttpResponse {
        match self {
            Self::NotAnImage(_) => HttpResponse::UnprocessableEntity().body(self.to_string()),
            Self::Model(error) => error.error_response(),
        }
    }
}

/// The app's own route; the model behind it is a typed call away.
async fn guess(path: web::Path<String>, digits: web::Data<Handle<Classify>>) -> Result<String, AppError> {
    let pixels: Result<Vec<f32>, _> = path.split(',').map(|pixel| pixel.trim().parse()).collect();
    let pixels = pixels.map_err(|error| AppError::NotAnImage(error.to_string()))?;
    if pixels.len() != 64 {
        return Err(AppError::NotAnImage(format!("64 pixels are needed, {} were given", pixels.len())));
    }
    let digit = digits.call(Classify { pixels }).await?;
    Ok(format!("this is a {digit}\n"))
}

/// Makes the backends and endpoints: the actor above, and the same model as a ready-made backend.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let load = || Ok(OnnxModel::load(MODEL, 1)?.prepared([1, 32])?);
    let classifier =
        Backend::with_shared(load, |net, ctx| Ok(Digits { net: net.with_threads(ctx.num_threads())? }));
    let batched = BackendConfig::default().max_batch_size(32);
    let classifier = classifier.handles::<Classify>().batched::<Classify>().compute();
    serve.create_backend("classifier", classifier, batched.clone()).await?;
    serve.create_endpoint("classifier", Endpoint::new("classifier")).await?;
    serve.create_backend("digits", Backend::onnx(MODEL), batched).await?;
    serve.create_endpoint("digits", Endpoint::new("digits").route("/digits").methods(["POST"])).await
}

/// The app's routes, and beside them those of the Serve.
pub fn routes(config: &mut web::ServiceConfig, serve: &Serve, digits: Handle<Classify>) {
    config
        .app_data(web::Data::new(digits))
        .route("/guess/{pixels}", web::get().to(guess))
        .configure(serve.ingress());
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
    deploy(&serve).await?;
    let digits = serve.handle("classifier")?;
    let host = serve.clone();
    let app = move || App::new().configure(|config| routes(config, &host, digits.clone()));
    println!("http://127.0.0.1:8080/digits");
    // A caller that has left is noticed, and its handler dropped.
    HttpServer::new(app).h1_allow_half_closed(false).bind(("127.0.0.1", 8080))?.run().await?;
    serve.shutdown().await?;
    Ok(())
}
