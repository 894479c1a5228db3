//! What a change of a running service does to those who call it meanwhile: failed calls, and their p99 beside that of
//! a quiet time.
//!
//! `cargo bench --bench changes`; `ROUNDS` and `SECONDS` set how often and how long, `CONNECTIONS` how many HTTP
//! clients there are; four more callers use handles inside the server, a process of its own with two HTTP threads.
//! Quiet times and changes are interleaved.

#![expect(clippy::disallowed_methods, reason = "no replica runs on the threads that sleep here")]

mod clients;
#[path = "../measure/mod.rs"]
mod measure;
mod service;

use std::time::Duration;

use clients::{Calls, ask, load};
use measure::{Table, closed_loop::Server, env, median};

/// Each change, and what of it one request asks for in turn.
const CHANGES: [(&str, &[&str]); 5] = [
    ("roll", &["roll"]),
    ("rollback", &["roll", "rollback"]),
    ("reconfigure", &["reconfigure"]),
    ("scale 1 -> 8 -> 2", &["scale-1", "scale-8", "scale-2"]),
    ("controller killed", &["crash"]),
];
/// Between a change and the next.
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return actix_web::rt::System::new().block_on(service::run()).expect("the service");
    }
    let (rounds, seconds) = (env("ROUNDS", 7), env("SECONDS", 3) as f64);
    let connections = env("CONNECTIONS", 16);
    let server = Server::start("serve");
    let _ = load(&server, connections, 1.0, None);
    let mut table = Table::new([
        "change",
        "made",
        "calls",
        "failed",
        "quiet p99 us",
        "p99 us",
        "p99 ratio",
        "ratio by handle",
        "each",
    ]);
    let mut json = serde_json::Map::new();
    for (name, asked) in CHANGES {
        let (mut ratios, mut by_handle) = (Vec::new(), Vec::new());
        let (mut quiet_p99, mut p99) = (Vec::new(), Vec::new());
        let (mut calls, mut failed, mut made) = (0, 0, 0);
        for round in 0..rounds {
            let mut both = [(0, None), (1, Some(asked))];
            both.rotate_left(round % 2);
            let mut measured = both.map(|(i, changes)| {
                // What the last change left is done first.
                assert!(ask(&server, "base") && ask(&server, "clear"), "the base was refused");
                (i, load(&server, connections, seconds, changes))
            });
            measured.sort_by_key(|(i, _)| *i);
            let [(_, quiet), (_, changed)] = &measured;
            for Calls { http, handles, changes, .. } in [quiet, changed] {
                calls += http.answered + handles.answered;
                failed += http.failed + handles.failed;
                made += changes;
            }
            ratios.push(changed.http.p99_us / quiet.http.p99_us);
            by_handle.push(changed.handles.p99_us / quiet.handles.p99_us);
            quiet_p99.push(quiet.http.p99_us);
            p99.push(changed.http.p99_us);
        }
        let each = ratios.iter().map(|r| format!("{r:.2}")).collect::<Vec<_>>().join(" ");
        let [ratio, handle, quiet, during] = [ratios, by_handle, quiet_p99, p99].map(median);
        table.row([
            name.into(),
            made.to_string(),
            calls.to_string(),
            failed.to_string(),
            format!("{quiet:.0}"),
            format!("{during:.0}"),
            format!("{ratio:.2}"),
            format!("{handle:.2}"),
            each,
        ]);
        json.insert(
            name.into(),
            serde_json::json!({
                "made": made, "calls": calls, "failed": failed,
                "p99_ratio": ratio, "p99_ratio_by_handle": handle,
            }),
        );
    }
    table.print();
    println!("{}", serde_json::json!({ "changes": json }));
}
