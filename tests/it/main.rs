//! The integration tests, one binary; each area is a file.

mod actix_assumptions;
mod batching;
mod cancellation;
mod deadlines;
mod endings;
mod frail;
mod lifecycle;
mod meta;
mod noter;
mod overload;
mod own_actors;
mod panics;
mod placement;
mod support;
