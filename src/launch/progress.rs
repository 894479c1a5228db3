//! How far a deploy is, a line whenever that changes.

use std::{convert::Infallible, time::Duration};

use greenroom::Serve;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Tells which replicas the deploy under way waits for, for as long as it is polled.
pub(super) async fn told(serve: &Serve, mut tell: impl FnMut(&str)) -> Infallible {
    let mut last = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let waits_for = serve.progress().and_then(|progress| progress.waits_for);
        let waits_for = waits_for.filter(|line| line.contains(" replicas "));
        if waits_for != last {
            waits_for.iter().for_each(|line| tell(line));
            last = waits_for;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

    use actix::{Actor, Handler, Message};
    use greenroom::{Backend, DeployOptions, ReplicaContext, ServeConfig, ServeError, ServeOptions};

    use super::*;

    #[derive(Message)]
    #[rtype(result = "Result<u64, ServeError>")]
    struct Ask;

    struct Model;

    impl Actor for Model {
        type Context = ReplicaContext<Self>;
    }

    impl Handler<Ask> for Model {
        type Result = Result<u64, ServeError>;
        fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
            Ok(1)
        }
    }

    #[actix_web::test]
    async fn each_number_of_ready_replicas_is_told_once() -> Result<(), ServeError> {
        tokio::time::pause();
        let serve = Serve::start(ServeOptions::default().current_thread()).await?;
        let loaded = Arc::new(AtomicBool::new(false));
        let load = Arc::clone(&loaded);
        let model = Backend::new(move |_| if load.load(SeqCst) { Ok(Model) } else { Err("not yet".into()) });
        serve.register("model", model.handles::<Ask>())?;
        let text = "backends: [{ name: digits, registered: model, num_replicas: 2, restart: { max_restarts: 9999 } }]";
        let config = ServeConfig::from_yaml(text, Path::new("."))?;
        let mut lines = Vec::new();
        let looks = Duration::from_secs(1);
        tokio::select! {
            deployed = serve.deploy(config, DeployOptions::default()) => drop(deployed?),
            never = told(&serve, |line| lines.push(line.to_owned())) => match never {},
            () = async {
                tokio::time::sleep(looks).await;
                loaded.store(true, SeqCst);
                std::future::pending::<()>().await;
            } => {}
        }
        assert_eq!(lines.first().map(String::as_str), Some("digits: 0 of 2 replicas ready"));
        assert!(lines.len() <= 3, "{lines:?}");
        serve.shutdown().await
    }
}
