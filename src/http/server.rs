//! HTTP servers of our own: their workers are the serving threads.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix::System;
use actix_web::{App, HttpRequest, HttpServer, dev::Server, web};
use tokio::sync::oneshot;

use crate::{
    error::ServeError,
    http::{admin, dashboard, ingress::Ingress, service},
    http_call::ShardKeys,
    metrics::registry::HttpKey,
    serve::{
        Serve,
        takeover::{KEEP_ALIVE, Role, Served},
    },
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long the workers of a new server may take to lend their threads.
const WORKERS_READY: Duration = Duration::from_secs(10);

/// Where and how a server listens.
#[derive(Clone, Debug)]
#[must_use]
pub struct Listen {
    host: String,
    port: u16,
    threads: Option<NonZeroUsize>,
    ingress: Ingress,
}

impl Default for Listen {
    /// 127.0.0.1, any free port, one worker thread a core, bodies up to 16 MiB that stall for 30 s at most.
    fn default() -> Self {
        let ingress = Ingress::default().service_routes().lend_workers();
        Self { host: "127.0.0.1".into(), port: 0, threads: None, ingress }
    }
}

impl Listen {
    /// The address to listen on.
    pub fn on(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ..Self::default() }
    }

    /// Worker threads.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Largest body taken, in bytes.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.ingress = self.ingress.max_body_bytes(bytes);
        self
    }

    /// Longest time without a byte of a body that is not whole yet; see
    /// [`Ingress::body_timeout`](crate::Ingress::body_timeout).
    pub fn body_timeout(mut self, idle: Duration) -> Self {
        self.ingress = self.ingress.body_timeout(idle);
        self
    }

    /// Where requests carry their shard key.
    pub fn shard_keys(mut self, keys: ShardKeys) -> Self {
        self.ingress = self.ingress.shard_keys(keys);
        self
    }

    /// Requests with the header `X-Serve-Explain` are not told which backend and replica served them.
    pub fn without_explanations(mut self) -> Self {
        self.ingress = self.ingress.without_explanations();
        self
    }
}

/// Refuses an address that other machines reach, also one that a name stands for.
fn on_loopback(listen: &Listen) -> Result<(), ServeError> {
    let Listen { host, port, .. } = listen;
    crate::config::loopback(host)?;
    let elsewhere = (host.as_str(), *port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.find(|address| !address.ip().is_loopback()));
    match elsewhere {
        None => Ok(()),
        Some(address) => {
            let why = format!("{host:?} stands for {address} here, which is not a loopback address");
            Err(ServeError::invalid("host", why))
        }
    }
}

impl Serve {
    /// Listens for requests on the routes of this Serve, with `/-/...` and `/metrics`. The workers become serving
    /// threads. Returns the address, whose port is a real one also when 0 was asked for.
    ///
    /// # Errors
    /// [`ServeError::Internal`] when the address is in use or cannot be bound, or when this Serve runs on the
    /// current thread alone; [`ServeError::ShuttingDown`] after a shutdown.
    pub async fn listen(&self, listen: Listen) -> Result<SocketAddr, ServeError> {
        let ingress = listen.ingress.clone();
        let workers =
            listen.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let before = self.0.office.threads.count();
        // A worker must not keep alive the Serve that owns it.
        let configure = self.ingress_with(ingress);
        let office = Arc::clone(&self.0.office);
        let app = move || {
            let configure = configure.clone();
            let office = Arc::clone(&office);
            App::new().configure(configure).default_service(web::to(move |request: HttpRequest| {
                let response = service::closing(&office, || service::no_route(&request));
                let key = HttpKey::new(&"unmatched".into(), request.method(), response.status());
                office.metrics.registry.http(key).add();
                std::future::ready(response)
            }))
        };
        let address = self.run(Role::Http, &listen, workers, app).await?;
        let until = tokio::time::Instant::now() + WORKERS_READY;
        while self.0.office.threads.count() < before + workers {
            if tokio::time::Instant::now() > until {
                return Err(ServeError::Internal("the HTTP workers did not start".into()));
            }
            self.0.office.directory.timed(|| tokio::time::sleep(Duration::from_millis(1))).await;
        }
        Ok(address)
    }

    /// Listens for the service's own routes only: alive, ready, routes, metrics, the admin API below `/api/serve`, by
    /// which other programs of this machine steer this Serve, and at `/` the dashboard, which shows it to people.
    ///
    /// # Errors
    /// As [`listen`](Self::listen), and [`ServeError::Invalid`] for an address that other machines reach: nothing guards
    /// the admin API until it has tokens and TLS.
    pub async fn listen_admin(&self, listen: Listen) -> Result<SocketAddr, ServeError> {
        on_loopback(&listen)?;
        let (serve, body) = (Arc::downgrade(&self.0), listen.ingress.body_limits());
        let office = Arc::clone(&self.0.office);
        let app = move || {
            let (office, serve) = (Arc::clone(&office), Weak::clone(&serve));
            let unrouted = Arc::clone(&office);
            let configure = move |config: &mut web::ServiceConfig| {
                service::configure(config, &office);
                admin::configure(config, &serve, body);
                dashboard::configure(config, &office);
            };
            App::new().configure(configure).default_service(web::to(move |request: HttpRequest| {
                std::future::ready(service::closing(&unrouted, || service::no_route(&request)))
            }))
        };
        self.run(Role::Admin, &listen, 1, app).await
    }

    async fn run<F, T, B>(
        &self,
        role: Role,
        listen: &Listen,
        workers: usize,
        app: F,
    ) -> Result<SocketAddr, ServeError>
    where
        F: Fn() -> App<T> + Send + Clone + 'static,
        T: actix_web::dev::ServiceFactory<
                actix_web::dev::ServiceRequest,
                Config = (),
                Response = actix_web::dev::ServiceResponse<B>,
                Error = actix_web::Error,
                InitError = (),
            > + 'static,
        B: actix_web::body::MessageBody + 'static,
    {
        if self.0.office.directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        let Some(arbiter) = self.arbiter() else {
            return Err(ServeError::Internal(
                "a Serve on the current thread has no server of its own".into(),
            ));
        };
        let Listen { host, port, .. } = listen.clone();
        let handover = self.0.handover.clone();
        let (tx, rx) = oneshot::channel::<Result<(SocketAddr, Served), io::Error>>();
        let run = move || async move {
            let sockets =
                match handover.as_ref().map(|handover| handover.listen(role, &host, port)).transpose() {
                    Ok(sockets) => sockets,
                    Err(error) => return drop(tx.send(Err(error))),
                };
            let gate = sockets.as_ref().map(|sockets| sockets.gate.clone());
            let waiting = gate.clone().filter(|gate| !gate.is_open());
            let app = move || match gate.clone() {
                // A server accepts nothing before all that its workers need is there.
                Some(gate) => app().data_factory(move || gate.clone().opened()),
                None => app(),
            };
            let server = HttpServer::new(app)
                .workers(workers)
                .backlog(BACKLOG)
                .disable_signals()
                .keep_alive(KEEP_ALIVE)
                // A caller that has left is noticed, and its handler dropped.
                .h1_allow_half_closed(false);
            let mut keep = None;
            let server = match (sockets, handover) {
                (Some(sockets), Some(handover)) => {
                    let connections = Arc::clone(&handover.connections);
                    let server = server.on_connect(move |_, of_connection| {
                        of_connection.insert(connections.begin());
                    });
                    keep = Some((sockets.kept, handover));
                    sockets.listeners.into_iter().try_fold(server, HttpServer::listen)
                }
                _ => server.bind((host.as_str(), port)),
            };
            match server {
                Err(error) => drop(tx.send(Err(error))),
                Ok(server) => {
                    let Some(address) = server.addrs().first().copied() else {
                        return drop(tx.send(Err(io::Error::other("no address was bound"))));
                    };
                    let mut server = server.run();
                    // Not before: nobody would accept from them.
                    keep.into_iter().for_each(|(kept, handover)| handover.keep(kept));
                    let served = Served { role, address, handle: server.handle(), gate: waiting.clone() };
                    drop(tx.send(Ok((address, served))));
                    if waiting.is_some() {
                        let Some(started) = started(server).await else { return };
                        server = started;
                    }
                    if let Err(error) = server.await {
                        eprintln!("greenroom: the HTTP server ended with an error: {error}");
                    }
                }
            }
        };
        arbiter.spawn_fn(move || drop(tokio::task::spawn_local(run())));
        let failed = |why: String| {
            ServeError::Internal(format!("cannot listen on {}:{}: {why}", listen.host, listen.port).into())
        };
        let (address, served) = rx
            .await
            .map_err(|_| failed("its thread has ended".into()))?
            .map_err(|e| failed(e.to_string()))?;
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).push(served);
        Ok(address)
    }
}

/// Starts a server that waits for its gate; none when it will not open. A server waits for its workers in its first
/// step, on the thread that takes it: on ours, which makes the replicas that the gate waits for, it would be for ever.
async fn started(mut server: Server) -> Option<Server> {
    let system = System::current();
    let first_step = tokio::task::spawn_blocking(move || {
        // Its workers belong to the same system as those of the others.
        System::set_current(system);
        match Pin::new(&mut server).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Some(server),
            Poll::Ready(_) => None,
        }
    });
    first_step.await.ok().flatten()
}
