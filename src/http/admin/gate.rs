//! Who may ask: programs of this machine, and no web page of another site that a browser here has open.
//!
//! The admin API has no password yet; what guards it is that it listens on loopback alone. A browser reaches that for
//! every page that it shows. So a request has to name this machine as its host (a name of somebody else's that was
//! bent to 127.0.0.1 does not), must not come from a page of another origin, and a change has to have a form that no
//! page can send without being asked first (`Content-Type: application/json`).

use std::net::IpAddr;

use actix_web::http::{
    Method, StatusCode, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use crate::http::{
    exchange::Failure,
    problem::{self, Reader},
};

/// Where a browser says that a request comes from.
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not listened to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct Stopped {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Stopped {
    fn foreign(code: &'static str, detail: String) -> Self {
        Self { status: StatusCode::FORBIDDEN, code, detail }
    }

    pub(in crate::http) fn failure(self) -> Failure {
        Box::new(move |id| problem::plain(Reader::Any, self.status, self.code, &self.detail, id))
    }
}

/// Whether a request comes from this machine and from no page of another site.
pub(in crate::http) fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Stopped> {
    let host = host(uri, headers)?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    for origin in headers.get_all(header::ORIGIN).map(text) {
        if !origin.eq_ignore_ascii_case(&format!("http://{host}")) {
            let detail = format!(
                "the request comes from a web page of {origin:?}; the admin API answers pages of its own origin alone"
            );
            return Err(Stopped::foreign("foreign_origin", detail));
        }
    }
    let reads = [Method::GET, Method::HEAD].contains(method);
    for site in headers.get_all(&SEC_FETCH_SITE).map(text) {
        if !reads && !["same-origin", "none"].contains(&site.as_str()) {
            let detail = format!("a browser says that the request comes from another site ({site:?})");
            return Err(Stopped::foreign("foreign_origin", detail));
        }
    }
    Ok(())
}

/// The host, with its port, that the request was meant for: this machine by a name that nobody else can give away.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, Stopped> {
    let mut hosts = headers.get_all(header::HOST).map(|value| value.to_str().unwrap_or(""));
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        let detail = "the request needs exactly one header `Host`".into();
        return Err(Stopped::foreign("foreign_host", detail));
    };
    let named = uri.authority().map(|authority| authority.as_str());
    match std::iter::once(host).chain(named).find(|host| !is_loopback(host)) {
        None => Ok(host.to_owned()),
        Some(host) => {
            let detail = format!(
                "the request is for the host {host:?}; the admin API answers to localhost, 127.0.0.1 and [::1]"
            );
            Err(Stopped::foreign("foreign_host", detail))
        }
    }
}

/// Whether `host`, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => {
            (name, rest.strip_prefix(':').or(if rest.is_empty() { Some("") } else { None }))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("")),
        },
    };
    let loopback = || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port.is_some_and(is_port) && (name.eq_ignore_ascii_case("localhost") || loopback())
}

/// Whether a body of this type is taken; one that is absent has none.
pub(super) fn content_type(headers: &HeaderMap) -> Result<(), Stopped> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or(""));
    let kind = given.map(|given| given.split(';').next().unwrap_or("").trim());
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let given = given.map_or("none was given".into(), |given| format!("{given:?} was given"));
    Err(Stopped {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code: "unsupported_media_type",
        detail: format!("a change needs `Content-Type: application/json`; {given}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn stopped(method: &Method, pairs: &[(&'static str, &'static str)]) -> Option<&'static str> {
        check(method, &Uri::from_static("/api/serve/status"), &headers(pairs))
            .err()
            .map(|stopped| stopped.code)
    }

    #[test]
    fn a_host_that_is_not_this_machine_is_refused_whatever_it_is_made_to_point_to() {
        let here = ["localhost", "LOCALHOST:8265", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8265"];
        for host in here {
            assert!(is_loopback(host), "{host}");
            assert_eq!(stopped(&Method::POST, &[("host", host)]), None, "{host}");
        }
        let elsewhere = [
            "",
            "evil.example",
            "evil.example:8265",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:8265@evil.example",
            "10.0.0.1",
            "0.0.0.0:8265",
            "[::]",
            "[::1]x",
            "[::1",
            "::1",
            "localhost:port",
            "localhost:123456",
            "127.0.0.1:80:80",
            "http://localhost",
        ];
        for host in elsewhere {
            assert_eq!(stopped(&Method::GET, &[("host", host)]), Some("foreign_host"), "{host}");
        }
        assert_eq!(stopped(&Method::GET, &[]), Some("foreign_host"));
        assert_eq!(stopped(&Method::GET, &[("host", "localhost"), ("host", "evil")]), Some("foreign_host"));
        let uri = Uri::from_static("http://evil.example/api/serve/status");
        assert!(check(&Method::GET, &uri, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused_and_one_of_the_same_is_not() {
        let host = ("host", "127.0.0.1:8265");
        let from = |origin| stopped(&Method::POST, &[host, ("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:8265"), None);
        for origin in [
            "null",
            "",
            "http://evil.example",
            "https://127.0.0.1:8265",
            "http://127.0.0.1",
            "http://localhost:8265",
        ] {
            assert_eq!(from(origin), Some("foreign_origin"), "{origin}");
        }
        let twice = [host, ("origin", "http://127.0.0.1:8265"), ("origin", "http://evil.example")];
        assert_eq!(stopped(&Method::GET, &twice), Some("foreign_origin"));
    }

    #[test]
    fn a_browser_that_says_another_site_sent_it_may_not_change_anything() {
        let site = |method, site| stopped(method, &[("host", "localhost"), ("sec-fetch-site", site)]);
        for word in ["cross-site", "same-site"] {
            assert_eq!(site(&Method::POST, word), Some("foreign_origin"));
            assert_eq!(site(&Method::DELETE, word), Some("foreign_origin"));
            assert_eq!(site(&Method::GET, word), None, "a link leads there");
        }
        assert_eq!(site(&Method::POST, "same-origin"), None);
        assert_eq!(site(&Method::POST, "none"), None);
    }

    #[test]
    fn a_body_has_to_say_that_it_is_json() {
        let takes = |kind| content_type(&headers(&[("content-type", kind)])).is_ok();
        for kind in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(takes(kind), "{kind}");
        }
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json"]
        {
            assert!(!takes(kind), "{kind}");
        }
        assert!(content_type(&HeaderMap::new()).is_err());
    }
}
