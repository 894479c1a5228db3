//! `status`: backends, replicas, endpoints and GPUs as people read them.

use serde_json::Value as Json;

use super::{
    show::{list, progress, said},
    table::{Table, bytes, time},
};

/// The whole status.
pub(super) fn show(answer: &Json) -> String {
    let mut text = match progress(&answer["deploy"]) {
        Some(deploy) => format!("a deploy is under way: {deploy}\n\n"),
        None => String::new(),
    };
    if let Some(why) = answer["last_deploy"]["error"]["detail"].as_str() {
        text.push_str(&format!("the last deploy failed, and was taken back: {why}\n\n"));
    }
    let backends = list(&answer["backends"]);
    for table in [backends_table(backends), replicas_table(backends)] {
        if !table.is_empty() {
            text.push_str(&format!("{table}\n"));
        }
    }
    if backends.is_empty() {
        text.push_str("no backends\n\n");
    }
    text.push_str(&endpoints(list(&answer["endpoints"])));
    let gpus = list(&answer["gpus"]);
    for table in [gpus_table(gpus), leases_table(gpus)] {
        if !table.is_empty() {
            text.push_str(&format!("\n{table}"));
        }
    }
    text
}

fn backends_table(backends: &[Json]) -> Table {
    let mut table = Table::new(["BACKEND", "STATE", "FOR", "RUNNING", "VERSION", "REASON"]);
    for backend in backends {
        let config = &backend["config"];
        let running = list(&backend["replicas"]).iter().filter(|replica| is_running(replica)).count();
        let reasons = [&backend["reason"], &backend["last_error"]].map(said);
        table.row([
            said(&backend["name"]),
            said(&backend["state"]),
            since(backend),
            format!("{running} of {}", said(&config["num_replicas"])),
            said(&config["version"]),
            reasons.into_iter().find(|why| !why.is_empty()).unwrap_or_default(),
        ]);
    }
    table
}

fn replicas_table(backends: &[Json]) -> Table {
    let mut table = Table::new(["REPLICA", "STATE", "FOR", "CALLS", "RELEASE", "VERSION", "REASON"]);
    for replica in backends.iter().flat_map(|backend| list(&backend["replicas"])) {
        let id = &replica["id"];
        table.row([
            format!(
                "{}/{} (generation {})",
                said(&id["backend"]),
                said(&id["slot"]),
                said(&id["generation"])
            ),
            said(&replica["state"]),
            since(replica),
            said(&replica["load"]),
            said(&replica["release"]),
            said(&replica["version"]),
            said(&replica["reason"]),
        ]);
    }
    table
}

fn is_running(replica: &Json) -> bool {
    replica["state"].as_str().is_some_and(|state| state == "RUNNING")
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
        let seen: Vec<_> =
            seen.map(|seen| format!("{} {}", said(&seen["backend"]), said(&seen["requests"]))).collect();
        let shadows = list(&endpoint["shadow"]).iter();
        let shadows: Vec<_> =
            shadows.map(|rule| share(&said(&rule["backend"]), &rule["proportion"])).collect();
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

fn gpus_table(gpus: &[Json]) -> Table {
    let mut table = Table::new(["GPU", "NAME", "STATE", "DRIVER", "BUSY", "FREE", "MEMORY", "LOST"]);
    for gpu in gpus {
        table.row([
            said(&gpu["device"]),
            said(&gpu["name"]) + if gpu["software"] == true { " (software)" } else { "" },
            condition(&gpu["health"]).to_owned(),
            said(&gpu["driver"]),
            percent(&gpu["busy_share"]),
            percent(&gpu["free_share"]),
            memory(&gpu["memory_used_bytes"], &gpu["memory_bytes"]),
            said(&gpu["lost"]),
        ]);
    }
    table
}

/// How a device is; nothing where that is not told.
fn condition(health: &Json) -> &'static str {
    match (health["open"].as_bool(), health["suspect"].as_bool()) {
        (Some(false), _) => "closed",
        (_, Some(true)) => "held up",
        (Some(true), _) => "ok",
        _ => "",
    }
}

fn leases_table(gpus: &[Json]) -> Table {
    let head = [
        "SHARE OF",
        "GPU",
        "ASKED",
        "GOT",
        "OVERALL",
        "DEVICE TIME",
        "QUEUE WAIT",
        "JOBS",
        "SLICES",
        "MEMORY",
    ];
    let mut table = Table::new(head);
    let seconds = |value: &Json| format!("{:.3} s", value.as_f64().unwrap_or(0.0));
    for (gpu, lease) in gpus.iter().flat_map(|gpu| list(&gpu["leases"]).iter().map(move |lease| (gpu, lease)))
    {
        table.row([
            format!("{}/{}", said(&lease["backend"]), said(&lease["replica"])),
            said(&gpu["device"]),
            percent(&lease["share_asked"]),
            percent(&lease["share_got"]),
            percent(&lease["share_overall"]),
            seconds(&lease["device_time_s"]),
            seconds(&lease["queue_wait_s"]),
            said(&lease["jobs"]),
            said(&lease["slices"]),
            memory(&lease["memory_used_bytes"], &lease["memory_quota_bytes"]),
        ]);
    }
    table
}

/// `24.8%`.
fn percent(share: &Json) -> String {
    format!("{}%", (share.as_f64().unwrap_or(0.0) * 1000.0).round() / 10.0)
}

/// `3 MiB of 1 GiB`.
fn memory(used: &Json, all: &Json) -> String {
    let [used, all] = [used, all].map(|value| bytes(value.as_f64().unwrap_or(0.0)));
    format!("{used} of {all}")
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
            "deploy": {"state": "TAKING_BACK", "done": 1, "all": 3, "waits_for": "a: 1 of 2 replicas ready"},
            "last_deploy": {"error": {"code": "deploy_failed", "detail": "it did not start"}},
            "backends": [{
                "name": "a", "state": "UPDATING", "for_s": 4.2, "reason": "rolls to v2",
                "config": {"num_replicas": 2, "version": "v2"},
                "replicas": [replica(0, "RUNNING", None), replica(1, "STARTING", Some("loads"))],
            }],
            "endpoints": [{
                "name": "e", "route": "/e", "methods": ["GET", "POST"], "traffic": {"a": 0.9, "b": 0.1},
                "last_minute": [{"backend": "a", "requests": 9, "share": 1.0}],
                "shadow": [{"backend": "c", "proportion": 0.07, "copies": {}}],
            }],
        });
        let want = "\
a deploy is under way: taking back, 1 of 3 steps done: a: 1 of 2 replicas ready

the last deploy failed, and was taken back: it did not start

BACKEND  STATE     FOR  RUNNING  VERSION  REASON
a        UPDATING  4 s  1 of 2   v2       rolls to v2

REPLICA             STATE     FOR    CALLS  RELEASE  VERSION  REASON
a/0 (generation 7)  RUNNING   2 min  3      2        v2
a/1 (generation 7)  STARTING  2 min  3      2        v2       loads

ENDPOINT  ROUTE  METHODS    TRAFFIC       LAST MINUTE  COPIES TO
e         /e     GET, POST  a 90%, b 10%  a 9          c 7%
";
        assert_eq!(show(&status), want);
        assert_eq!(show(&json!({})), "no backends\n\nno endpoints\n");
    }

    #[test]
    fn every_gpu_and_every_share_of_one_is_shown() {
        let status = json!({"gpus": [{
            "device": 0, "name": "Some GPU", "software": false, "health": {"open": true, "suspect": false}, "driver": "1.2", "busy_share": 0.98765, "free_share": 0.25, "lost": 1,
            "memory_bytes": 4_u64 << 30, "memory_used_bytes": 3 << 19,
            "leases": [{
                "backend": "a", "replica": 2, "share_asked": 0.75, "share_got": 0.7512, "share_overall": 0.5,
                "device_time_s": 12.34567, "queue_wait_s": 0.25, "jobs": 90, "slices": 1234,
                "memory_used_bytes": 1000, "memory_quota_bytes": 3_u64 << 30,
            }],
        }]});
        let want = "\
no backends

no endpoints

GPU  NAME      STATE  DRIVER  BUSY   FREE  MEMORY            LOST
0    Some GPU  ok     1.2     98.8%  25%   1.5 MiB of 4 GiB  1

SHARE OF  GPU  ASKED  GOT    OVERALL  DEVICE TIME  QUEUE WAIT  JOBS  SLICES  MEMORY
a/2       0    75%    75.1%  50%      12.346 s     0.250 s     90    1234    1000 B of 3 GiB
";
        assert_eq!(show(&status), want);
    }

    #[test]
    fn a_gpu_in_trouble_and_one_in_software_are_told_from_the_others() {
        let gpu = |device, software, open, suspect| {
            json!({
                "device": device, "name": "G", "software": software, "health": {"open": open, "suspect": suspect},
                "busy_share": 0.0, "free_share": 1.0, "memory_bytes": 1024, "memory_used_bytes": 0, "lost": 0,
            })
        };
        let gpus = [gpu(0, false, true, false), gpu(1, true, true, true), gpu(2, false, false, true)];
        let want = "\
GPU  NAME          STATE    BUSY  FREE  MEMORY        LOST
0    G             ok       0%    100%  0 B of 1 KiB  0
1    G (software)  held up  0%    100%  0 B of 1 KiB  0
2    G             closed   0%    100%  0 B of 1 KiB  0
";
        assert_eq!(gpus_table(&gpus).to_string(), want);
    }
}
