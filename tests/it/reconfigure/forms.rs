//! Every form of a handler that takes a configuration: at once, by a future of its own, by one that holds the actor.

use actix::{AtomicResponse, ResponseFuture, fut::ActorFutureExt};
use greenroom::Batch;

use super::*;

/// Takes its configuration in one of three forms.
#[derive(Default)]
pub struct Plain(String);

impl Actor for Plain {
    type Context = ReplicaContext<Self>;
}

impl Handler<Reconfigure<String>> for Plain {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Reconfigure(text): Reconfigure<String>, _: &mut Self::Context) -> Self::Result {
        self.0 = text;
        Ok(())
    }
}

impl Handler<Reconfigure<u64>> for Plain {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Reconfigure(n): Reconfigure<u64>, _: &mut Self::Context) -> Self::Result {
        self.0 = n.to_string();
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        })
    }
}

impl Handler<Reconfigure<bool>> for Plain {
    type Result = AtomicResponse<Self, Result<(), ServeError>>;
    fn handle(&mut self, Reconfigure(yes): Reconfigure<bool>, _: &mut Self::Context) -> Self::Result {
        let pause = tokio::time::sleep(Duration::from_secs(1));
        AtomicResponse::new(Box::pin(pause.into_actor(self).map(move |(), plain, _| {
            plain.0 = yes.to_string();
            Ok(())
        })))
    }
}

#[derive(Message)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Read;

impl Handler<Read> for Plain {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, _: Read, _: &mut Self::Context) -> Self::Result {
        Ok(self.0.clone())
    }
}

impl Handler<Batch<Read>> for Plain {
    type Result = Result<Vec<Result<String, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Read>, _: &mut Self::Context) -> Self::Result {
        Ok(batch.into_iter().map(|_| Ok(self.0.clone())).collect())
    }
}

#[actix_web::test]
async fn batches_wait_for_a_change_and_none_of_their_calls_is_lost() -> Result<(), ServeError> {
    tokio::time::pause();
    let stage = Stage::new().await?;
    let backend = Backend::new(|_| Ok(Plain::default())).batched::<Read>().reconfigure::<u64>();
    let config = BackendConfig::default().max_batch_size(4).user_config(json!(1));
    let read = stage.replicas("plain", backend, config).await?;
    let two = BackendUpdate::default().user_config(json!(2));
    let (updated, calls) = tokio::join!(stage.serve().update_backend_config("plain", two), async {
        // In the middle of the second that the handler takes.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let calls: Vec<_> = (0..40).map(|_| read.call(Read)).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(stage.serve().status().backends[0].replicas[0].load, 40);
        join_all(calls).await
    });
    updated?;
    assert!(calls.iter().all(|seen| seen.as_deref() == Ok("2")), "{calls:?}");
    stage.end().await
}

#[actix_web::test]
async fn a_handler_may_answer_at_once_or_with_any_future() -> Result<(), ServeError> {
    tokio::time::pause();
    let plain = || Backend::new(|_| Ok(Plain::default())).handles::<Read>();
    let backends = [
        ("sync", plain().reconfigure::<String>(), json!("a"), json!("b"), "a", "b"),
        ("alone", plain().reconfigure::<u64>(), json!(1), json!(2), "1", "2"),
        ("atomic", plain().reconfigure::<bool>(), json!(true), json!(false), "true", "false"),
    ];
    let stage = Stage::new().await?;
    for (name, backend, first, second, was, is) in backends {
        let config = BackendConfig::default().user_config(first);
        let read = stage.replicas(name, backend, config).await?;
        assert_eq!(read.call(Read).await?, was);
        stage.serve().update_backend_config(name, BackendUpdate::default().user_config(second)).await?;
        assert_eq!(read.call(Read).await?, is, "{name}");
    }
    stage.end().await
}
