//! Handlers of a configuration that do not end as they should: they hang, or their state ends under them.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, mpsc},
};

use greenroom::{Endpoint, Placement, Serve};

use super::{forms::Read, *};
use crate::support::uncounted;

#[actix_web::test]
async fn an_update_that_goes_back_is_told_when_every_replica_has_the_old_one() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    studio.changes.release(2);
    let config = BackendConfig::default().user_config(colour("slow red")).num_replicas(2);
    let look = stage.replicas("painter", studio.backend(), config).await?;
    let serve = stage.serve().clone();
    let update = async move { serve.update_backend_config("painter", paint("refused by 1")).await };
    let update = actix_web::rt::spawn(update);
    until("the first one goes back", || studio.changes.inside() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!update.is_finished());
    studio.changes.release(1);
    assert_eq!(update.await.unwrap().unwrap_err().code(), "reconfigure_failed");
    assert_eq!(colours(&look, 2).await, only("slow red"));
    stage.end().await
}

#[actix_web::test]
async fn a_state_that_ends_while_it_takes_one_is_made_anew_with_the_old_one() -> Result<(), ServeError> {
    quiet_panics();
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let struck = BackendConfig::default().user_config(colour("slow struck"));
    let error = stage.serve().create_backend("bad", studio.backend(), struck).await.unwrap_err();
    assert!(error.to_string().ends_with("it ended while it took its user_config"), "{error}");
    let made = studio.made();
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    let error = stage.serve().update_backend_config("painter", paint("slow struck")).await.unwrap_err();
    assert!(error.to_string().ends_with("its state ended meanwhile"), "{error}");
    assert_eq!((&*look.call(Look).await?.colour, studio.made()), ("red", made + 2));
    stage.end().await
}

/// Hangs over a configuration that says so, until it is let go.
struct Stubborn {
    text: String,
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Actor for Stubborn {
    type Context = ReplicaContext<Self>;
}

impl Handler<Reconfigure<String>> for Stubborn {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Reconfigure(text): Reconfigure<String>, _: &mut Self::Context) -> Self::Result {
        if text == "hang" {
            let _ = self.let_go.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        self.text = text;
        Ok(())
    }
}

impl Handler<Read> for Stubborn {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, _: Read, _: &mut Self::Context) -> Self::Result {
        Ok(self.text.clone())
    }
}

#[actix_web::test]
async fn a_replica_whose_thread_hangs_over_one_is_replaced_by_one_with_the_old_one() -> Result<(), ServeError>
{
    let (release, let_go) = mpsc::channel();
    let let_go = Arc::new(Mutex::new(let_go));
    let stubborn = Backend::new(move |_| Ok(Stubborn { text: String::new(), let_go: Arc::clone(&let_go) }));
    let serve = Serve::start(uncounted().serving_threads(NonZeroUsize::MIN)).await?;
    let config = BackendConfig::default()
        .placement(Placement::Dedicated)
        .graceful_shutdown_timeout(Duration::from_millis(50))
        .startup_timeout(Duration::from_millis(500))
        .user_config(json!("old"));
    serve.create_backend("stubborn", stubborn.handles::<Read>().reconfigure::<String>(), config).await?;
    serve.create_endpoint("stubborn", Endpoint::new("stubborn")).await?;
    let hang = BackendUpdate::default().user_config(json!("hang"));
    let updating = serve.clone();
    let update = actix_web::rt::spawn(async move { updating.update_backend_config("stubborn", hang).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = serve.handle::<Read>("stubborn")?.call(Read);
    let error = update.await.unwrap().unwrap_err();
    assert_eq!(waiting.await?, "old", "what waits there is served by the one that replaces it");
    assert!(error.to_string().ends_with("it did not take its user_config in time"), "{error}");
    assert_eq!(serve.handle::<Read>("stubborn")?.call(Read).await?, "old");
    assert_eq!(serve.status().backends[0].replicas[0].id.generation, 2);
    release.send(()).unwrap();
    serve.shutdown().await
}
