//! `AdminConfig`: where the service itself is administered.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    http::{host, port},
    item::Item,
};
use crate::error::ServeError;

/// Where the admin API listens; apart from the requests, and on this machine only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminConfig {
    /// Loopback address to listen on; `127.0.0.1`.
    pub host: String,
    /// Port to listen on; 8265. 0 takes any free one.
    pub port: u16,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 8265 }
    }
}

impl AdminConfig {
    pub(crate) fn read(item: Item<'_>) -> Option<Self> {
        let mut fields = item.fields()?;
        let default = Self::default();
        let config = Self {
            host: fields.read("host", |item| item.parsed(loopback)).unwrap_or(default.host),
            port: fields.read("port", port).unwrap_or(default.port),
        };
        fields.finish();
        Some(config)
    }
}

/// An address that only this machine reaches: whoever reaches the admin API may do anything.
pub(crate) fn loopback(text: &str) -> Result<String, ServeError> {
    let text = host(text)?;
    if text == "localhost" || text.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return Ok(text);
    }
    let why = format!(
        "{text:?} is not a loopback address; allowed: 127.0.0.1, ::1 or localhost, as nothing guards the admin API \
         until it has tokens and TLS"
    );
    Err(ServeError::invalid("host", why))
}
