//! Every error a caller or an operator can see, typed; no HTTP in here.

mod gpu_failure;
mod meaning;
mod state;

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::ids::{BackendName, EndpointName};

pub use gpu_failure::GpuFailure;
pub use state::StateError;

/// An error of user code, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the same request fails again.
    Caller,
    /// The backend's own code.
    Backend,
    /// This service: load, shutdown, a replica that went away.
    Service,
}

/// One mistake in a configuration, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: a path such as `backends[0].num_replicas`, with line and column where it was read from a text.
    pub place: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What can go wrong with a call or a change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The request does not decode into the message that the backend takes.
    #[error("bad request: {detail}")]
    BadRequest {
        /// What is wrong and where.
        detail: Box<str>,
    },
    /// The request's body is larger than the server takes.
    #[error("the body has more than {limit_bytes} bytes, the most that is taken here")]
    TooLarge {
        /// Largest body taken, in bytes.
        limit_bytes: usize,
    },
    /// The rest of the request's body did not come.
    #[error("no byte of the body came for {} s, the longest that is waited for here", .after.as_secs_f64())]
    BodyTimeout {
        /// Longest time without a byte.
        after: Duration,
    },
    /// The gate is full: more calls wait or run than the backend admits.
    #[error("backend {backend} is overloaded: {limit} calls run or wait, the most it admits")]
    Overloaded {
        /// The backend that refused.
        backend: BackendName,
        /// Calls that it admits at once, running and waiting together.
        limit: usize,
    },
    /// The backend has no replica that could take the call.
    #[error("backend {backend} has no replica to serve this: {why}")]
    NoReplica {
        /// The backend without a replica.
        backend: BackendName,
        /// Why there is none.
        why: Box<str>,
    },
    /// The deadline passed before there was an answer.
    #[error("the deadline passed before there was an answer")]
    DeadlineExceeded,
    /// The handler panicked while it handled this call.
    #[error("the handler panicked: {message}")]
    Panicked {
        /// The text of the panic.
        message: Box<str>,
    },
    /// The handler panicked while it handled a batch that held this call.
    #[error("the handler panicked on a batch of {size}: {message}")]
    BatchPanicked {
        /// Calls in that batch.
        size: usize,
        /// The text of the panic.
        message: Box<str>,
    },
    /// The handler answered a batch with another number of results than it had items.
    #[error("the batch handler returned {returned} results for {expected} requests")]
    BatchLength {
        /// Items in the batch.
        expected: usize,
        /// Results returned.
        returned: usize,
    },
    /// The handler let go of the reply without answering.
    #[error("the handler dropped the call without an answer")]
    NoAnswer,
    /// The replica stopped while the call was running.
    #[error("the replica was stopped before it could answer")]
    Stopped,
    /// This Serve is shutting down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// Another process is taking over from this one, and would not know of the change.
    #[error("another process is taking over from this one, which changes nothing meanwhile; ask again")]
    BeingReplaced,
    /// The backend's own error, in its own words.
    #[error("{detail}")]
    Backend {
        /// HTTP status to answer with, 400 to 599.
        status: u16,
        /// Stable code for machines.
        code: Box<str>,
        /// Text for people.
        detail: Box<str>,
    },
    /// A blocking call from a thread that must not block.
    #[error("a blocking handle must not be used on this thread: {why}")]
    WouldDeadlock {
        /// Why blocking here could never end.
        why: Box<str>,
    },

    /// A value is not allowed.
    #[error("{what}: {why}")]
    Invalid {
        /// Which value.
        what: Box<str>,
        /// What was given and what is allowed.
        why: Box<str>,
    },
    /// A configuration with mistakes: all of them; nothing was applied.
    #[error("{}", list(.0))]
    InvalidConfig(Vec<Problem>),
    /// No backend has this name.
    #[error("there is no backend {0}")]
    UnknownBackend(BackendName),
    /// No endpoint has this name.
    #[error("there is no endpoint {0}")]
    UnknownEndpoint(EndpointName),
    /// The name or route is taken.
    #[error("{what} {name} exists already")]
    AlreadyExists {
        /// "backend", "endpoint" or "route".
        what: &'static str,
        /// The name that is taken.
        name: Box<str>,
    },
    /// Deleting it would leave an endpoint without its backend.
    #[error("backend {backend} is used by endpoint {endpoint}; delete that or move its traffic first")]
    InUse {
        /// The backend to delete.
        backend: BackendName,
        /// An endpoint that names it.
        endpoint: EndpointName,
    },
    /// A backend that does not take this message.
    #[error("backend {backend} does not take {message}; it takes: {takes}")]
    NotTaken {
        /// The backend asked.
        backend: BackendName,
        /// Type of the message.
        message: Box<str>,
        /// Types that it takes.
        takes: Box<str>,
    },
    /// A shadow backend for a message that cannot be copied.
    #[error(
        "backend {backend} cannot be given copies of {message}: it is not known to be `Clone`; call \
         `.shadows::<M>()` when the backend is made"
    )]
    NotCopied {
        /// The shadow backend.
        backend: BackendName,
        /// Types of the messages.
        message: Box<str>,
    },
    /// A shadow backend whose answers cannot be compared.
    #[error(
        "the answers of backend {backend} to {message} cannot be compared: they are not known to be `Clone` and \
         `Serialize`; call `.compares::<M>()` when the backend is made"
    )]
    NotCompared {
        /// The shadow backend.
        backend: BackendName,
        /// Types of the messages.
        message: Box<str>,
    },
    /// A backend that would get copies of what it serves itself.
    #[error("backend {backend} serves all of endpoint {endpoint}; it cannot be its shadow too")]
    OwnShadow {
        /// The backend.
        backend: BackendName,
        /// The endpoint.
        endpoint: EndpointName,
    },
    /// Replicas that ask for more than there is; nothing has changed.
    #[error(
        "backend {backend} does not fit with num_replicas {replicas}: each replica asks for {asked}, free: {free}, \
         so {fit} would fit; {cures}"
    )]
    NoResources {
        /// The backend.
        backend: BackendName,
        /// Replicas that were asked for, those that there are included.
        replicas: u32,
        /// What each asks for, of what there is too little of.
        asked: Box<str>,
        /// What of it is free, and what there is.
        free: Box<str>,
        /// Replicas that it can have now, those that there are included.
        fit: u32,
        /// What to change so that all fit.
        cures: Box<str>,
    },
    /// A replica could not be started.
    #[error("a replica of {backend} did not start: {why}")]
    StartFailed {
        /// Its backend.
        backend: BackendName,
        /// The factory's error or panic, or the time-out.
        why: Box<str>,
    },
    /// A replica did not take the new `user_config`; all have the old one.
    #[error("backend {backend} keeps its user_config: {why}")]
    ReconfigureFailed {
        /// The backend.
        backend: BackendName,
        /// Which replica, and the error or panic of its code, or what it waited for in vain.
        why: Box<str>,
    },
    /// What the backend asked of its share of a GPU failed.
    #[error("{why}")]
    Gpu {
        /// What kind of failure it is.
        failure: GpuFailure,
        /// What failed.
        why: Box<str>,
    },
    /// Replicas of a new release did not start; those of the old one serve on.
    #[error("backend {backend} stays as it was, its new release{} did not start: {why}", of_version(version.as_deref()))]
    RolloutFailed {
        /// The backend.
        backend: BackendName,
        /// The version that was rolled out, if it had one.
        version: Option<Box<str>>,
        /// The factory's error or panic, the time-out, or what its code said of its `user_config`.
        why: Box<str>,
    },
    /// A configuration is being deployed; it is the only change until it has ended.
    #[error("a deploy is under way; nothing else can be changed until it has ended")]
    DeployInProgress,
    /// A step of a deploy failed; the steps before it were taken back.
    #[error("{step}: {cause}; {}", taken_back(.left.as_deref()))]
    DeployFailed {
        /// Which step, such as `roll backend digits`.
        step: Box<str>,
        /// Why it failed.
        cause: Box<ServeError>,
        /// What could not be made as it was, and why; none: all was.
        left: Option<Box<str>>,
    },
    /// A change that took longer than it may.
    #[error("{what} took longer than {} s", .after.as_secs_f64())]
    TimedOut {
        /// Which change.
        what: Box<str>,
        /// How long it was given.
        after: Duration,
    },
    /// The state directory cannot be used.
    #[error("{0}")]
    State(StateError),
    /// A change that could not be kept in the state directory; nothing has changed.
    #[error("the change was not made, since it could not be kept in the state directory: {why}")]
    StateNotSaved {
        /// What went wrong: mostly a full disk.
        why: Box<str>,
    },
    /// Something of ours failed: a socket, a thread, a restarted control actor.
    #[error("{0}")]
    Internal(Box<str>),
}

impl ServeError {
    /// An error of the backend itself: HTTP `status` (400..=599, else 500), stable `code`, `detail`.
    ///
    /// ```
    /// use greenroom::ServeError;
    /// let e = ServeError::backend(422, "not_a_digit", "64 pixels are needed, 12 were given");
    /// assert_eq!(e.code(), "not_a_digit");
    /// ```
    pub fn backend(status: u16, code: impl Into<Box<str>>, detail: impl Into<Box<str>>) -> Self {
        let status = if (400..=599).contains(&status) { status } else { 500 };
        Self::Backend { status, code: code.into(), detail: detail.into() }
    }

    /// Any error of user code, as the backend's own error with status 500.
    pub fn from_user(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        match error.downcast::<ServeError>() {
            Ok(own) => *own,
            Err(other) => Self::backend(500, "backend_error", other.to_string()),
        }
    }

    /// A request that does not decode.
    pub fn bad_request(detail: impl Into<Box<str>>) -> Self {
        Self::BadRequest { detail: detail.into() }
    }

    /// What a call is told that was queued at a replica which stopped: it may be sent again.
    pub(crate) fn never_began(backend: &BackendName) -> Self {
        Self::NoReplica { backend: backend.clone(), why: "the replica stopped before the call began".into() }
    }

    /// Whether a call to `backend` ended with this without having begun there. The same error from another backend
    /// was the answer of a handler that had asked that one.
    pub(crate) fn refused_by(&self, backend: &BackendName) -> bool {
        match self {
            Self::Overloaded { backend: refused, .. } | Self::NoReplica { backend: refused, .. } => {
                refused == backend
            }
            Self::ShuttingDown => true,
            _ => false,
        }
    }

    /// The same failure of a deploy, of which something could not be taken back.
    pub(crate) fn not_restored(self, what: String) -> Self {
        let what: Box<str> = what.into();
        match self {
            Self::DeployFailed { step, cause, .. } => Self::DeployFailed { step, cause, left: Some(what) },
            other => Self::DeployFailed { step: "deploy".into(), cause: Box::new(other), left: Some(what) },
        }
    }

    /// A value that is not allowed.
    pub fn invalid(what: impl Into<Box<str>>, why: impl Into<Box<str>>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}

fn of_version(version: Option<&str>) -> String {
    version.map_or_else(String::new, |version| format!(" (version {version:?})"))
}

fn taken_back(left: Option<&str>) -> String {
    match left {
        None => "all is as it was before".into(),
        Some(left) => format!("this could not be made as it was before: {left}"),
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match lines.len() {
        1 => lines.concat(),
        n => format!("{n} problems:\n  {}", lines.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serve_error_inside_a_box_keeps_its_type() {
        let own = ServeError::backend(422, "x", "y");
        assert_eq!(ServeError::from_user(own.clone()), own);
        let other = ServeError::from_user("plain");
        assert_eq!((other.code(), other.fault()), ("backend_error", Fault::Backend));
    }

    #[test]
    fn a_status_that_is_no_error_becomes_500() {
        let ServeError::Backend { status, .. } = ServeError::backend(200, "x", "y") else {
            panic!("another variant")
        };
        assert_eq!(status, 500);
    }

    #[test]
    fn every_problem_is_listed() {
        let p = |n: u8| Problem { place: format!("backends[{n}]"), what: "wrong".into() };
        let text = ServeError::InvalidConfig(vec![p(0), p(1)]).to_string();
        assert!(
            text.contains("2 problems")
                && text.contains("backends[0]: wrong")
                && text.contains("backends[1]")
        );
    }
}
