//! What an error means: its stable code, whose fault it is, whether the same call may be sent again.

use super::{Fault, ServeError};

impl ServeError {
    /// Stable machine-readable code; the same over HTTP and in process.
    pub fn code(&self) -> &str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::TooLarge { .. } => "too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::NoReplica { .. } => "no_replica",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Panicked { .. } => "panicked",
            Self::BatchPanicked { .. } => "batch_panicked",
            Self::BatchLength { .. } => "batch_length",
            Self::NoAnswer => "no_answer",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting_down",
            Self::BeingReplaced => "being_replaced",
            Self::Backend { code, .. } => code,
            Self::WouldDeadlock { .. } => "would_deadlock",
            Self::Invalid { .. } => "invalid",
            Self::InvalidConfig(_) => "invalid_config",
            Self::UnknownBackend(_) => "unknown_backend",
            Self::UnknownEndpoint(_) => "unknown_endpoint",
            Self::AlreadyExists { .. } => "already_exists",
            Self::InUse { .. } => "in_use",
            Self::NotTaken { .. } => "not_taken",
            Self::NotCopied { .. } => "not_copied",
            Self::NotCompared { .. } => "not_compared",
            Self::OwnShadow { .. } => "own_shadow",
            Self::NoResources { .. } => "no_resources",
            Self::StartFailed { .. } => "start_failed",
            Self::ReconfigureFailed { .. } => "reconfigure_failed",
            Self::DeployInProgress => "deploy_in_progress",
            Self::DeployFailed { .. } => "deploy_failed",
            Self::Gpu { failure, .. } => failure.code(),
            Self::RolloutFailed { .. } => "rollout_failed",
            Self::TimedOut { .. } => "timed_out",
            Self::State(error) => error.code(),
            Self::StateNotSaved { .. } => "state_not_saved",
            Self::Internal(_) => "internal",
        }
    }

    /// Who has to do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Backend { status, .. } if *status < 500 => Fault::Caller,
            Self::DeployFailed { cause, .. } => cause.fault(),
            Self::Gpu { failure, .. } => failure.fault(),
            Self::Backend { .. }
            | Self::Panicked { .. }
            | Self::BatchPanicked { .. }
            | Self::BatchLength { .. }
            | Self::NoAnswer
            | Self::StartFailed { .. }
            | Self::ReconfigureFailed { .. }
            | Self::RolloutFailed { .. } => Fault::Backend,
            Self::Overloaded { .. }
            | Self::NoReplica { .. }
            | Self::DeadlineExceeded
            | Self::Stopped
            | Self::ShuttingDown
            | Self::BeingReplaced
            | Self::DeployInProgress
            | Self::TimedOut { .. }
            | Self::State(_)
            | Self::StateNotSaved { .. }
            | Self::Internal(_) => Fault::Service,
            _ => Fault::Caller,
        }
    }

    /// Whether the same request may be sent again: it never began, or nothing came of it.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Overloaded { .. } | Self::NoReplica { .. } | Self::ShuttingDown | Self::BeingReplaced => {
                true
            }
            // What was half done on a lost device is gone with it.
            Self::Gpu { failure, .. } => failure.fault() == Fault::Service,
            _ => false,
        }
    }
}
