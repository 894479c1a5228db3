//! `status`: backends, replicas and endpoints as people read them.

use serde_json::Value as Json;

use super::{
    show::{list, progress, said},
    table::{Table, time},
};

/// The whole status.
pub(super) fn show(answer: &Json) -> String {
    let mut text = match progress(&answer["deploy"]) {
        Some(deploy) => format!("a deploy is under way: {deploy}\n\n"),
        None => String::new(),
    };
    let backends = list(&answer["backends"]);
    if backends.is_empty() {
        text.push_str("no backends\n");
    }
    for (i, backend) in backends.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&show_backend(backend));
    }
    text.push('\n');
    text.push_str(&endpoints(list(&answer["endpoints"])));
    text
}

fn show_backend(backend: &Json) -> String {
    let config = &backend["config"];
    let replicas = list(&backend["replicas"]);
    let running = replicas.iter().filter(|replica| is_running(replica)).count();
    let mut head = Table::new(["BACKEND", "STATE", "FOR", "RUNNING", "VERSION", "REASON"]);
    let reason = [&backend["reason"], &backend["last_error"]].map(said).into_iter().find(|why| !why.is_empty());
    head.row([
        said(&backend["name"]),
        said(&backend["state"]).to_uppercase(),
        since(backend),
        format!("{running} of {}", said(&config["num_replicas"])),
        said(&config["version"]),
        reason.unwrap_or_default(),
    ]);
    let mut below = Table::new(["REPLICA", "STATE", "FOR", "CALLS", "RELEASE", "VERSION", "REASON"]).indented(2);
    for replica in replicas {
        let id = &replica["id"];
        below.row([
            format!("{} (generation {})", said(&id["slot"]), said(&id["generation"])),
            said(&replica["state"]).to_uppercase(),
            since(replica),
            said(&replica["load"]),
            said(&replica["release"]),
            said(&replica["version"]),
            said(&replica["reason"]),
        ]);
    }
    if below.is_empty() { head.to_string() } else { format!("{head}{below}") }
}

fn is_running(replica: &Json) -> bool {
    replica["state"].as_str().is_some_and(|state| state.eq_ignore_ascii_case("running"))
}

fn since(of: &Json) -> String {
    of["for_s"].as_f64().map(time).unwrap_or_default()
}

fn endpoints(endpoints: &[Json]) -> String {
    let mut table = Table::new(["ENDPOINT", "ROUTE", "METHODS", "TRAFFIC", "LAST MINUTE", "COPIES TO"]);
    for endpoint in endpoints {
        let methods: Vec<_> = list(&endpoint["methods"]).iter().map(said).collect();
        let weights = endpoint["traffic"].as_object().into_iter().flatten();
        let traffic: Vec<_> = weights.map(|(name, weight)| share(name, weight)).collect();
        let seen = list(&endpoint["last_minute"]).iter();
        let seen: Vec<_> = seen.map(|seen| format!("{} {}", said(&seen["backend"]), said(&seen["requests"]))).collect();
        let shadows = list(&endpoint["shadow"]).iter();
        let shadows: Vec<_> = shadows.map(|rule| share(&said(&rule["backend"]), &rule["proportion"])).collect();
        table.row([
            said(&endpoint["name"]),
            said(&endpoint["route"]),
            methods.join(", "),
            traffic.join(", "),
            seen.join(", "),
            shadows.join(", "),
        ]);
    }
    if table.is_empty() { "no endpoints\n".into() } else { table.to_string() }
}

/// `digits 90%`.
fn share(name: &str, weight: &Json) -> String {
    // Without the last digits, which are those of the multiplication.
    let percent = (weight.as_f64().unwrap_or(0.0) * 1e8).round() / 1e6;
    format!("{name} {percent}%")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_backend_replica_and_endpoint_is_shown_with_state_reason_and_since_when() {
        let replica = |slot, state, reason: Option<&str>| {
            json!({
                "id": {"backend": "a", "slot": slot, "generation": 7}, "state": state, "for_s": 130.0, "load": 3,
                "release": 2, "version": "v2", "reason": reason,
            })
        };
        let status = json!({
            "deploy": null,
            "backends": [{
                "name": "a", "state": "UPDATING", "for_s": 4.2, "reason": "rolls to v2",
                "config": {"num_replicas": 2, "version": "v2"},
                "replicas": [replica(0, "Running", None), replica(1, "Starting", Some("loads"))],
            }],
            "endpoints": [{
                "name": "e", "route": "/e", "methods": ["GET", "POST"], "traffic": {"a": 0.9, "b": 0.1},
                "last_minute": [{"backend": "a", "requests": 9, "share": 1.0}],
                "shadow": [{"backend": "c", "proportion": 0.07, "copies": {}}],
            }],
        });
        let want = "\
BACKEND  STATE     FOR  RUNNING  VERSION  REASON
a        UPDATING  4 s  1 of 2   v2       rolls to v2
  REPLICA           STATE     FOR    CALLS  RELEASE  VERSION  REASON
  0 (generation 7)  RUNNING   2 min  3      2        v2
  1 (generation 7)  STARTING  2 min  3      2        v2       loads

ENDPOINT  ROUTE  METHODS    TRAFFIC       LAST MINUTE  COPIES TO
e         /e     GET, POST  a 90%, b 10%  a 9          c 7%
";
        assert_eq!(show(&status), want);
        assert_eq!(show(&json!({})), "no backends\n\nno endpoints\n");
    }
}
