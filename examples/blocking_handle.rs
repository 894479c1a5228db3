//! Calls from plain threads, which have no async runtime and may wait.
//!
//! `cargo run --example blocking_handle`

use std::thread;

use actix::Message;
use greenroom::{Backend, BackendConfig, BlockingHandle, Endpoint, Serve, ServeError, ServeOptions};

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Square(pub u64);

/// Makes the backend and a handle for threads.
pub async fn deploy(serve: &Serve) -> Result<BlockingHandle<Square>, ServeError> {
    let square = Backend::from_fn(|Square(n)| async move {
        n.checked_mul(n).ok_or_else(|| ServeError::backend(422, "too_large", format!("{n} squared")))
    });
    serve.create_backend("square", square, BackendConfig::default()).await?;
    serve.create_endpoint("square", Endpoint::new("square")).await?;
    Ok(serve.handle::<Square>("square")?.blocking())
}

/// The sum of the squares of `1..=n`, asked for by that many threads at once.
pub fn sum_of_squares(square: &BlockingHandle<Square>, n: u64) -> Result<u64, ServeError> {
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=n).map(|n| scope.spawn(move || square.call(Square(n)))).collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(ServeError::Internal("a thread panicked".into())))
        });
        joined.sum()
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Only to start and to end; in between no runtime is entered on this thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = runtime.block_on(Serve::start(ServeOptions::default()))?;
    let square = runtime.block_on(deploy(&serve))?;
    println!("1 + 4 + ... + 100 = {}", sum_of_squares(&square, 10)?);
    if let Err(refused) = runtime.block_on(async { square.call(Square(2)) }) {
        println!("inside a runtime: {refused}");
    }
    runtime.block_on(serve.shutdown())?;
    Ok(())
}
