//! `deploy`, `plan` and `rollback`: a whole configuration, with progress.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
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
    let answer = client.change("PUT", "/api/serve/config?dry_run=true", &read(file)?)?;
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
    let asking = client.clone();
    let ask = move || drop(tx.send(asking.change(method, &path, &body)));
    std::thread::Builder::new()
        .spawn(ask)
        .map_err(|error| Failed::Other(format!("no thread to ask with: {error}")))?;
    let mut told = String::new();
    let answer = loop {
        match rx.recv_timeout(LOOK) {
            Ok(answer) => break answer?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failed::Other("the request ended without an answer".into()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // That it cannot be told matters to nobody: the answer will say what is wrong.
        let progress = client.get("/api/serve/progress").map(|answer| show::progress(&answer.json["deploy"]));
        if let Ok(Some(line)) = progress
            && line != told
        {
            note(&line);
            told = line;
        }
    };
    let text = match pace.no_wait {
        true => format!("{}begun; `greenroom status` shows how it goes\n", show::changed(&answer.json)),
        false => show::changed(&answer.json),
    };
    Ok((text, answer.raw))
}
