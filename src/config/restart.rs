//! `RestartPolicy`: how often a replica that does not start is tried again.

use std::time::Duration;

use serde::Serialize;

use super::{
    check::{Check, seconds},
    item::Item,
    limits::{MAX_RESTARTS_MAX, RESTART_BACKOFF_MAX, TIMEOUT_MAX},
};

/// How often a replica whose start fails is tried again, and how fast.
///
/// Counts only failed starts: a handler that panics never takes its replica out of service.
///
/// ```
/// use greenroom::RestartPolicy;
/// let patient = RestartPolicy { max_restarts: 100, ..RestartPolicy::default() };
/// assert_eq!(patient.backoff.as_millis(), 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RestartPolicy {
    /// Failed starts within the window before the replica is given up; 5, at most 10,000.
    ///
    /// 0 gives up at the first one.
    pub max_restarts: u32,
    /// The time over which failed starts are counted; 10 s, more than 0 and at most a day.
    #[serde(rename = "window_s", serialize_with = "seconds")]
    pub window: Duration,
    /// Wait before the first new start; 0.1 s, at most an hour. 0 tries again at once.
    #[serde(rename = "backoff_s", serialize_with = "seconds")]
    pub backoff: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { max_restarts: 5, window: Duration::from_secs(10), backoff: Duration::from_millis(100) }
    }
}

/// A change of a [`RestartPolicy`]: what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartUpdate {
    /// New [`RestartPolicy::max_restarts`].
    pub max_restarts: Option<u32>,
    /// New [`RestartPolicy::window`].
    pub window: Option<Duration>,
    /// New [`RestartPolicy::backoff`].
    pub backoff: Option<Duration>,
}

impl RestartPolicy {
    /// This policy with the fields that `update` gives.
    pub(crate) fn updated(self, update: RestartUpdate) -> Self {
        Self {
            max_restarts: update.max_restarts.unwrap_or(self.max_restarts),
            window: update.window.unwrap_or(self.window),
            backoff: update.backoff.unwrap_or(self.backoff),
        }
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.at_most("restart.max_restarts", self.max_restarts as usize, MAX_RESTARTS_MAX as usize);
        check.timeout("restart.window_s", self.window, TIMEOUT_MAX);
        check.wait("restart.backoff_s", self.backoff, RESTART_BACKOFF_MAX);
    }
}

impl RestartUpdate {
    /// Takes the fields of a map; a wrong one is noted and left out.
    pub(crate) fn read(item: Item<'_>) -> Option<Self> {
        let mut fields = item.fields()?;
        let update = Self {
            max_restarts: fields.read("max_restarts", |item| item.whole(0, MAX_RESTARTS_MAX.into())),
            window: fields.read("window_s", |item| item.timeout(TIMEOUT_MAX)),
            backoff: fields.read("backoff_s", |item| item.seconds(RESTART_BACKOFF_MAX)),
        };
        fields.finish();
        Some(update)
    }
}

impl From<RestartPolicy> for RestartUpdate {
    fn from(policy: RestartPolicy) -> Self {
        Self {
            max_restarts: Some(policy.max_restarts),
            window: Some(policy.window),
            backoff: Some(policy.backoff),
        }
    }
}
