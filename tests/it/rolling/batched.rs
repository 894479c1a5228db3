//! A batched backend is replaced, and batching is switched on and off: no call fails.

use greenroom::{BackendUpdate, Batch};

use super::*;

impl Handler<Batch<Work>> for Counter {
    type Result = ResponseFuture<Result<Vec<Result<Seen, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Work>, _: &mut Self::Context) -> Self::Result {
        let seen = self.seen.clone();
        Box::pin(async move {
            tokio::time::sleep(WORK).await;
            Ok(batch.into_iter().map(|_| Ok(seen.clone())).collect())
        })
    }
}

#[actix_web::test]
async fn no_call_in_a_batch_fails_while_its_replicas_are_replaced() {
    tokio::time::pause();
    let batched = |version, n| config(version, n).max_batch_size(4).batch_wait_timeout(WORK);
    for n in [1, 2, 5] {
        let serve = with_cpus_for(n).await;
        open(&serve, counter("old").batched::<Work>(), batched("1", n)).await;
        let load = Load::of(&serve, 20);
        serve.deploy_backend("counter", counter("new").batched::<Work>(), batched("2", n)).await.unwrap();
        assert_all(&serve, "new", n).await;
        for size in [None, Some(2), None] {
            let update = BackendUpdate::default().max_batch_size(size);
            serve.update_backend_config("counter", update).await.unwrap();
            assert_all(&serve, "new", n).await;
        }
        let (calls, Watched { least, .. }) = load.end().await;
        assert!(calls > 100 && least >= n as usize, "{calls} calls, {least} replicas");
        serve.shutdown().await.unwrap();
    }
}
