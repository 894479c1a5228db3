//! From a configuration file to a running service, and to its end.

use std::{io::Write, path::Path, path::PathBuf, time::Duration};

use greenroom::{
    EndSignals, Listen, Location, Problem, Serve, ServeConfig, ServeError, ServeOptions, Source,
};

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

/// Serves what `file` declares until the process is told to end, also while it is still starting.
pub(crate) async fn run(file: &Path) -> Result<(), LaunchError> {
    // First, so that no signal finds the process unprepared.
    let mut signals = EndSignals::listen().map_err(LaunchError::Signals)?;
    let config = read(file)?;
    let serve = Serve::start(options(&config)).await?;
    tokio::select! {
        // What is still being made then goes with the rest.
        biased;
        () = signals.received() => {}
        started = start(&serve, config) => {
            started?;
            tell("ready");
            tokio::select! {
                () = signals.received() => {}
                () = serve.replaced() => tell("another process has taken over"),
            }
        }
    }
    Ok(serve.shutdown().await?)
}

async fn start(serve: &Serve, config: ServeConfig) -> Result<(), LaunchError> {
    listen(serve, &config).await?;
    if !serve.restored() {
        serve.declare(config).await?;
    }
    serve.announce_ready();
    // What was restored starts by itself, and is tried again when it does not: nothing ends for that.
    while serve.restored() && serve.ready().is_err() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn read(file: &Path) -> Result<ServeConfig, LaunchError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| LaunchError::Unreadable { path: file.to_owned(), source })?;
    // So that what is kept means the same wherever the next process is started.
    let base_dir = std::path::absolute(file)
        .map_err(|source| LaunchError::Unreadable { path: file.to_owned(), source })?;
    let base_dir = base_dir.parent().unwrap_or(Path::new("/"));
    let config = ServeConfig::from_yaml(&text, base_dir).and_then(only_files);
    config.map_err(|source| LaunchError::Config { path: file.to_owned(), source })
}

/// Refuses backends that are code of a program, which this one does not hold.
fn only_files(config: ServeConfig) -> Result<ServeConfig, ServeError> {
    let registered = config.backends.iter().enumerate().filter_map(|(index, backend)| match &backend.source {
        Source::Registered { name } => Some(Problem {
            place: format!("backends[{index}].registered"),
            what: format!(
                "{name} would be code of a program that embeds greenroom; the `greenroom` command has none, \
                 give `onnx`"
            ),
        }),
        Source::Onnx { .. } => None,
    });
    let problems: Vec<_> = registered.collect();
    if problems.is_empty() { Ok(config) } else { Err(ServeError::InvalidConfig(problems)) }
}

/// The HTTP workers are the serving threads; without them there are others.
fn options(config: &ServeConfig) -> ServeOptions {
    let mut options = ServeOptions::default().announces_ready().capacity(config.capacity.clone());
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
