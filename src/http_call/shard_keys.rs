//! `ShardKeys`: where in an HTTP request its shard key is found.

use actix_web::http::header::{self, HeaderMap, HeaderName};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::error::ServeError;

/// Header that names the session or user to be kept on one backend.
pub const SHARD_KEY_HEADER: &str = "x-serve-shard-key";

/// As a name, so that a look-up need not parse it.
static SHARD_KEY: HeaderName = HeaderName::from_static(SHARD_KEY_HEADER);

/// Where a request may carry its shard key: the header `X-SERVE-SHARD-KEY` first, then other headers in their
/// order, then a cookie. The first that is there and not empty counts.
///
/// ```
/// use greenroom::ShardKeys;
/// let keys = ShardKeys::default().header("X-Session-Id")?.cookie("sid")?;
/// assert!(ShardKeys::default().header("no spaces").is_err());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardKeys {
    headers: Vec<HeaderName>,
    cookie: Option<Box<str>>,
}

impl ShardKeys {
    /// Also this header.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] for what cannot be the name of a header.
    pub fn header(mut self, name: &str) -> Result<Self, ServeError> {
        let name = HeaderName::try_from(name).map_err(|_| {
            ServeError::invalid("header", format!("{name:?} is no name of a header: letters, digits and `-`"))
        })?;
        self.headers.push(name);
        Ok(self)
    }

    /// Also the cookie of this name.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] for what cannot be the name of a cookie.
    pub fn cookie(mut self, name: &str) -> Result<Self, ServeError> {
        // A token of RFC 9110, as RFC 6265 wants it.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(ServeError::invalid("cookie", format!("{name:?} is no name of a cookie")));
        }
        self.cookie = Some(name.into());
        Ok(self)
    }

    /// The key that a request carries.
    pub(crate) fn find<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let text = |name: &HeaderName| utf8(headers.get(name)?.as_bytes());
        let named = text(&SHARD_KEY).or_else(|| self.headers.iter().find_map(text));
        named.or_else(|| self.cookie.as_deref().and_then(|name| cookie(headers, name)))
    }
}

/// The value of a cookie, if it is there and not empty.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).map(|value| value.as_bytes());
    let pairs = lines.flat_map(|line| line.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    let value = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).next()?;
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    utf8(quoted.unwrap_or(value))
}

/// Text that is not empty.
fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

impl Serialize for ShardKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ShardKeys", 2)?;
        let headers: Vec<_> = self.headers.iter().map(HeaderName::as_str).collect();
        fields.serialize_field("headers", &headers)?;
        fields.serialize_field("cookie", &self.cookie)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn request(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn the_first_that_is_there_and_not_empty_counts() {
        let keys = ShardKeys::default().header("X-User").unwrap().header("X-Device").unwrap();
        let keys = keys.cookie("sid").unwrap();
        let all = [("x-serve-shard-key", "k"), ("x-user", "u"), ("x-device", "d"), ("cookie", "a=1; sid=c")];
        for (from, want) in [Some("k"), Some("u"), Some("d"), Some("c"), None].into_iter().enumerate() {
            assert_eq!(keys.find(&request(&all[from..])), want);
            let mut lines = all[from..].to_vec();
            lines.insert(0, ("x-serve-shard-key", ""));
            if from > 0 {
                assert_eq!(keys.find(&request(&lines)), want, "an empty header is none");
            }
        }
        assert_eq!(ShardKeys::default().find(&request(&all[1..])), None, "only what was asked for");
    }

    #[test]
    fn cookies_are_told_apart() {
        let keys = ShardKeys::default().cookie("sid").unwrap();
        for (line, want) in [
            ("sid=1", Some("1")),
            ("xsid=2; sid=3", Some("3")),
            ("sid=\"4\"", Some("4")),
            ("sid=a=b", Some("a=b")),
            ("sid=; other=5", None),
            ("sid", None),
        ] {
            assert_eq!(keys.find(&request(&[("cookie", line)])), want, "{line}");
        }
        assert_eq!(keys.find(&request(&[("cookie", "a=1"), ("cookie", "sid=6")])), Some("6"));
        assert_eq!(keys.find(&request(&[("cookie", "town=m\u{fc}nchen; sid=7")])), Some("7"));
        assert_eq!(keys.find(&request(&[("x-serve-shard-key", "m\u{fc}nchen")])), Some("m\u{fc}nchen"));
    }

    #[test]
    fn bad_names_are_refused_by_name() {
        for bad in ["", "a b", "a\n"] {
            assert!(ShardKeys::default().header(bad).unwrap_err().to_string().contains("header"));
            assert!(ShardKeys::default().cookie(bad).unwrap_err().to_string().contains("cookie"));
        }
    }
}
