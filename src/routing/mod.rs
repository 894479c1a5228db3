//! From an endpoint's name and a message's type to the port that takes the call.

pub(crate) mod backend_port;
pub(crate) mod backend_routes;
pub(crate) mod copies;
pub(crate) mod directory;
pub(crate) mod endpoint;
pub(crate) mod models;
pub(crate) mod routes;
pub(crate) mod shadows;
mod waiting_room;
