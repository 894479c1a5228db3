//! `Client`: asks the admin API of a running service, in another process.

use std::{fmt, io, time::Duration};

use serde_json::Value as Json;
use ureq::{Agent, http::Request};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Longest time until a connection stands, and until an answer comes that waits for little.
const SOON: Duration = Duration::from_secs(30);
/// So many times as long may an answer take for which models are read or what was done is taken back.
const PATIENT: u32 = 10;

/// The admin API at one address.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    address: String,
    soon: Duration,
}

/// An answer: what it says, and how it came.
pub(super) struct Answer {
    pub(super) json: Json,
    pub(super) raw: String,
}

/// Why there is no answer, or none that was hoped for.
#[derive(Debug, PartialEq)]
pub(super) enum Failed {
    /// The command line is wrong.
    Usage(String),
    /// Nobody is there.
    Absent(String),
    /// The service refused, or could not.
    Refused {
        detail: String,
        /// The whole problem document, as it came.
        document: String,
    },
    /// Something in between: a file, the network.
    Other(String),
}

impl Client {
    pub(super) fn new(address: &str) -> Result<Self, Failed> {
        Self::with_limit(address, SOON)
    }

    /// One to which `soon` is that long.
    pub(super) fn with_limit(address: &str, soon: Duration) -> Result<Self, Failed> {
        let address = address.trim_end_matches('/');
        if !address.starts_with("http://") {
            let what =
                format!("the address {address:?} does not begin with http://, as in http://127.0.0.1:8265");
            return Err(Failed::Usage(what));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // What is steered is this machine, whatever proxy the environment names.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(soon))
            .user_agent(concat!("greenroom/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), address: address.into(), soon })
    }

    /// Asks for what is there.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Failed> {
        self.ask("GET", path, None, Some(self.soon))
    }

    /// Asks for a change that is made at once.
    pub(super) fn change(&self, method: &str, path: &str, body: &Json) -> Result<Answer, Failed> {
        self.ask(method, path, Some(body.to_string()), Some(self.soon))
    }

    /// Asks for something that takes as long as this, and then some; None: however long, the service knows its limits.
    pub(super) fn long_change(
        &self,
        method: &str,
        path: &str,
        body: &Json,
        takes: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let limit = takes.map(|takes| takes.saturating_add(self.soon.saturating_mul(PATIENT)));
        self.ask(method, path, Some(body.to_string()), limit)
    }

    /// Takes something away that takes as long as this to go.
    pub(super) fn delete(&self, path: &str, takes: Duration) -> Result<Answer, Failed> {
        self.ask("DELETE", path, None, Some(takes.saturating_add(self.soon)))
    }

    /// How long somebody is waited for who answers nothing.
    pub(super) fn soon(&self) -> Duration {
        self.soon
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        limit: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let absent = |error| self.absent(error);
        let request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        let answer = match body {
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| {
                self.agent.run(self.agent.configure_request(request).timeout_global(limit).build())
            }),
            Some(body) => request
                .header("content-type", "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| {
                    self.agent.run(self.agent.configure_request(request).timeout_global(limit).build())
                }),
        };
        let mut answer = answer.map_err(absent)?;
        let status = answer.status();
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(absent)?;
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        let Ok(json) = serde_json::from_str::<Json>(&raw) else {
            let what = format!("what answers at {} ({status}) is no admin API of greenroom", self.address);
            return Err(Failed::Other(what));
        };
        if status.is_success() {
            return Ok(Answer { json, raw });
        }
        let detail = json["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(Failed::Refused { detail, document: raw })
    }

    fn absent(&self, error: ureq::Error) -> Failed {
        let nobody = match &error {
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                return Failed::Usage(format!("the address {:?} is none: {error}", self.address));
            }
            _ => false,
        };
        let address = &self.address;
        if nobody {
            return Failed::Absent(format!(
                "nothing listens at {address}: is `greenroom run` running? It tells where as `admin on ...`; \
                 --address takes that"
            ));
        }
        if matches!(error, ureq::Error::Timeout(_)) {
            return Failed::Other(format!(
                "no answer from {address} in time ({error}); a change that was asked for may still be made, as \
                 `greenroom status` shows"
            ));
        }
        Failed::Other(format!("no answer from {address}: {error}"))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Absent(what) | Self::Other(what) => f.write_str(what),
            Self::Refused { detail, .. } => f.write_str(detail),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
