//! Our counters as Prometheus text.

use std::fmt::{Display, Write};

use crate::metrics::{
    Aside,
    cells::{BATCH_BUCKETS, BUCKETS_US, Reading},
    registry::{BackendReading, Registry, SlotReading},
};

/// Everything in the registry, one family after the other.
pub(crate) fn render(registry: &Registry, aside: &Aside) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let backends = registry.read_backends();
    let total = |read: fn(&BackendReading) -> u64| {
        let row = |backend: &BackendReading| (format!("backend=\"{}\"", backend.name), read(backend));
        backends.iter().map(row).collect::<Vec<_>>()
    };
    let each = |read: fn(&SlotReading) -> u64| {
        let mut rows = Vec::new();
        for BackendReading { name, slots, .. } in &backends {
            rows.extend(slots.iter().map(|(slot, r)| (replica(name, *slot), read(r))));
        }
        rows
    };
    let waiting = |(name, calls): &(_, usize)| (format!("backend=\"{name}\""), *calls as u64);
    let families = [
        (
            "serve_backend_request_counter_total",
            "counter",
            "Requests that a backend has answered, or that ended at their deadline. Those whose callers left \
             before are not among them.",
            total(BackendReading::requests),
        ),
        (
            "serve_backend_error_counter_total",
            "counter",
            "Requests that a backend has answered with an error, or that ended at their deadline.",
            total(BackendReading::errors),
        ),
        (
            "serve_replica_restarts_total",
            "counter",
            "Restarts of a replica after a failure.",
            each(|r| r.restarts),
        ),
        (
            "serve_backend_replica_starts_total",
            "counter",
            "Starts of a replica, the first ones included.",
            each(|r| r.starts),
        ),
        (
            "serve_replica_ejections_total",
            "counter",
            "Replicas replaced because they failed requests that their siblings did not.",
            total(|backend| backend.ejections),
        ),
        ("serve_replica_queued_queries", "gauge", "Calls that wait at a replica.", each(|r| r.queued as u64)),
        (
            "serve_replica_processing_queries",
            "gauge",
            "Calls that a replica is handling.",
            each(|r| r.running as u64),
        ),
        (
            "serve_backend_waiting_queries",
            "gauge",
            "Calls that wait for the next replica, while the only one is replaced.",
            aside.waiting.iter().map(waiting).collect(),
        ),
        (
            "serve_overload_refused_total",
            "counter",
            "Calls refused because the backend admits no more.",
            total(|backend| backend.refused),
        ),
    ];
    for (name, kind, help, rows) in families {
        family(&mut out, name, kind, help, rows);
    }
    head(&mut out, "serve_backend_queuing_latency_ms", "histogram", "Time from taken by a replica to begun.");
    for BackendReading { name, slots, .. } in &backends {
        for (slot, r) in slots {
            latency(&mut out, "serve_backend_queuing_latency_ms", &replica(name, *slot), &r.queuing);
        }
    }
    head(&mut out, "serve_backend_processing_latency_ms", "histogram", "Time from begun to answered.");
    for BackendReading { name, slots, .. } in &backends {
        for (slot, r) in slots {
            latency(&mut out, "serve_backend_processing_latency_ms", &replica(name, *slot), &r.processing);
        }
    }
    head(&mut out, "serve_batch_size", "histogram", "Requests in a batch.");
    for BackendReading { name, slots, .. } in &backends {
        for (slot, r) in slots.iter().filter(|(_, r)| r.batches.count() > 0) {
            let bounds = BATCH_BUCKETS.map(|bound| bound as f64);
            histogram(
                &mut out,
                "serve_batch_size",
                &replica(name, *slot),
                &bounds,
                &r.batches,
                r.batches.sum as f64,
            );
        }
    }
    let routed = registry.read_routed().into_iter();
    let routed = routed.map(|((e, b), n)| (format!("endpoint=\"{e}\",backend=\"{b}\""), n)).collect();
    family(&mut out, "serve_num_router_requests_total", "counter", "Requests routed.", routed);
    let shadows = registry.read_shadows();
    let outcomes = shadows.iter().flat_map(|((e, b), copies)| {
        let row = move |(outcome, n)| (format!("endpoint=\"{e}\",backend=\"{b}\",outcome=\"{outcome}\""), n);
        copies.outcomes().map(row)
    });
    family(
        &mut out,
        "serve_shadow_requests_total",
        "counter",
        "Copies of requests for shadow backends, by what became of them.",
        outcomes.collect(),
    );
    let comparisons = registry.read_comparisons();
    let outcomes = comparisons.iter().flat_map(|((e, b), (shadow, itself))| {
        let row = move |kind: &str, (outcome, n): (&str, u64)| {
            (format!("endpoint=\"{e}\",backend=\"{b}\",outcome=\"{kind}{outcome}\""), n)
        };
        let shadow = shadow.outcomes().map(|count| row("", count));
        shadow.into_iter().chain(itself.outcomes().map(|count| row("noise_", count)))
    });
    family(
        &mut out,
        "serve_shadow_comparisons_total",
        "counter",
        "Answers of shadow backends compared with those of callers, by what came of it; noise_: the serving \
         backend compared with itself.",
        outcomes.collect(),
    );
    let http = registry.read_http().into_iter().map(|(k, n)| {
        (format!("route=\"{}\",method=\"{}\",status_code=\"{}\"", escape(&k.route), k.method, k.status), n)
    });
    family(&mut out, "serve_num_http_requests_total", "counter", "HTTP requests answered.", http.collect());
    let own = aside.own_restarts.iter().map(|(kind, n)| (format!("actor=\"{kind}\""), *n)).collect();
    family(&mut out, "serve_actor_restarts_total", "counter", "Restarts of the runtime's own actors.", own);
    let build = vec![(format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1)];
    family(&mut out, "serve_build_info", "gauge", "The running version.", build);
    out
}

fn replica(backend: impl Display, slot: u32) -> String {
    format!("backend=\"{backend}\",replica=\"{slot}\"")
}

pub(super) fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

// Writing to a String cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(super) fn family<V: Display>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    rows: Vec<(String, V)>,
) {
    head(out, name, kind, help);
    for (labels, value) in rows {
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
}

fn latency(out: &mut String, name: &str, labels: &str, reading: &Reading<16>) {
    let bounds = BUCKETS_US.map(|micros| micros as f64 / 1e3);
    histogram(out, name, labels, &bounds, reading, reading.sum as f64 / 1e6);
}

fn histogram<const N: usize>(
    out: &mut String,
    name: &str,
    labels: &str,
    bounds: &[f64; N],
    reading: &Reading<N>,
    sum: f64,
) {
    let mut below = 0;
    for (bound, count) in bounds.iter().zip(reading.buckets) {
        below += count;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
    }
    let count = reading.count();
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
}
