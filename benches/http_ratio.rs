//! Echo through Router and Replica beside a bare actix-web app that does the same JSON and request-id work.
//!
//! `cargo bench --bench http_ratio`; `PAIRS`, `SECONDS` and `POINTS` (such as `16,64`) narrow it. Both servers are
//! processes of their own with two HTTP threads; pairs are interleaved and their order alternates. Ours runs with
//! its defaults (worker placement, metrics on) and one replica for each HTTP thread.
//!
//! `SOAK=5000000 cargo bench --bench http_ratio` sends that many requests to ours instead and tells how long it
//! took to its first answer and what its memory does.

mod measure;

use std::{num::NonZeroUsize, time::Instant};

use actix::{Actor, Handler, Message};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use greenroom::{
    Backend, BackendConfig, Endpoint, Listen, ReplicaContext, RequestId, Serve, ServeError, ServeOptions,
};
use measure::{
    Table,
    closed_loop::{Server, load, request},
    env, median,
};
use serde::{Deserialize, Serialize};

const THREADS: usize = 2;
const BODY_BYTES_MAX: usize = 8 << 20;

#[derive(Message, Serialize, Deserialize)]
#[rtype(result = "Result<Echo, ServeError>")]
struct Echo {
    id: u64,
    name: String,
    tags: Vec<String>,
    value: f64,
    text: String,
}

fn body(text: usize) -> Vec<u8> {
    let echo = Echo {
        id: 42,
        name: "benchmark".into(),
        tags: vec!["a".into(), "b".into(), "c".into()],
        value: 3.25,
        text: "x".repeat(text),
    };
    serde_json::to_vec(&echo).unwrap_or_default()
}

struct Ours;

impl Actor for Ours {
    type Context = ReplicaContext<Self>;
}

impl Handler<Echo> for Ours {
    type Result = Result<Echo, ServeError>;
    fn handle(&mut self, echo: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(echo)
    }
}

async fn ours() -> Result<(), ServeError> {
    let serve =
        Serve::start(ServeOptions::default().capacity(greenroom::Capacity::unlimited()).lent_threads())
            .await?;
    let threads = NonZeroUsize::new(THREADS).unwrap_or(NonZeroUsize::MIN);
    let address = serve.listen(Listen::default().threads(threads).max_body_bytes(BODY_BYTES_MAX)).await?;
    let config = BackendConfig::default().num_replicas(THREADS as u32);
    serve.create_backend("echo", Backend::new(|_| Ok(Ours)).json::<Echo>(), config).await?;
    serve.create_endpoint("echo", Endpoint::new("echo").route("/echo").methods(["POST"])).await?;
    println!("{}", address.port());
    serve.run_until_signal().await
}

/// What one writes by hand: the same decode and encode, the same header, no actors and no metrics.
async fn control() -> std::io::Result<()> {
    let server = HttpServer::new(|| {
        App::new().app_data(web::PayloadConfig::new(BODY_BYTES_MAX)).route(
            "/echo",
            web::post().to(async |request: HttpRequest, body: web::Bytes| {
                let id = match request.headers().get("x-request-id").map(|id| id.to_str()) {
                    Some(Ok(id)) => RequestId::given(id).unwrap_or_else(|_| RequestId::generate()),
                    _ => RequestId::generate(),
                };
                let mut response = match serde_json::from_slice::<Echo>(&body) {
                    Ok(echo) => HttpResponse::Ok()
                        .content_type("application/json")
                        .body(serde_json::to_vec(&echo).unwrap_or_default()),
                    Err(error) => HttpResponse::BadRequest().body(error.to_string()),
                };
                if let Ok(id) = id.to_string().try_into() {
                    response.headers_mut().insert("x-request-id".parse().expect("a header name"), id);
                }
                response
            }),
        )
    })
    .workers(THREADS)
    .backlog(4096)
    .h1_allow_half_closed(false)
    .bind(("127.0.0.1", 0))?;
    println!("{}", server.addrs()[0].port());
    server.run().await
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("ours") => return actix_web::rt::System::new().block_on(ours()).expect("our server"),
        Some("control") => return actix_web::rt::System::new().block_on(control()).expect("the control"),
        _ => {}
    }
    match env("SOAK", 0) {
        0 => compare(),
        requests => soak(requests),
    }
}

/// Memory of ours after each fifth of `requests`, never scraped.
fn soak(requests: usize) {
    let started = Instant::now();
    let server = Server::start("ours");
    let small = vec![request("/echo", "", &body(32))];
    load(&server, 1, &small, 0.0);
    let first_answer_s = started.elapsed().as_secs_f64();
    let idle_mib = server.pss_mib();
    // Long enough for the allocator to have seen every size on every thread.
    let mut sent = load(&server, 64, &small, 12.0).answered;
    let warm_mib = server.pss_mib();
    let (mut table, mut last) = (Table::new(["requests", "PSS MiB"]), warm_mib);
    table.row([sent.to_string(), format!("{warm_mib:.2}")]);
    sent = 0;
    for fifth in 1..=5 {
        while sent < requests * fifth / 5 {
            sent += load(&server, 64, &small, 2.0).answered;
        }
        last = server.pss_mib();
        table.row([sent.to_string(), format!("{last:.2}")]);
    }
    table.print();
    println!(
        "{}",
        serde_json::json!({"soak": {
            "requests": sent, "growth": last / warm_mib - 1.0, "warm_pss_mib": warm_mib,
            "idle_pss_mib": idle_mib, "first_answer_s": first_answer_s,
        }})
    );
}

fn compare() {
    let (pairs, seconds) = (env("PAIRS", 7), env("SECONDS", 3) as f64);
    let wanted = std::env::var("POINTS").unwrap_or_default();
    let servers = [Server::start("control"), Server::start("ours")];
    let small = vec![request("/echo", "", &body(32))];
    let large = vec![request("/echo", "", &body(1 << 20))];
    let points = [
        ("c1", 1, &small),
        ("c16", 16, &small),
        ("c64", 64, &small),
        ("c256", 256, &small),
        ("mib1", 4, &large),
    ];
    let mut table = Table::new([
        "point",
        "control req/s",
        "ours req/s",
        "throughput",
        "cpu/request",
        "p50",
        "p99",
        "throughput of each pair",
    ]);
    let mut json = serde_json::Map::new();
    for (name, connections, request) in points {
        if !wanted.is_empty() && !wanted.split(',').any(|w| w == name || w == &name[1..]) {
            continue;
        }
        for server in &servers {
            let _ = load(server, connections, request, 0.5);
        }
        let mut ratios: [Vec<f64>; 4] = Default::default();
        let mut absolute: [Vec<f64>; 2] = Default::default();
        for pair in 0..pairs {
            let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
            let mut measured = order.map(|i| (i, load(&servers[i], connections, request, seconds)));
            measured.sort_by_key(|(i, _)| *i);
            let [(_, control), (_, ours)] = &measured;
            ratios[0].push(ours.throughput / control.throughput);
            ratios[1].push(ours.cpu_us / control.cpu_us);
            ratios[2].push(ours.p50_us / control.p50_us);
            ratios[3].push(ours.p99_us / control.p99_us);
            absolute[0].push(control.throughput);
            absolute[1].push(ours.throughput);
        }
        let each = ratios[0].iter().map(|r| format!("{r:.2}")).collect::<Vec<_>>().join(" ");
        let [throughput, cpu, p50, p99] = ratios.map(median);
        let [control, ours] = absolute.map(median);
        table.row([
            name.into(),
            format!("{control:.0}"),
            format!("{ours:.0}"),
            format!("{throughput:.3}"),
            format!("{cpu:.3}"),
            format!("{p50:.3}"),
            format!("{p99:.3}"),
            each,
        ]);
        json.insert(
            name.into(),
            serde_json::json!({"throughput": throughput, "cpu": cpu, "p50": p50, "p99": p99}),
        );
    }
    table.print();
    println!("{}", serde_json::json!({"http_ratio": json, "pairs": pairs, "seconds": seconds}));
}
