//! `BlockingHandle`: for plain threads, which may wait.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use crate::{call::Request, error::ServeError, handle::Handle};

/// A handle whose calls block the calling thread until the answer is there; made by [`Handle::blocking`].
///
/// On a thread that runs an async runtime it refuses: the replica may live on that very thread, and then the
/// answer could never come.
///
/// ```
/// # use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};
/// # #[derive(actix::Message)]
/// # #[rtype(result = "Result<u64, ServeError>")]
/// # struct Double(u64);
/// # #[actix_web::main]
/// # async fn main() -> Result<(), ServeError> {
/// # let serve = Serve::start(ServeOptions::default()).await?;
/// # serve.create_backend("double", Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) }), BackendConfig::default()).await?;
/// # serve.create_endpoint("double", Endpoint::new("double")).await?;
/// let handle = serve.handle::<Double>("double")?.blocking();
/// let here = handle.call(Double(21));
/// assert!(matches!(here, Err(ServeError::WouldDeadlock { .. })), "this thread runs a runtime");
/// let there = std::thread::spawn(move || handle.call(Double(21)));
/// # let there = actix_web::rt::task::spawn_blocking(move || there.join().unwrap()).await.unwrap();
/// assert_eq!(there?, 42);
/// # serve.shutdown().await
/// # }
/// ```
#[derive(Debug)]
pub struct BlockingHandle<M>(Handle<M>);

impl<M> Clone for BlockingHandle<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Request> BlockingHandle<M> {
    pub(crate) fn new(handle: Handle<M>) -> Self {
        Self(handle)
    }

    /// Sends `msg` and waits for the answer.
    ///
    /// # Errors
    /// [`ServeError::WouldDeadlock`] on a thread of an async runtime; otherwise those of [`Handle::call`].
    pub fn call(&self, msg: M) -> Result<M::Response, ServeError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(ServeError::WouldDeadlock {
                why: "it runs an async runtime, which the answer may need; use `Handle::call(..).await` here"
                    .into(),
            });
        }
        block_on(self.0.call(msg))
    }

    /// The handle to await on.
    pub fn handle(&self) -> &Handle<M> {
        &self.0
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return out;
        }
        thread::park();
    }
}
