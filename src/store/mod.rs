//! What a Serve was told, kept in a directory, so that a killed process loses none of it.

mod directory;
#[cfg(test)]
mod directory_tests;
mod document;
mod file;
mod forms;
mod saved;

pub(crate) use directory::Store;
pub(crate) use forms::{absolute, checked, decl_of, same, straight, straight_source, with_functions};
pub(crate) use saved::Saved;
pub use saved::{Applied, HISTORY_MAX};
