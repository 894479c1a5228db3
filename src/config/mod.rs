//! What an operator or a program asks for: checked options, with every mistake told at once.

mod backend;
#[cfg(test)]
mod backend_tests;
mod check;
mod placement;
mod restart;
mod update;

pub use backend::BackendConfig;
pub use check::limits;
pub use placement::Placement;
pub use restart::{RestartPolicy, RestartUpdate};
pub use update::BackendUpdate;
