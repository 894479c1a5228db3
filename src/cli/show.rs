//! Answers of the admin API as people read them.

use std::path::Path;

use greenroom::{AdminConfig, BackendDecl, Capacity, EndpointDecl, HttpConfig, ServeConfig};
use serde::Serialize;
use serde_json::Value as Json;

use super::table::{Table, instant};

/// A configuration; with sections of servers only where they were told.
#[derive(Serialize)]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<&'a HttpConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<&'a AdminConfig>,
    state: Option<&'a Path>,
    takeover: Option<&'a Path>,
    capacity: &'a Capacity,
    backends: &'a [BackendDecl],
    endpoints: &'a [EndpointDecl],
}

/// A configuration, in the order that a file has.
pub(super) fn config(answer: &Json) -> String {
    let text = match ServeConfig::from_json(answer.clone(), Path::new("")) {
        Ok(config) => {
            let told = |section| answer.get(section).is_some();
            serde_json::to_string_pretty(&File {
                http: Some(&config.http).filter(|_| told("http")),
                admin: Some(&config.admin).filter(|_| told("admin")),
                state: config.state.as_deref(),
                takeover: config.takeover.as_deref(),
                capacity: &config.capacity,
                backends: &config.backends,
                endpoints: &config.endpoints,
            })
        }
        // One that this version does not know all of.
        Err(_) => serde_json::to_string_pretty(answer),
    };
    text.unwrap_or_default()
}

/// What a change did.
pub(super) fn changed(answer: &Json) -> String {
    let table = steps(&answer["changed"]);
    if table.is_empty() {
        return "nothing to do: all is so already\n".into();
    }
    match answer["id"].as_u64() {
        Some(id) => format!("{table}applied as number {id}\n"),
        None => table.to_string(),
    }
}

/// What a deploy would do.
pub(super) fn plan(answer: &Json) -> String {
    let table = steps(&answer["steps"]);
    let mut text = if table.is_empty() { "nothing to do\n".into() } else { table.to_string() };
    let mut drift = Table::new(["KIND", "NAME", "BY HAND"]).indented(2);
    for item in list(&answer["drift"]) {
        for why in reasons(&item["what"]) {
            drift.row([said(&item["subject"]), said(&item["name"]), why]);
        }
    }
    if !drift.is_empty() {
        text.push_str("changed by hand since it was declared, and overwritten by this:\n");
        text.push_str(&drift.to_string());
    }
    text
}

fn steps(steps: &Json) -> Table {
    let mut table = Table::new(["ACTION", "KIND", "NAME", "WHY"]);
    for step in list(steps) {
        let why = reasons(&step["why"]);
        let first = why.first().cloned().unwrap_or_default();
        table.row([said(&step["action"]), said(&step["subject"]), said(&step["name"]), first]);
        for more in why.into_iter().skip(1) {
            table.row([String::new(), String::new(), String::new(), more]);
        }
    }
    table
}

fn reasons(why: &Json) -> Vec<String> {
    list(why).iter().map(|reason| said(&reason["text"])).collect()
}

/// How far a deploy has come, if one is under way.
pub(super) fn progress(deploy: &Json) -> Option<String> {
    if deploy.is_null() {
        return None;
    }
    let (done, all) = (said(&deploy["done"]), said(&deploy["all"]));
    let state = said(&deploy["state"]).replace('_', " ").to_lowercase();
    let waits = said(&deploy["waits_for"]);
    let waits = if waits.is_empty() { waits } else { format!(": {waits}") };
    Some(format!("{state}, {done} of {all} steps done{waits}"))
}

/// What was deployed, oldest first.
pub(super) fn history(answer: &Json) -> String {
    let mut table = Table::new(["NUMBER", "AT", "BY", "BACKENDS", "ENDPOINTS"]);
    for entry in list(&answer["history"]) {
        let config = &entry["config"];
        let at = instant(entry["at"].as_f64().unwrap_or(0.0));
        table.row([
            said(&entry["id"]),
            at,
            said(&entry["by"]),
            names(config, "backends"),
            names(config, "endpoints"),
        ]);
    }
    if table.is_empty() { "nothing was deployed as a whole yet\n".into() } else { table.to_string() }
}

fn names(config: &Json, key: &str) -> String {
    list(&config[key]).iter().map(|one| said(&one["name"])).collect::<Vec<_>>().join(", ")
}

pub(super) fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text without its quotes; nothing for null.
pub(super) fn said(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
