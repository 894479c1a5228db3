//! A new version of a backend on live traffic: every answer compared with the one that its caller got, nobody
//! waiting for it, and the old version with itself to see how much of the difference is noise.
//!
//! `cargo run --example shadow_compare`

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Capacity, Compare, ComparisonReport, Endpoint, ReplicaContext, Serve, ServeError,
    ServeOptions, ShadowRule,
};
use serde::Serialize;

/// What does this house cost?
#[derive(Message, Clone)]
#[rtype(result = "Result<Estimate, ServeError>")]
pub struct House {
    pub square_metres: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub price: f64,
    pub range: [f64; 2],
}

/// Estimates, a little differently each time, as models do that sum in any order.
struct Old(AtomicU64);

/// Sums in another order, which is meant, and has lost the upper end of small houses, which is not.
struct New;

fn estimate(square_metres: u32, error: f64) -> Estimate {
    let price = 4000.0 * f64::from(square_metres) * (1.0 + error);
    Estimate { price, range: [0.9 * price, 1.1 * price] }
}

impl Actor for Old {
    type Context = ReplicaContext<Self>;
}
impl Handler<House> for Old {
    type Result = Result<Estimate, ServeError>;
    fn handle(&mut self, House { square_metres }: House, _: &mut Self::Context) -> Self::Result {
        let turn = self.0.fetch_add(1, Ordering::Relaxed) % 2;
        Ok(estimate(square_metres, turn as f64 * 1e-9))
    }
}

impl Actor for New {
    type Context = ReplicaContext<Self>;
}
impl Handler<House> for New {
    type Result = Result<Estimate, ServeError>;
    fn handle(&mut self, House { square_metres }: House, _: &mut Self::Context) -> Self::Result {
        let mut estimate = estimate(square_metres, 2e-9);
        if square_metres < 50 {
            estimate.range[1] = 0.0;
        }
        Ok(estimate)
    }
}

/// The old version behind `estimate`, the new one not yet.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let old = Backend::new(|_| Ok(Old(AtomicU64::new(0)))).handles::<House>();
    serve.create_backend("old", old, BackendConfig::default()).await?;
    // It can be given copies, and its answers compared.
    let new = Backend::new(|_| Ok(New)).handles::<House>().compares::<House>();
    serve.create_backend("new", new, BackendConfig::default()).await?;
    serve.create_endpoint("estimate", Endpoint::new("old")).await
}

/// Compares both on 200 houses, every fourth of them small.
pub async fn try_out(serve: &Serve, compare: Compare) -> Result<ComparisonReport, ServeError> {
    let rule = ShadowRule::new("new", 1.0)?.compare(compare.noise_floor(0.5))?;
    serve.set_shadow("estimate", rule).await?;
    let handle = serve.handle::<House>("estimate")?;
    for n in 0..200 {
        handle.call(House { square_metres: if n % 4 == 0 { 30 } else { 80 + n } }).await?;
    }
    loop {
        let report = serve.list_endpoints()[0].shadow[0].compare.clone();
        if let Some(report) = report.filter(|r| r.shadow.agreed + r.shadow.differed == 200) {
            return Ok(report);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
    deploy(&serve).await?;
    println!("To the last digit not even the old version agrees with itself:\n");
    println!("{}", try_out(&serve, Compare::exact().sample(1)).await?);
    println!("To a millionth it does, and what is left is a fault of the new one:\n");
    println!("{}", try_out(&serve, Compare::within(0.0, 1e-6).sample(2)).await?);
    serve.shutdown().await
}
