//! From a configuration file to a running service, and to its end.

use std::{io::Write, path::Path, path::PathBuf};

use greenroom::{
    BackendConfig, BackendDecl, BackendName, EndSignals, Endpoint, EndpointDecl, EndpointName, Listen,
    Location, Problem, Serve, ServeConfig, ServeError, ServeOptions, Source,
};

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
    #[error("backend {name}: {source}")]
    Backend { name: BackendName, source: ServeError },
    #[error("endpoint {name}: {source}")]
    Endpoint { name: EndpointName, source: ServeError },
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
    for backend in config.backends {
        create_backend(serve, backend).await?;
    }
    for endpoint in config.endpoints {
        create_endpoint(serve, endpoint).await?;
    }
    serve.announce_ready();
    Ok(())
}

fn read(file: &Path) -> Result<ServeConfig, LaunchError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| LaunchError::Unreadable { path: file.to_owned(), source })?;
    let base_dir = file.parent().unwrap_or(Path::new(""));
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

async fn create_backend(serve: &Serve, declared: BackendDecl) -> Result<(), LaunchError> {
    let BackendDecl { name, source, config } = declared;
    let created = match source {
        Source::Onnx { path } => create_onnx(serve, &name, &path, config).await,
        // Refused before, with its place.
        Source::Registered { name } => Err(ServeError::UnknownBackend(name)),
    };
    created.map_err(|source| LaunchError::Backend { name, source })
}

#[cfg(feature = "onnx")]
async fn create_onnx(
    serve: &Serve,
    name: &BackendName,
    path: &Path,
    config: BackendConfig,
) -> Result<(), ServeError> {
    serve.create_backend(name.as_str(), greenroom::Backend::onnx(path), config).await
}

#[cfg(not(feature = "onnx"))]
#[expect(clippy::unused_async, reason = "the same shape as with the feature")]
async fn create_onnx(_: &Serve, _: &BackendName, _: &Path, _: BackendConfig) -> Result<(), ServeError> {
    Err(ServeError::invalid("onnx", "this `greenroom` was built without the feature `onnx`"))
}

async fn create_endpoint(serve: &Serve, declared: EndpointDecl) -> Result<(), LaunchError> {
    let EndpointDecl { name, route, methods, traffic, shadow, affinity } = declared;
    let mut endpoint = Endpoint::split(traffic).methods(methods).affinity(affinity);
    for rule in shadow {
        endpoint = endpoint.shadow(rule);
    }
    if let Some(route) = route {
        endpoint = endpoint.route(route.as_str());
    }
    let created = serve.create_endpoint(name.as_str(), endpoint).await;
    created.map_err(|source| LaunchError::Endpoint { name, source })
}

/// One line for whoever started this; that nobody reads it does not matter.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
