//! The integration tests, one binary; each area is a file.

mod frail;
mod panics;
mod support;
