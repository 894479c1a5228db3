//! `StateError`: why a state directory cannot be used, and how to go on.

use std::path::PathBuf;

/// Why a state directory cannot be used; told when the service starts, which then does not. Nothing in the
/// directory was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process works with it.
    #[error(
        "the state directory {} is in use by process {}; stop that one first, or give this one a directory of its own",
        path.display(),
        pid.map_or("?".into(), |pid| pid.to_string())
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// Something else has its name.
    #[error("{} is not a directory; give a directory for the state, or a name that is free", path.display())]
    NotADirectory {
        /// What is there.
        path: PathBuf,
    },
    /// Something in it cannot be made, read or written.
    #[error(
        "the state directory cannot be used: {} cannot be {doing}: {why}; a service writes down every change there, \
         so give it a directory that it may write to",
        path.display()
    )]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// "made", "read", "written", ...
        doing: &'static str,
        /// What the system says.
        why: Box<str>,
    },
    /// A file in it is not what was written there.
    #[error(
        "{} is damaged ({place}): {why}; mend that place, or move the directory away to start without what it holds",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it: line and column, or the path of a value.
        place: Box<str>,
        /// What is wrong there.
        why: Box<str>,
    },
    /// It was written by a later version of this software.
    #[error(
        "{} has format {format}, and this version knows formats up to {known}: a later version wrote it; start \
         that one, or give this one a directory of its own",
        path.display()
    )]
    FromTheFuture {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The last one known here.
        known: u64,
    },
}

impl StateError {
    /// Stable machine-readable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "state_in_use",
            Self::NotADirectory { .. } => "state_not_a_directory",
            Self::Unusable { .. } => "state_unusable",
            Self::Damaged { .. } => "state_damaged",
            Self::FromTheFuture { .. } => "state_from_the_future",
        }
    }
}
