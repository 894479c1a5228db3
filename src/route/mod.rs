//! What a request's path means: route patterns and the table that finds them.

mod pattern;
mod table;

pub(crate) use pattern::is_reserved;
pub use pattern::{ROUTE_BYTES_MAX, RouteParams, RoutePattern};
pub use table::RouteTable;
