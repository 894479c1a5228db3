//! How a backend is tested: no port, no server, fakes for what it calls, time that stands still.
//!
//! The backend converts money with the rate of another endpoint, and falls back on the last rate it saw. Its
//! tests are at the end of this file; `cargo run --example testing_a_backend` shows the same by hand.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{Backend, Handle, ReplicaContext, ServeError, testing::Stage};
use serde::{Deserialize, Serialize};

/// Longest time that the rate is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// What one euro costs in a currency.
#[derive(Message, Clone)]
#[rtype(result = "Result<f64, ServeError>")]
struct Rate(String);

#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<Converted, ServeError>")]
struct Convert {
    euros: f64,
    to: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Converted {
    amount: f64,
    /// Whether the rate is an old one.
    stale: bool,
}

struct Exchange {
    rates: Handle<Rate>,
    last: Rc<Cell<Option<f64>>>,
}

impl Actor for Exchange {
    type Context = ReplicaContext<Self>;
}

impl Handler<Convert> for Exchange {
    type Result = ResponseFuture<Result<Converted, ServeError>>;

    fn handle(&mut self, Convert { euros, to }: Convert, _: &mut Self::Context) -> Self::Result {
        let (rate, last) = (self.rates.call(Rate(to)), Rc::clone(&self.last));
        Box::pin(async move {
            match (rate.await, last.get()) {
                (Ok(rate), _) => {
                    last.set(Some(rate));
                    Ok(Converted { amount: euros * rate, stale: false })
                }
                (Err(_), Some(rate)) => Ok(Converted { amount: euros * rate, stale: true }),
                (Err(error), None) => Err(error),
            }
        })
    }
}

fn exchange() -> Backend<Exchange> {
    Backend::new(|ctx| {
        let rates = ctx.handle("rates")?.timeout(PATIENCE);
        Ok(Exchange { rates, last: Rc::default() })
    })
    .json::<Convert>()
}

/// A service of rates that knows `SEK` at once, does not know `QQQ`, and needs a minute for the others.
async fn rates(Rate(currency): Rate) -> Result<f64, ServeError> {
    match currency.as_str() {
        "SEK" => Ok(11.0),
        "QQQ" => Err(ServeError::backend(404, "no_such_currency", currency)),
        _ => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(2.0)
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    stage.fake("rates", rates).await?;
    let exchange = stage.replica("exchange", exchange()).await?;
    for to in ["DKK", "SEK", "DKK"] {
        println!("10 euros in {to}: {:?}", exchange.call(Convert { euros: 10.0, to: to.into() }).await);
    }
    stage.end().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten(to: &str) -> Convert {
        Convert { euros: 10.0, to: to.into() }
    }

    #[actix_web::test]
    async fn a_rate_that_is_known_at_once_is_fresh() -> Result<(), ServeError> {
        let stage = Stage::new().await?;
        stage.fake("rates", rates).await?;
        let exchange = stage.replica("exchange", exchange()).await?;
        assert_eq!(exchange.call(ten("SEK")).await?, Converted { amount: 110.0, stale: false });
        stage.end().await
    }

    #[actix_web::test]
    async fn without_an_older_rate_the_error_is_told() -> Result<(), ServeError> {
        let stage = Stage::new().await?;
        stage.fake("rates", rates).await?;
        let exchange = stage.replica("exchange", exchange()).await?;
        let error = exchange.call(ten("QQQ")).await.unwrap_err();
        assert_eq!(error.code(), "no_such_currency");
        stage.end().await
    }

    #[actix_web::test]
    async fn a_late_rate_is_given_up_after_its_patience_and_the_last_one_used() -> Result<(), ServeError> {
        // Nobody waits a minute here: paused time jumps to whatever comes next.
        tokio::time::pause();
        let stage = Stage::new().await?;
        stage.fake("rates", rates).await?;
        let exchange = stage.replica("exchange", exchange()).await?;
        exchange.call(ten("SEK")).await?;
        let begun = tokio::time::Instant::now();
        assert_eq!(exchange.call(ten("DKK")).await?, Converted { amount: 110.0, stale: true });
        assert!((PATIENCE..2 * PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        stage.end().await
    }
}
