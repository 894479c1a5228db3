//! `deploy`, `plan` and `rollback`: a whole configuration, with progress.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use clap::Args;
use greenroom::ServeConfig;
use serde_json::{Value as Json, json};

use super::{
    Done,
    client::{Client, Failed},
    output::note,
    show,
};

/// How often it is asked how far the service has come.
const LOOK: Duration = Duration::from_millis(200);
/// How often in a row that may fail.
const UNHEARD_MAX: u32 = 3;

/// How long a change may take, and whether its end is waited for.
#[derive(Args)]
pub(crate) struct Pace {
    /// Longest time in seconds; then the change is taken back. None: as long as its backends' own limits let it.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Waits, as long as the timeout, while not all of it fits beside what there is, instead of refusing it.
    #[arg(long, requires = "timeout")]
    wait_for_resources: bool,
    /// Answers when the change has begun; `status` shows how it goes.
    #[arg(long)]
    no_wait: bool,
}

impl Pace {
    /// How long the service takes, if it says so.
    fn takes(&self) -> Option<Duration> {
        if self.no_wait {
            return Some(Duration::ZERO);
        }
        self.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    fn query(&self) -> String {
        let timeout = self.timeout.map(|seconds| format!("&timeout_s={seconds}")).unwrap_or_default();
        format!("?wait={}&wait_for_resources={}{timeout}", !self.no_wait, self.wait_for_resources)
    }
}

pub(super) fn deploy(client: &Client, file: &Path, pace: &Pace) -> Done {
    let path = format!("/api/serve/config{}", pace.query());
    run(client, "PUT", path, read(file)?, pace)
}

pub(super) fn plan(client: &Client, file: &Path) -> Done {
    let path = "/api/serve/config?dry_run=true";
    let answer = client.long_change("PUT", path, &read(file)?, Some(Duration::ZERO))?;
    Ok((show::plan(&answer.json), answer.raw))
}

pub(super) fn rollback(client: &Client, to: Option<u64>, pace: &Pace) -> Done {
    let body = to.map_or_else(|| json!({}), |to| json!({ "to": to }));
    run(client, "POST", format!("/api/serve/rollback{}", pace.query()), body, pace)
}

/// What the file declares, checked here, where lines and columns are known.
fn read(file: &Path) -> Result<Json, Failed> {
    let other = |what: String| Failed::Other(what);
    let text = std::fs::read_to_string(file)
        .map_err(|error| other(format!("{} cannot be read: {error}", file.display())))?;
    let config = ServeConfig::from_yaml(&text, &folder(file)?)
        .map_err(|error| other(format!("{}: {error}", file.display())))?;
    serde_json::to_value(config).map_err(|error| other(error.to_string()))
}

/// The file's folder as seen from everywhere: the service may have been started in another one.
fn folder(file: &Path) -> Result<PathBuf, Failed> {
    let whole = std::path::absolute(file)
        .map_err(|error| Failed::Other(format!("{}: its folder cannot be told: {error}", file.display())))?;
    Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Asks for the change and, until there is an answer, tells how far it has come.
fn run(client: &Client, method: &'static str, path: String, body: Json, pace: &Pace) -> Done {
    let (tx, rx) = sync_channel(1);
    let (asking, takes) = (client.clone(), pace.takes());
    let ask = move || drop(tx.send(asking.long_change(method, &path, &body, takes)));
    std::thread::Builder::new()
        .spawn(ask)
        .map_err(|error| Failed::Other(format!("no thread to ask with: {error}")))?;
    let mut told = String::new();
    // How often, and since when, nothing can be heard of it.
    let mut unheard: Option<(u32, Instant)> = None;
    let answer = loop {
        match rx.recv_timeout(LOOK) {
            Ok(answer) => break answer?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failed::Other("the request ended without an answer".into()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        match client.get("/api/serve/progress").map(|answer| show::progress(&answer.json["deploy"])) {
            Ok(line) => {
                unheard = None;
                if let Some(line) = line.filter(|line| *line != told) {
                    note(&line);
                    told = line;
                }
            }
            // Once matters to nobody: the answer will say what is wrong, unless there never is one.
            Err(why) => {
                let (times, since) = unheard.map_or((1, Instant::now()), |(times, since)| (times + 1, since));
                if times >= UNHEARD_MAX && since.elapsed() >= client.soon() {
                    return Err(why);
                }
                unheard = Some((times, since));
            }
        }
    };
    let text = match pace.no_wait {
        true => format!("{}begun; `greenroom status` shows how it goes\n", show::changed(&answer.json)),
        false => show::changed(&answer.json),
    };
    Ok((text, answer.raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::unanswered;

    #[test]
    fn a_deploy_is_given_up_when_nothing_is_heard_of_it_any_more() {
        let (_listener, client) = unanswered();
        // Its answer itself may take for ever.
        let pace = Pace { timeout: None, wait_for_resources: false, no_wait: false };
        let Err(Failed::Other(why)) = run(&client, "PUT", "/".into(), json!({}), &pace) else { panic!() };
        assert!(why.contains("in time"), "{why}");
    }
}
