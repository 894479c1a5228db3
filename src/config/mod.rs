//! What an operator or a program asks for: checked options, with every mistake told at once.

mod admin;
mod backend;
mod backend_decl;
#[cfg(test)]
mod backend_tests;
mod check;
mod compare;
mod endpoint_decl;
mod fields;
mod file;
#[cfg(test)]
mod file_tests;
mod gpu_share;
mod http;
mod item;
mod known;
mod node;
mod placement;
mod problems;
mod resources;
#[cfg(test)]
mod resources_tests;
mod restart;
mod single;
mod update;
mod user;
mod version;
mod yaml;

pub use admin::AdminConfig;
pub(crate) use admin::loopback;
pub use backend::BackendConfig;
pub use backend_decl::{BackendDecl, Source};
pub use check::limits;
pub use endpoint_decl::EndpointDecl;
pub use file::ServeConfig;
pub use gpu_share::GpuShare;
pub use http::{HttpConfig, Location};
pub use placement::Placement;
pub use resources::ResourcesUpdate;
pub use restart::{RestartPolicy, RestartUpdate};
pub(crate) use single::RollbackTo;
pub use update::BackendUpdate;
pub use user::UserConfig;
