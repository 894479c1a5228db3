//! The files of a state directory as text: JSON for people and for the next process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::saved::{Applied, Given, Saved};
use crate::{
    config::{BackendDecl, EndpointDecl, ServeConfig},
    error::ServeError,
};

/// The form that is written here, and the last one that can be read.
pub(super) const FORMAT: u64 = 1;

/// Why a text is not what was written.
#[derive(Debug, PartialEq)]
pub(super) enum Mistake {
    Damaged { place: Box<str>, why: Box<str> },
    FromTheFuture { format: u64 },
}

impl Mistake {
    fn damaged(place: impl Into<Box<str>>, why: impl Into<Box<str>>) -> Self {
        Self::Damaged { place: place.into(), why: why.into() }
    }

    /// The same mistake where the first of a list was the one at `index`.
    fn moved(self, first: &str, index: usize) -> Self {
        match self {
            Self::Damaged { place, why } => {
                Self::damaged(place.replacen(first, &first.replace('0', &index.to_string()), 1), why)
            }
            future @ Self::FromTheFuture { .. } => future,
        }
    }
}

/// What `state.json` says; what changes rarely is in files of its own, which it names.
#[derive(Debug)]
pub(super) struct State {
    pub(super) sequence: u64,
    pub(super) desired: ServeConfig,
    pub(super) given: Given,
    /// The file with what was declared as a whole.
    pub(super) declared: Option<String>,
    /// The file with what the file of `run FILE` said.
    pub(super) file: Option<String>,
    /// The numbers of the history's files.
    pub(super) history: Vec<u64>,
}

/// The text of `state.json`.
pub(super) fn state(
    saved: &Saved,
    sequence: u64,
    [declared, file]: [Option<&str>; 2],
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Text<'a> {
        format: u64,
        sequence: u64,
        written_by: &'a str,
        declared: Option<&'a str>,
        file: Option<&'a str>,
        history: Vec<u64>,
        desired: &'a ServeConfig,
        given: GivenText<'a>,
    }
    #[derive(Serialize)]
    struct GivenText<'a> {
        backends: Vec<&'a BackendDecl>,
        endpoints: Vec<&'a EndpointDecl>,
    }
    text(&Text {
        format: FORMAT,
        sequence,
        written_by: concat!("greenroom ", env!("CARGO_PKG_VERSION")),
        declared,
        file,
        history: saved.history.iter().map(|applied| applied.id).collect(),
        desired: &saved.desired,
        given: GivenText {
            backends: saved.given.backends.values().collect(),
            endpoints: saved.given.endpoints.values().collect(),
        },
    })
}

/// The text of a file with what was declared.
pub(super) fn declared(config: &ServeConfig) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Text<'a> {
        format: u64,
        config: &'a ServeConfig,
    }
    text(&Text { format: FORMAT, config })
}

/// The text of a file of the history.
pub(super) fn applied(applied: &Applied) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Text<'a> {
        format: u64,
        #[serde(flatten)]
        applied: &'a Applied,
    }
    text(&Text { format: FORMAT, applied })
}

fn text(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads `state.json`.
pub(super) fn read_state(bytes: &[u8]) -> Result<State, Mistake> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        #[serde(rename = "format")]
        _format: u64,
        sequence: u64,
        #[serde(rename = "written_by")]
        _written_by: String,
        declared: Option<String>,
        file: Option<String>,
        history: Vec<u64>,
        desired: Value,
        given: GivenText,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct GivenText {
        backends: Vec<Value>,
        endpoints: Vec<Value>,
    }
    let Text { sequence, declared, file, history, desired, given, .. } = read(bytes)?;
    let backends = config(json!({ "backends": given.backends }), "given")?.backends;
    let mut endpoints = BTreeMap::new();
    for (index, endpoint) in given.endpoints.into_iter().enumerate() {
        // Each for itself: what was given for one may contradict what was given for another, or later.
        let named = json!({ "backends": backends_of(&endpoint), "endpoints": [endpoint] });
        let read = config(named, "given").map_err(|mistake| mistake.moved("endpoints[0]", index))?;
        endpoints.extend(read.endpoints.into_iter().map(|endpoint| (endpoint.name.clone(), endpoint)));
    }
    let given =
        Given { backends: backends.into_iter().map(|decl| (decl.name.clone(), decl)).collect(), endpoints };
    Ok(State { sequence, desired: config(desired, "desired")?, given, declared, file, history })
}

/// Stand-ins for the backends that a written endpoint names, so that it can be read alone.
fn backends_of(endpoint: &Value) -> Vec<Value> {
    let keys =
        |key: &str| endpoint.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
    let mut names: Vec<&String> = keys("traffic").chain(keys("shadow")).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| json!({ "name": name, "registered": name })).collect()
}

/// Reads a file with what was declared.
pub(super) fn read_declared(bytes: &[u8]) -> Result<ServeConfig, Mistake> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        #[serde(rename = "format")]
        _format: u64,
        config: Value,
    }
    let text: Text = read(bytes)?;
    config(text.config, "config")
}

/// Reads a file of the history.
pub(super) fn read_applied(bytes: &[u8]) -> Result<Applied, Mistake> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        #[serde(rename = "format")]
        _format: u64,
        id: u64,
        at: f64,
        by: String,
        config: Value,
    }
    let Text { id, at, by, config: json, .. } = read(bytes)?;
    Ok(Applied { id, at, by, config: config(json, "config")? })
}

/// The parts of a text, once its format is known to be ours.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Mistake> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| misread(&error))?;
    match format {
        FORMAT => serde_json::from_slice(bytes).map_err(|error| misread(&error)),
        0 => Err(Mistake::damaged("format", "0 is no format that ever was")),
        format => Err(Mistake::FromTheFuture { format }),
    }
}

fn misread(error: &serde_json::Error) -> Mistake {
    let place = format!("line {}, column {}", error.line(), error.column());
    let (text, place_told) =
        (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    Mistake::damaged(place, text.strip_suffix(&place_told).unwrap_or(&text))
}

fn config(json: Value, at: &str) -> Result<ServeConfig, Mistake> {
    ServeConfig::from_kept(json).map_err(|error| match error {
        ServeError::InvalidConfig(mut problems) if !problems.is_empty() => {
            let first = problems.swap_remove(0);
            Mistake::damaged(format!("{at}.{}", first.place), first.what)
        }
        other => Mistake::damaged(at, other.to_string()),
    })
}
