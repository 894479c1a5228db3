//! From a configuration file to a running service, its changes, and its end.

mod progress;
mod reload;

use std::{io::Write, path::Path, path::PathBuf, time::Duration};

use greenroom::{
    DeployOptions, Deployed, EndSignals, Listen, Location, Serve, ServeConfig, ServeError, ServeOptions,
};

use reload::Reloads;

/// How often it is looked whether what was restored runs.
const LOOK: Duration = Duration::from_millis(10);

/// Why nothing is served, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ServeError },
    #[error("signals cannot be listened for: {0}")]
    Signals(std::io::Error),
    #[error("{listener}: {source}")]
    Listen { listener: &'static str, source: ServeError },
    #[error("{0}")]
    Serve(#[from] ServeError),
}

/// Serves what `file` declares until the process is told to end, also while it is still starting. Told to (SIGHUP), it
/// reads the file again.
pub(crate) async fn run(file: &Path) -> Result<(), LaunchError> {
    // First, so that no signal finds the process unprepared.
    let mut signals = EndSignals::listen().map_err(LaunchError::Signals)?;
    let reloads = Reloads::listen().map_err(LaunchError::Signals)?;
    let config = read(file)?;
    let serve = Serve::start(options(&config)).await?;
    tokio::select! {
        // What is still being made or changed then goes with the rest.
        biased;
        () = signals.received() => {}
        () = serve.ending() => {}
        () = serve.replaced() => tell("another process has taken over"),
        ended = serve_on(&serve, file, config, reloads) => return ended,
    }
    Ok(serve.shutdown().await?)
}

/// Serves until it fails to begin.
async fn serve_on(
    serve: &Serve,
    file: &Path,
    config: ServeConfig,
    mut reloads: Reloads,
) -> Result<(), LaunchError> {
    listen(serve, &config).await?;
    let wrong = |source| LaunchError::Config { path: file.to_owned(), source };
    if !serve.restored() {
        deploy(serve, config.clone()).await.map_err(wrong)?;
    }
    serve.announce_ready();
    let (mut last, mut told) = (config, false);
    loop {
        tokio::select! {
            biased;
            () = all_ready(serve), if !told => {
                tell("ready");
                told = true;
            }
            // Perhaps with what makes it ready.
            () = reloads.asked() => reload::reload(serve, file, &mut last).await,
        }
    }
}

/// What was restored starts by itself, and is tried again when it does not: nothing ends for that.
async fn all_ready(serve: &Serve) {
    while serve.restored() && serve.ready().is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes all as it is declared, and tells how far that is.
async fn deploy(serve: &Serve, config: ServeConfig) -> Result<Deployed, ServeError> {
    tokio::select! {
        biased;
        deployed = serve.deploy(config, DeployOptions::default().by("file").declared()) => deployed,
        never = progress::told(serve, tell) => match never {},
    }
}

fn read(file: &Path) -> Result<ServeConfig, LaunchError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| LaunchError::Unreadable { path: file.to_owned(), source })?;
    // So that what is kept means the same wherever the next process is started.
    let base_dir = std::path::absolute(file)
        .map_err(|source| LaunchError::Unreadable { path: file.to_owned(), source })?;
    let base_dir = base_dir.parent().unwrap_or(Path::new("/"));
    let config = ServeConfig::from_yaml(&text, base_dir);
    config.map_err(|source| LaunchError::Config { path: file.to_owned(), source })
}

/// The HTTP workers are the serving threads; without them there are others.
fn options(config: &ServeConfig) -> ServeOptions {
    let mut options = ServeOptions::default().announces_ready().sections(config);
    if let Some(state) = &config.state {
        options = options.state(state).declared(config.clone());
    }
    if let Some(path) = &config.takeover {
        options = options.takeover(path);
    }
    match (config.http.location, config.http.threads) {
        (Location::HeadOnly | Location::EveryNode, _) => options.lent_threads(),
        (Location::NoServer, Some(threads)) => options.serving_threads(threads),
        (Location::NoServer, None) => options,
    }
}

async fn listen(serve: &Serve, config: &ServeConfig) -> Result<(), LaunchError> {
    let http = &config.http;
    if http.location != Location::NoServer {
        let mut listen = Listen::on(&http.host, http.port)
            .max_body_bytes(http.max_body_bytes)
            .body_timeout(http.body_timeout)
            .shard_keys(http.shard_key.clone());
        if !http.explain {
            listen = listen.without_explanations();
        }
        if let Some(threads) = http.threads {
            listen = listen.threads(threads);
        }
        let failed = |source| LaunchError::Listen { listener: "http", source };
        tell(&format!("serving on http://{}", serve.listen(listen).await.map_err(failed)?));
    }
    let listen = Listen::on(&config.admin.host, config.admin.port);
    let failed = |source| LaunchError::Listen { listener: "admin", source };
    tell(&format!("admin on http://{}", serve.listen_admin(listen).await.map_err(failed)?));
    Ok(())
}

/// One line for whoever started this; that nobody reads it does not matter.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
