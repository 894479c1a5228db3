//! The commands that steer a running service, over its admin API.

mod client;
mod deploy;
mod output;
mod show;
mod status;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use self::{
    client::{Client, Failed},
    deploy::Pace,
    output::tell,
};

/// Where the service is, and for whom its answer is.
#[derive(Args)]
pub(crate) struct Service {
    /// The service's admin API, as `greenroom run` tells it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8265")]
    address: String,
    /// For machines: the answer as it came, also that of an error.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Makes the service what a configuration file declares, all of it or nothing.
    Deploy {
        /// The configuration file.
        file: PathBuf,
        #[command(flatten)]
        pace: Pace,
        #[command(flatten)]
        service: Service,
    },
    /// Tells what `deploy` would do with a file, and why; nothing changes.
    Plan {
        /// The configuration file.
        file: PathBuf,
        #[command(flatten)]
        service: Service,
    },
    /// Shows backends, replicas and endpoints as they are.
    Status {
        #[command(flatten)]
        service: Service,
    },
    /// Shows everything that is wanted now, in the form of a configuration file (JSON, which is YAML too).
    Config {
        #[command(flatten)]
        service: Service,
    },
    /// Sends an endpoint's requests to backends by weights that add up to 1.
    Traffic {
        endpoint: String,
        /// A backend and its weight: `digits=0.9`.
        #[arg(required = true, value_name = "BACKEND=WEIGHT", value_parser = weight)]
        weights: Vec<(String, f64)>,
        #[command(flatten)]
        service: Service,
    },
    /// Sends copies of a share of an endpoint's requests to a backend too; 0 ends it.
    Shadow {
        endpoint: String,
        backend: String,
        /// The share, from 0 to 1.
        proportion: f64,
        #[command(flatten)]
        service: Service,
    },
    /// Goes back to a configuration that was deployed before: the one before the last, or the one given.
    Rollback {
        /// Its number in `history`.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        to: Option<u64>,
        #[command(flatten)]
        pace: Pace,
        #[command(flatten)]
        service: Service,
    },
    /// Lists the configurations that were deployed.
    History {
        #[command(flatten)]
        service: Service,
    },
    /// Deletes a backend or an endpoint.
    Delete {
        #[command(subcommand)]
        what: Gone,
    },
    /// Ends the service in order: what runs is finished first.
    Shutdown {
        #[command(flatten)]
        service: Service,
    },
}

#[derive(Subcommand)]
pub(crate) enum Gone {
    /// A backend, which no endpoint may name any more; its replicas finish what they have.
    Backend {
        name: String,
        /// Does not wait for what its replicas still run.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        service: Service,
    },
    /// An endpoint; its backends stay.
    Endpoint {
        name: String,
        #[command(flatten)]
        service: Service,
    },
}

/// `NAME=WEIGHT`.
fn weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("{text:?} is no BACKEND=WEIGHT, as in digits=0.9");
    let (name, weight) = text.rsplit_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), weight.parse().map_err(|_| wrong())?))
}

/// Does it. 0: done; 1: refused or failed; 2: the command line is wrong.
pub(crate) fn run(verb: Verb) -> ExitCode {
    let service = verb.service();
    let machine = service.json;
    let done = Client::new(&service.address).and_then(|client| act(&client, &verb));
    match done {
        Ok((_, raw)) if machine => tell(&raw),
        Ok((text, _)) => tell(&text),
        Err(failed) => {
            match &failed {
                Failed::Refused { document, .. } if machine => drop(tell(document)),
                other => eprintln!("greenroom: {other}"),
            }
            ExitCode::from(if matches!(failed, Failed::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// What is told to people, and what was answered, as it came.
type Done = Result<(String, String), Failed>;

fn act(client: &Client, verb: &Verb) -> Done {
    let read =
        |path, show: fn(&Json) -> String| client.get(path).map(|answer| (show(&answer.json), answer.raw));
    match verb {
        Verb::Deploy { file, pace, .. } => deploy::deploy(client, file, pace),
        Verb::Plan { file, .. } => deploy::plan(client, file),
        Verb::Rollback { to, pace, .. } => deploy::rollback(client, *to, pace),
        Verb::Status { .. } => read("/api/serve/status", status::show),
        Verb::Config { .. } => read("/api/serve/config", show::config),
        Verb::History { .. } => read("/api/serve/history", show::history),
        Verb::Traffic { endpoint, weights, .. } => {
            let mut policy = serde_json::Map::new();
            for (name, weight) in weights {
                if policy.insert(name.clone(), json!(weight)).is_some() {
                    return Err(Failed::Usage(format!("backend {name} is given twice")));
                }
            }
            let path = format!("/api/serve/endpoints/{}/traffic", segment(endpoint));
            change(client, "PUT", &path, &Json::Object(policy))
        }
        Verb::Shadow { endpoint, backend, proportion, .. } => {
            let path = format!("/api/serve/endpoints/{}/shadow/{}", segment(endpoint), segment(backend));
            change(client, "PUT", &path, &json!({ "proportion": proportion }))
        }
        Verb::Delete { what: Gone::Backend { name, force, .. } } => {
            let path = format!("/api/serve/backends/{}", segment(name));
            // Its replicas finish what they have.
            let drains = match force {
                true => None,
                false => client
                    .get(&path)
                    .ok()
                    .and_then(|there| there.json["graceful_shutdown_timeout_s"].as_f64()),
            };
            let drains = drains.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            gone(client, &format!("{path}?force={force}"), drains.unwrap_or_default())
        }
        Verb::Delete { what: Gone::Endpoint { name, .. } } => {
            gone(client, &format!("/api/serve/endpoints/{}", segment(name)), Duration::ZERO)
        }
        Verb::Shutdown { .. } => {
            let answer = client.change("POST", "/api/serve/shutdown", &json!({}))?;
            Ok(("the service ends\n".into(), answer.raw))
        }
    }
}

fn change(client: &Client, method: &str, path: &str, body: &Json) -> Done {
    client.change(method, path, body).map(|answer| (show::changed(&answer.json), answer.raw))
}

fn gone(client: &Client, path: &str, takes: Duration) -> Done {
    client.delete(path, takes).map(|answer| (show::changed(&answer.json), answer.raw))
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Verb {
    fn service(&self) -> &Service {
        match self {
            Self::Deploy { service, .. }
            | Self::Plan { service, .. }
            | Self::Status { service }
            | Self::Config { service }
            | Self::Traffic { service, .. }
            | Self::Shadow { service, .. }
            | Self::Rollback { service, .. }
            | Self::History { service }
            | Self::Delete { what: Gone::Backend { service, .. } | Gone::Endpoint { service, .. } }
            | Self::Shutdown { service } => service,
        }
    }
}
