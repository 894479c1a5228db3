//! Shadow comparison: a shop, its next version beside it, and what is told of how their answers differ.

mod answers;
mod changes;
mod http;
mod limits;
mod noise;
#[cfg(feature = "onnx")]
mod tensors;
mod troubles;

use std::sync::Arc;

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Compare, ComparisonReport, Comparisons, Endpoint, ReplicaContext, Serve,
    ServeError, ShadowRule, testing::Stage,
};
use serde::{Deserialize, Serialize};

use crate::support::{Barrier, metric, until};

/// Asks for the prices of an article; answered on the spot.
#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<Quote, ServeError>")]
pub struct Price {
    article: u64,
}

/// Asks the same; answered when the shop's door lets it.
#[derive(Message, Clone)]
#[rtype(result = "Result<Quote, ServeError>")]
pub struct Order {
    article: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quote {
    article: u64,
    prices: Vec<f64>,
}

type Answer = Arc<dyn Fn(u64) -> Result<Quote, ServeError> + Send + Sync>;

/// Answers as the test says.
pub struct Shop {
    answer: Answer,
    door: Barrier,
}

impl Actor for Shop {
    type Context = ReplicaContext<Self>;
}

impl Handler<Price> for Shop {
    type Result = Result<Quote, ServeError>;
    fn handle(&mut self, Price { article }: Price, _: &mut Self::Context) -> Self::Result {
        (self.answer)(article)
    }
}

impl Handler<Order> for Shop {
    type Result = ResponseFuture<Result<Quote, ServeError>>;
    fn handle(&mut self, Order { article }: Order, _: &mut Self::Context) -> Self::Result {
        let (pass, answer) = (self.door.pass(), Arc::clone(&self.answer));
        Box::pin(async move {
            pass.await;
            answer(article)
        })
    }
}

/// What the shop says to everything: the article's number in cents, and twice that.
pub fn honest(article: u64) -> Result<Quote, ServeError> {
    let price = article as f64 / 100.0;
    Ok(Quote { article, prices: vec![price, 2.0 * price] })
}

/// The second price is a little off.
pub fn off_by(amount: f64) -> impl Fn(u64) -> Result<Quote, ServeError> + Clone + Send + Sync {
    move |article| {
        let mut quote = honest(article)?;
        quote.prices[1] += amount;
        Ok(quote)
    }
}

/// A shop that answers like this; orders pass the door.
pub fn shop(
    answer: impl Fn(u64) -> Result<Quote, ServeError> + Send + Sync + 'static,
    door: &Barrier,
) -> Backend<Shop> {
    let (answer, door): (Answer, _) = (Arc::new(answer), door.clone());
    Backend::new(move |_| Ok(Shop { answer: Arc::clone(&answer), door: door.clone() }))
        .json::<Price>()
        .handles::<Order>()
        .compares::<Price>()
        .compares::<Order>()
}

/// A door that nobody has to wait at.
pub fn open_door() -> Barrier {
    let door = Barrier::new();
    door.release(100_000);
    door
}

/// The endpoint `shop`, over the backend `now` with the route `/price`; `next` is there and gets nothing yet.
pub async fn market(serve: &Serve, now: Backend<Shop>, next: Backend<Shop>) {
    serve.create_backend("now", now, BackendConfig::default()).await.unwrap();
    serve.create_backend("next", next, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("shop", Endpoint::new("now").route("/price")).await.unwrap();
}

/// Every request is copied to `next` and compared.
pub async fn compare(serve: &Serve, compare: Compare) {
    let rule = ShadowRule::new("next", 1.0).unwrap().compare(compare).unwrap();
    serve.set_shadow("shop", rule).await.unwrap();
}

/// A market whose shadow answers like this, compared like that.
pub async fn beside(
    next: impl Fn(u64) -> Result<Quote, ServeError> + Send + Sync + 'static,
    how: Compare,
) -> Stage {
    let stage = Stage::new().await.unwrap();
    market(stage.serve(), shop(honest, &open_door()), shop(next, &open_door())).await;
    compare(stage.serve(), how).await;
    stage
}

/// Asks for the articles 0 to `n`.
pub async fn ask(serve: &Serve, n: u64) {
    let prices = serve.handle::<Price>("shop").unwrap();
    for article in 0..n {
        assert_eq!(prices.call(Price { article }).await, honest(article));
    }
}

/// What is told of the comparison at `shop`.
pub fn report(serve: &Serve) -> ComparisonReport {
    serve.status().endpoints[0].shadow[0].compare.clone().unwrap()
}

/// Comparisons that have ended, however they did.
pub fn ended(of: Comparisons) -> u64 {
    of.agreed + of.differed + of.failed + of.skipped + of.unpaired
}

/// The report once `n` comparisons against the shadow have ended.
pub async fn after(serve: &Serve, n: u64) -> ComparisonReport {
    until("comparisons end", || ended(report(serve).shadow) >= n).await;
    let report = report(serve);
    assert_eq!(ended(report.shadow), n, "{report}");
    report
}

/// The metric of one outcome.
pub fn counted(serve: &Serve, outcome: &str) -> u64 {
    let labels = format!("endpoint=\"shop\",backend=\"next\",outcome=\"{outcome}\"");
    metric(serve, "serve_shadow_comparisons_total", &labels)
}
