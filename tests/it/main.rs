//! The integration tests, one binary; each area is a file.

mod batching;
mod cancellation;
mod deadlines;
mod frail;
mod overload;
mod panics;
mod support;
