//! `RoutePattern`: the path of an endpoint, exact or with `{param}` segments.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use crate::error::ServeError;

/// Longest route accepted, in bytes.
pub const ROUTE_BYTES_MAX: usize = 1024;

/// First segments that the server keeps for itself, with everything below them.
const RESERVED: [&str; 3] = ["-", "metrics", "v2"];

/// Whether the server itself serves this path, or may.
pub(crate) fn is_reserved(path: &str) -> bool {
    let first = path.strip_prefix('/').unwrap_or(path);
    RESERVED
        .iter()
        .any(|own| first.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// What a `{param}` may be called, as told in a refusal.
const PARAM_RULE: &str =
    "a parameter is a whole segment such as {id}: a letter or '_', then letters, digits and '_'";

/// A path that requests are matched against: text segments, and `{param}` segments that stand for any one
/// segment that is not empty.
///
/// It is compared byte for byte with the path as it was sent: a trailing slash counts, nothing is decoded, and
/// what a parameter stands for is still percent-encoded. What the server serves itself (`/-/`, `/metrics`,
/// `/v2`) comes before any pattern.
///
/// ```
/// use greenroom::RoutePattern;
/// let pattern = RoutePattern::parse("/users/{user}/photos")?;
/// let params = pattern.matches("/users/ada/photos").unwrap();
/// assert_eq!(params.get("user"), Some("ada"));
/// assert!(pattern.matches("/users/ada/photos/").is_none());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePattern(Arc<str>);

/// One part of a pattern between two slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(&'a str),
    Param(&'a str),
}

/// What the parameters of a pattern stand for in one path, in the pattern's order, still percent-encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteParams<'a>(SmallVec<[(&'a str, &'a str); 4]>);

impl RoutePattern {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] when it does not start with `/`, is longer than [`ROUTE_BYTES_MAX`], has an empty,
    /// `.` or `..` segment, a character that has to be percent-encoded in a path, a parameter that is not a whole
    /// segment or is named twice, or when it is a path that the server keeps for itself.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, ServeError> {
        let text = text.as_ref();
        match mistake(text) {
            None => Ok(Self(text.into())),
            Some(why) => {
                let shown: String = text.chars().take(100).collect();
                Err(ServeError::invalid("route", format!("{shown:?} is not a valid route: {why}")))
            }
        }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no parameter, so that one path alone matches.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('{')
    }

    /// What its parameters stand for in `path`; none when the path does not match.
    pub fn matches<'a>(&'a self, path: &'a str) -> Option<RouteParams<'a>> {
        let mut given = path.strip_prefix('/')?.split('/');
        let mut params = RouteParams::default();
        for segment in self.segments() {
            match (segment, given.next()?) {
                (Segment::Literal(text), given) if text == given => {}
                (Segment::Param(name), given) if !given.is_empty() => params.0.push((name, given)),
                _ => return None,
            }
        }
        given.next().is_none().then_some(params)
    }

    /// Whether both match the same paths: they differ at most in the names of their parameters.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.shape().eq(other.shape())
    }

    /// Its segments, where each parameter is none.
    pub(crate) fn shape(&self) -> impl Iterator<Item = Option<&str>> {
        self.segments().map(|segment| match segment {
            Segment::Literal(text) => Some(text),
            Segment::Param(_) => None,
        })
    }

    /// Its segments from left to right; the last is empty when it ends in a slash.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0[1..].split('/').map(|text| match param_name(text) {
            Some(name) => Segment::Param(name),
            None => Segment::Literal(text),
        })
    }

    /// Puts the names of its parameters to what they stand for.
    pub(super) fn name<'a>(&'a self, values: &[&'a str]) -> RouteParams<'a> {
        let names = self.segments().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Param(name) => Some(name),
        });
        RouteParams(names.zip(values.iter().copied()).collect())
    }
}

impl<'a> RouteParams<'a> {
    /// What the parameter `name` stands for.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Every parameter with what it stands for, from left to right.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the pattern has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RoutePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn param_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The first thing that is wrong with a route.
fn mistake(text: &str) -> Option<String> {
    let Some(path) = text.strip_prefix('/') else { return Some("it must start with '/'".into()) };
    if text.len() > ROUTE_BYTES_MAX {
        return Some(format!("it has {} bytes; at most {ROUTE_BYTES_MAX} are allowed", text.len()));
    }
    let segments: Vec<&str> = path.split('/').collect();
    if let Some(reserved) = RESERVED.into_iter().find(|reserved| segments[0] == *reserved) {
        return Some(format!("/{reserved} and everything below it is served by the server itself"));
    }
    let mut params: Vec<&str> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        if segment.is_empty() && index + 1 < segments.len() {
            return Some("it has an empty segment ('//')".into());
        }
        if matches!(*segment, "." | "..") {
            return Some(format!("{segment:?} as a segment is resolved by clients and would never match"));
        }
        match param_name(segment) {
            Some(name) if !is_param_name(name) => return Some(format!("{segment:?}: {PARAM_RULE}")),
            Some(name) if params.contains(&name) => return Some(format!("{segment} is there twice")),
            Some(name) => params.push(name),
            None => {
                if let Some(why) = literal_mistake(segment) {
                    return Some(why);
                }
            }
        }
    }
    None
}

fn is_param_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn literal_mistake(segment: &str) -> Option<String> {
    if segment.contains(['{', '}']) {
        return Some(format!("{segment:?}: {PARAM_RULE}"));
    }
    if let Some(wrong) =
        segment.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%".contains(*c)))
    {
        return Some(format!("{wrong:?} cannot be in a path unless it is percent-encoded"));
    }
    let encoded = segment.split('%').skip(1);
    let whole = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    (!encoded.into_iter().all(whole)).then(|| "'%' must be followed by two hexadecimal digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RoutePattern {
        RoutePattern::parse(text).unwrap()
    }

    #[test]
    fn each_bad_route_is_refused_and_says_why() {
        let long = format!("/{}", "x".repeat(ROUTE_BYTES_MAX));
        let cases = [
            ("", "must start with '/'"),
            ("digits", "must start with '/'"),
            ("/a//b", "empty segment"),
            ("//", "empty segment"),
            ("/a?b", "'?' cannot be in a path"),
            ("/a#b", "'#' cannot"),
            ("/a b", "' ' cannot"),
            ("/a\nb", "'\\n' cannot"),
            ("/a\u{7f}", "cannot be in a path"),
            ("/ä", "'ä' cannot be in a path unless it is percent-encoded"),
            ("/a\\b", "cannot"),
            ("/50%", "two hexadecimal digits"),
            ("/%zz", "two hexadecimal digits"),
            ("/a/../b", "resolved by clients"),
            ("/.", "resolved by clients"),
            ("/{}", "a parameter is a whole segment"),
            ("/{1a}", "a parameter is"),
            ("/{a-b}", "a parameter is"),
            ("/x{a}", "a parameter is a whole segment"),
            ("/{a}x", "a parameter is a whole segment"),
            ("/{a", "a parameter is"),
            ("/{a}/b/{a}", "{a} is there twice"),
            ("/-", "served by the server itself"),
            ("/-/healthz", "/- and everything below"),
            ("/metrics", "/metrics and everything below"),
            ("/v2/models/x/infer", "/v2 and everything below"),
            (&long, "1025 bytes; at most 1024"),
        ];
        for (text, why) in cases {
            let error = RoutePattern::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("route: ") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn routes_near_the_refused_ones_are_accepted() {
        for text in
            ["/", "/a", "/a/", "/v2x", "/v1", "/metrics2", "/--", "/{_a1}", "/a/-/b", "/%C3%A4", "/a.b/..."]
        {
            assert_eq!(pattern(text).as_str(), text);
        }
    }

    #[test]
    fn an_exact_route_matches_itself_alone() {
        let route = pattern("/a/b");
        assert!(route.is_exact() && route.matches("/a/b").is_some_and(|params| params.is_empty()));
        for other in ["/a", "/a/b/", "/a/b/c", "/A/b", "a/b", "", "/", "/a//b"] {
            assert!(route.matches(other).is_none(), "{other}");
        }
        assert!(pattern("/").matches("/").is_some());
        assert!(pattern("/a/").matches("/a").is_none());
    }

    #[test]
    fn a_parameter_stands_for_one_segment_that_is_not_empty() {
        let route = pattern("/u/{user}/p/{photo}");
        assert!(!route.is_exact());
        let params = route.matches("/u/a%20b/p/7").unwrap();
        assert_eq!(params.iter().collect::<Vec<_>>(), [("user", "a%20b"), ("photo", "7")]);
        assert_eq!((params.len(), params.get("photo"), params.get("x")), (2, Some("7"), None));
        for other in ["/u//p/7", "/u/a/p/", "/u/a/p", "/u/a/p/7/", "/u/a/q/7"] {
            assert!(route.matches(other).is_none(), "{other}");
        }
        assert!(pattern("/{a}").matches("/").is_none());
    }

    #[test]
    fn patterns_of_the_same_shape_conflict() {
        let conflict = |a: &str, b: &str| pattern(a).conflicts(&pattern(b));
        assert!(conflict("/a/{x}", "/a/{y}") && conflict("/a", "/a"));
        assert!(!conflict("/a/{x}", "/a/b") && !conflict("/a", "/a/") && !conflict("/{x}", "/{x}/{y}"));
    }
}
