//! `PlanStep`: one thing that a plan does, and why.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::fields::shown;
use crate::{
    config::{BackendDecl, EndpointDecl},
    ids::{BackendName, EndpointName},
};

/// One thing that a plan does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanStep {
    /// What is done.
    pub action: PlanAction,
    /// To what kind of thing.
    pub subject: Subject,
    /// The name of that thing.
    pub name: String,
    /// Every reason; one at least.
    pub why: Vec<PlanReason>,
    /// With what it is done.
    #[serde(skip)]
    pub(crate) work: Work,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// Makes it.
    Create,
    /// Replaces a backend's replicas by ones of new code or options, a few at a time.
    Roll,
    /// Gives the replicas of a backend another `user_config` in place.
    Reconfigure,
    /// Starts or drains replicas of a backend.
    Scale,
    /// Changes options that running replicas follow at once.
    Update,
    /// Changes the route, the methods or the affinity of an endpoint.
    Replace,
    /// Sends the requests of an endpoint elsewhere.
    SetTraffic,
    /// Sends copies of an endpoint's requests elsewhere.
    SetShadow,
    /// Takes it away.
    Delete,
}

/// What kind of thing a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A backend.
    Backend,
    /// An endpoint.
    Endpoint,
}

/// Why a step is taken: `num_replicas: 2 -> 3`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReason {
    /// In words.
    pub text: String,
    /// The key of the field that changes, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its value now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What a step works with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// Make this backend, or change it into this.
    Backend(Box<BackendDecl>),
    /// Make this endpoint, or change it into this. Steps for one endpoint hold the same.
    Endpoint(EndpointDecl),
    DeleteEndpoint(EndpointName),
    DeleteBackend(BackendName),
}

impl PlanStep {
    pub(crate) fn new(action: PlanAction, work: Work, why: Vec<PlanReason>) -> Self {
        let (subject, name) = match &work {
            Work::Backend(decl) => (Subject::Backend, decl.name.as_str()),
            Work::DeleteBackend(name) => (Subject::Backend, name.as_str()),
            Work::Endpoint(decl) => (Subject::Endpoint, decl.name.as_str()),
            Work::DeleteEndpoint(name) => (Subject::Endpoint, name.as_str()),
        };
        Self { action, subject, name: name.into(), why, work }
    }
}

impl PlanReason {
    pub(crate) fn text(text: &str) -> Self {
        Self { text: text.into(), field: None, from: None, to: None }
    }

    /// A field that changes.
    pub(crate) fn change(field: &str, from: Value, to: Value) -> Self {
        let text = match from == to {
            true => format!("{field}: another function"),
            false => format!("{field}: {} -> {}", shown(&from), shown(&to)),
        };
        Self { text, field: Some(field.into()), from: Some(from), to: Some(to) }
    }
}

impl PlanAction {
    /// Its word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Roll => "roll",
            Self::Reconfigure => "reconfigure",
            Self::Scale => "scale",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::SetTraffic => "set_traffic",
            Self::SetShadow => "set_shadow",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for PlanAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Backend => "backend",
            Self::Endpoint => "endpoint",
        })
    }
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which step it is: `roll backend digits`.
impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action, self.subject, self.name)
    }
}
