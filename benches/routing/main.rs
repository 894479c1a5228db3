//! What splits, shard keys, shadows and ten thousand endpoints cost, how fast a change of traffic is seen, and what
//! a shadow that hangs does to those who wait for answers.
//!
//! `cargo bench --bench routing`; `ROUNDS` and `SECONDS` set how often and how long, `ENDPOINTS` how many. Servers
//! are processes of their own with two HTTP threads; what is compared is interleaved.

#![expect(clippy::disallowed_methods, reason = "no replica runs on the threads that sleep here")]

mod live;
#[path = "../measure/mod.rs"]
mod measure;

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Listen, ReplicaContext, RoutePattern, RouteTable, Serve,
    ServeError, ServeOptions, ShadowRule, TrafficPolicy,
};
use measure::{
    Table,
    closed_loop::{Server, load, request},
    env, median, time,
};
use serde::{Deserialize, Serialize};

const THREADS: usize = 2;
const CANARIES: [(&str, f64); 3] = [("a", 0.98), ("b", 0.01), ("c", 0.01)];
const SHADOWS: [&str; 2] = ["d", "e"];
/// Shard keys in turn.
const KEYS: usize = 1_000;

#[derive(Message, Clone, Serialize, Deserialize)]
#[rtype(result = "Result<Echo, ServeError>")]
struct Echo {
    id: u64,
    text: String,
}

struct Echoes;

impl Actor for Echoes {
    type Context = ReplicaContext<Self>;
}

impl Handler<Echo> for Echoes {
    type Result = Result<Echo, ServeError>;
    fn handle(&mut self, echo: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(echo)
    }
}

async fn echoes(serve: &Serve, name: &str, replicas: u32) -> Result<(), ServeError> {
    let backend = Backend::new(|_| Ok(Echoes)).json::<Echo>().shadows::<Echo>();
    serve.create_backend(name, backend, BackendConfig::default().num_replicas(replicas)).await
}

/// Everything to one backend, or a canary split with two shadows.
async fn endpoints(serve: &Serve, replicas: u32) -> Result<(), ServeError> {
    for (name, _) in CANARIES {
        echoes(serve, name, replicas).await?;
    }
    for name in SHADOWS {
        echoes(serve, name, replicas).await?;
    }
    serve.create_endpoint("plain", Endpoint::new("a").route("/plain").methods(["POST"])).await?;
    let mut split = Endpoint::split(TrafficPolicy::new(CANARIES)?).route("/split").methods(["POST"]);
    for name in SHADOWS {
        split = split.shadow(ShadowRule::new(name, 0.1)?);
    }
    serve.create_endpoint("split", split).await
}

/// `kind` is `traffic`, or how many endpoints over three backends each there shall be.
async fn server(kind: &str) -> Result<(), ServeError> {
    let serve =
        Serve::start(ServeOptions::default().capacity(greenroom::Capacity::unlimited()).lent_threads())
            .await?;
    let threads = NonZeroUsize::new(THREADS).unwrap_or(NonZeroUsize::MIN);
    let address = serve.listen(Listen::default().threads(threads)).await?;
    match kind.parse::<usize>() {
        Err(_) => endpoints(&serve, THREADS as u32).await?,
        Ok(n) => {
            for name in ["a", "b", "c"] {
                echoes(&serve, name, THREADS as u32).await?;
            }
            for i in 0..n {
                let policy = TrafficPolicy::new([("a", 0.5), ("b", 0.25), ("c", 0.25)])?;
                let endpoint = Endpoint::split(policy).route(path(i)).methods(["POST"]);
                serve.create_endpoint(format!("endpoint-{i}"), endpoint).await?;
            }
        }
    }
    println!("{}", address.port());
    serve.run_until_signal().await
}

fn path(i: usize) -> String {
    format!("/models/model-{i}/predict")
}

fn body() -> Vec<u8> {
    serde_json::to_vec(&Echo { id: 42, text: "x".repeat(32) }).unwrap_or_default()
}

/// Processor time of the server for a call that some backend handled, a request or a copy of one: the split's
/// over the plain one's. Then throughput, split over plain.
fn split_over_http(rounds: usize, seconds: f64) -> [f64; 3] {
    let server = Server::start("traffic");
    let plain = vec![request("/plain", "", &body())];
    let keyed = |i| request("/split", &format!("x-serve-shard-key: session-{i}\r\n"), &body());
    let split: Vec<_> = (0..KEYS).map(keyed).collect();
    let handled = || server.counter("serve_backend_request_counter_total");
    let measure = |requests: &[Vec<u8>]| {
        let (calls, cpu) = (handled(), server.cpu());
        let point = load(&server, 16, requests, seconds);
        std::thread::sleep(Duration::from_millis(50));
        ((server.cpu() - cpu) / (handled() - calls), point.throughput)
    };
    measure(&split);
    let (mut cost, mut throughput, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let before = server.counter("serve_shadow_requests_total");
        let mut both = [(0, &plain), (1, &split)];
        both.rotate_left(round % 2);
        let mut measured = both.map(|(i, requests)| (i, measure(requests)));
        measured.sort_by_key(|(i, _)| *i);
        let [(_, plain), (_, split)] = measured;
        cost.push(split.0 / plain.0);
        throughput.push(split.1 / plain.1);
        copies.push(server.counter("serve_shadow_requests_total") - before);
    }
    [median(cost), median(throughput), median(copies)]
}

/// The same for handles, 64 calls at once on the thread of all replicas: time for a handled call.
fn split_by_handle(system: &actix::SystemRunner, rounds: usize) -> Result<f64, ServeError> {
    let calls = env("CALLS", 200_000);
    let serve = system.block_on(async {
        let serve = Serve::start(ServeOptions::default().current_thread()).await?;
        endpoints(&serve, 1).await?;
        Ok::<_, ServeError>(serve)
    })?;
    let plain = vec![serve.handle::<Echo>("plain")?];
    let split = serve.handle::<Echo>("split")?;
    let split: Vec<_> = (0..KEYS).map(|i| split.options().shard_key(format!("session-{i}"))).collect();
    let run = |handles: &Vec<Handle<Echo>>| {
        let handles = handles.clone();
        time(system, calls, move |n| {
            let handles = handles.clone();
            async move {
                let tasks: Vec<_> = (0..64)
                    .map(|task| {
                        let handles = handles.clone();
                        actix::spawn(async move {
                            for i in 0..n / 64 {
                                let echo = Echo { id: 1, text: "x".repeat(32) };
                                let answer = handles[(task + i) % handles.len()].call(echo).await;
                                assert!(answer.is_ok());
                                // As a caller does that has something else to do.
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    let _ = task.await;
                }
            }
        })
    };
    let handled = || -> u64 {
        let endpoints = serve.list_endpoints();
        let copies = endpoints.iter().flat_map(|e| &e.shadow).map(|s| s.copies.answered + s.copies.dropped);
        copies.sum()
    };
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let plain = run(&plain);
        let before = handled();
        let split = run(&split);
        // The warm-up makes copies as well: a tenth more calls.
        let copies = (handled() - before) as f64 / (1.1 * calls as f64);
        ratios.push(split / (1.0 + copies) / plain);
    }
    system.block_on(serve.shutdown())?;
    Ok(median(ratios))
}

/// Whole-request throughput with many endpoints over that with one, in turns, and the memory of both in MiB.
fn many_endpoints(rounds: usize, seconds: f64) -> ([f64; 2], [f64; 2]) {
    let n = env("ENDPOINTS", 10_000);
    let servers = [Server::start("1"), Server::start(&n.to_string())];
    // In an order that no cache guesses.
    let paths = |n: usize| -> Vec<_> { (0..n).map(|i| request(&path(i * 7_919 % n), "", &body())).collect() };
    let requests = [paths(1), paths(n)];
    let (mut throughput, mut cpu) = (Vec::new(), Vec::new());
    for (server, requests) in servers.iter().zip(&requests) {
        load(server, 16, requests, 1.0);
    }
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut measured = order.map(|i| (i, load(&servers[i], 16, &requests[i], seconds)));
        measured.sort_by_key(|(i, _)| *i);
        let [(_, one), (_, many)] = &measured;
        throughput.push(one.throughput / many.throughput);
        cpu.push(many.cpu_us / one.cpu_us);
    }
    ([median(throughput), median(cpu)], servers.each_ref().map(Server::pss_mib))
}

/// Nanoseconds to find the route of a path among 1 and among many.
fn lookup() -> [f64; 2] {
    [1, env("ENDPOINTS", 10_000)].map(|n| {
        let mut table = RouteTable::default();
        let paths: Vec<_> = (0..n).map(path).collect();
        for (i, path) in paths.iter().enumerate() {
            if let Ok(pattern) = RoutePattern::parse(path) {
                let _ = table.insert(pattern, i);
            }
        }
        let finds = 1_000_000;
        let start = Instant::now();
        let found = (0..finds).filter(|i| table.find(&paths[i * 7_919 % n]).is_some()).count();
        assert_eq!(found, finds);
        start.elapsed().as_nanos() as f64 / finds as f64
    })
}

fn main() -> Result<(), ServeError> {
    let kind = std::env::args().nth(1).filter(|kind| !kind.starts_with('-'));
    if let Some(kind) = kind {
        return actix_web::rt::System::new().block_on(server(&kind));
    }
    let (rounds, seconds) = (env("ROUNDS", 7), env("SECONDS", 2) as f64);
    let system = actix::System::new();
    let [http_cost, http_throughput, copies] = split_over_http(rounds, seconds);
    let handle_cost = split_by_handle(&system, rounds)?;
    let ([endpoints_ratio, endpoints_cpu], memory) = many_endpoints(rounds, seconds);
    let [lookup_one, lookup_many] = lookup();
    let [propagation, propagation_p99, propagation_max] = live::propagation(&system)?;
    let hanging = live::beside_a_hanging_shadow(&system, rounds, seconds)?;
    let mut table = Table::new(["measured", "value"]);
    let rows = [
        ("split, shard key, two shadows over HTTP: processor time a handled call", http_cost),
        ("the same: throughput", http_throughput),
        ("the same by handle, 64 at once on one thread: time a handled call", handle_cost),
        ("10,000 endpoints: time a request", endpoints_ratio),
        ("10,000 endpoints: processor time a request", endpoints_cpu),
        ("set_traffic under load, ms: median", propagation),
        ("set_traffic under load, ms: 99th", propagation_p99),
        ("set_traffic under load, ms: slowest of 1,000", propagation_max),
        ("beside a shadow that hangs: p99", hanging),
        ("route found among 1, ns", lookup_one),
        ("route found among 10,000, ns", lookup_many),
        ("memory with 1 endpoint, MiB", memory[0]),
        ("memory with 10,000 endpoints, MiB", memory[1]),
    ];
    rows.iter().for_each(|(what, value)| table.row([(*what).into(), format!("{value:.3}")]));
    table.print();
    println!(
        "{}",
        serde_json::json!({"routing": {
            "split_cost_ratio": http_cost, "split_throughput_ratio": http_throughput,
            "split_cost_ratio_by_handle": handle_cost, "copies_a_round": copies,
            "endpoints_ratio": endpoints_ratio, "endpoints_cpu_ratio": endpoints_cpu,
            "propagation_ms": propagation_max, "propagation_p99_ms": propagation_p99,
            "hanging_shadow_p99_ratio": hanging, "lookup_one_ns": lookup_one, "lookup_many_ns": lookup_many,
            "pss_mib": memory, "rounds": rounds, "seconds": seconds,
        }})
    );
    Ok(())
}
