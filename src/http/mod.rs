//! The HTTP side: what a request's path means.

mod pattern;
mod route_table;

pub use pattern::{ROUTE_BYTES_MAX, RouteParams, RoutePattern};
pub use route_table::RouteTable;
