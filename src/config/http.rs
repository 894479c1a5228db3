//! `HttpConfig`: where requests come in.

use std::{net::IpAddr, num::NonZeroUsize, time::Duration};

use serde::Serialize;

use super::{check::seconds, item::Item};
use crate::{error::ServeError, http_call::ShardKeys};

/// Most threads that serve requests.
const THREADS_MAX: usize = 1024;

/// Largest request body that can be allowed, in bytes.
const BODY_BYTES_MAX: i64 = 1 << 30;

/// Longest time without a byte of a body that can be allowed.
const BODY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpConfig {
    /// Which nodes listen; the head node.
    pub location: Location,
    /// Address or host name to listen on; `127.0.0.1`, which only this machine reaches.
    pub host: String,
    /// Port to listen on; 8000. 0 takes any free one.
    pub port: u16,
    /// Threads that serve requests and hold the replicas placed on them; none: one a core. At most 1024.
    pub threads: Option<NonZeroUsize>,
    /// Largest request body taken, in bytes; 16 MiB, at most 1 GiB. A request in progress may hold this much.
    pub max_body_bytes: usize,
    /// Where requests carry their shard key, beside `X-SERVE-SHARD-KEY`: `headers` and a `cookie`; nowhere.
    pub shard_key: ShardKeys,
    /// Whether a request with the header `X-Serve-Explain` is told which backend and replica served it; true.
    pub explain: bool,
    /// Longest time without a byte of a body that is not whole yet, `body_timeout_s`; 30 s, more than 0 and at
    /// most an hour. Then the request is answered with 408 and its connection closes.
    #[serde(rename = "body_timeout_s", serialize_with = "seconds")]
    pub body_timeout: Duration,
}

/// Which nodes listen for requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Location {
    /// The head node.
    #[default]
    HeadOnly,
    /// Every node; with one node the same as the head node.
    EveryNode,
    /// None: requests come from handles alone.
    NoServer,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            location: Location::default(),
            host: "127.0.0.1".into(),
            port: 8000,
            threads: None,
            max_body_bytes: 16 << 20,
            shard_key: ShardKeys::default(),
            explain: true,
            body_timeout: Duration::from_secs(30),
        }
    }
}

impl HttpConfig {
    pub(crate) fn read(item: Item<'_>) -> Option<Self> {
        let mut fields = item.fields()?;
        let default = Self::default();
        let locations = [
            ("HeadOnly", Location::HeadOnly),
            ("EveryNode", Location::EveryNode),
            ("NoServer", Location::NoServer),
        ];
        let config = Self {
            location: fields.read("location", |item| item.word(&locations)).unwrap_or_default(),
            host: fields.read("host", |item| item.parsed(host)).unwrap_or(default.host),
            port: fields.read("port", port).unwrap_or(default.port),
            threads: fields.nullable("threads", |item| item.positive(THREADS_MAX)).flatten(),
            max_body_bytes: fields
                .read("max_body_bytes", |item| item.whole(1, BODY_BYTES_MAX))
                .unwrap_or(default.max_body_bytes),
            shard_key: fields.nullable("shard_key", shard_keys).flatten().unwrap_or_default(),
            explain: fields.read("explain", Item::bool).unwrap_or(default.explain),
            body_timeout: fields
                .read("body_timeout_s", |item| item.timeout(BODY_TIMEOUT_MAX))
                .unwrap_or(default.body_timeout),
        };
        fields.finish();
        Some(config)
    }
}

/// The headers and the cookie that may carry a shard key.
fn shard_keys(item: Item<'_>) -> Option<ShardKeys> {
    let mut fields = item.fields()?;
    let mut keys = ShardKeys::default();
    let headers = fields.nullable("headers", Item::items).flatten().unwrap_or_default();
    for header in headers {
        keys = header.parsed(|name| keys.clone().header(name)).unwrap_or(keys);
    }
    if let Some(cookie) = fields.nullable("cookie", |item| item.parsed(|name| keys.clone().cookie(name))) {
        keys = cookie.unwrap_or(keys);
    }
    fields.finish();
    Some(keys)
}

/// A port; 0 stands for any free one.
pub(super) fn port(item: Item<'_>) -> Option<u16> {
    item.whole(0, u16::MAX.into())
}

/// An address, or what can be the name of a host.
pub(super) fn host(text: &str) -> Result<String, ServeError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let name = !numeric && text.len() <= 253 && text.split('.').all(label);
    if name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    let why = format!(
        "{:?} is no IP address and no host name; a port has a key of its own",
        super::node::shown(text)
    );
    Err(ServeError::invalid("host", why))
}
