//! `RouteTable`: finds the route that a path belongs to, among tens of thousands.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::pattern::{RouteParams, RoutePattern, Segment};
use crate::error::ServeError;

/// Values by their routes.
///
/// An exact route comes before any pattern. Among patterns that match, segments are compared from the left and
/// text comes before a parameter, so the one with the earliest text segment wins: for `/a/b`, `/a/{x}` comes
/// before `/{x}/b`. The order in which they were inserted never matters.
///
/// ```
/// use greenroom::{RoutePattern, RouteTable};
/// let mut table = RouteTable::default();
/// table.insert(RoutePattern::parse("/users/{user}")?, 1)?;
/// table.insert(RoutePattern::parse("/users/me")?, 2)?;
/// assert_eq!(table.find("/users/me").unwrap().0, &2);
/// let (value, params) = table.find("/users/ada").unwrap();
/// assert_eq!((value, params.get("user")), (&1, Some("ada")));
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    routes: Vec<(RoutePattern, T)>,
    /// Index into `routes` of each route without parameters.
    exact: HashMap<Box<str>, usize>,
    /// Routes with parameters, segment by segment.
    patterns: Branch,
}

/// All patterns that begin with the same segments.
#[derive(Clone, Debug, Default)]
struct Branch {
    literals: HashMap<Box<str>, Branch>,
    param: Option<Box<Branch>>,
    /// Index into `routes` of the pattern that ends here.
    end: Option<usize>,
}

/// What the parameters stand for, while a pattern is searched.
type Values<'a> = SmallVec<[&'a str; 4]>;

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { routes: Vec::new(), exact: HashMap::new(), patterns: Branch::default() }
    }
}

impl<T> RouteTable<T> {
    /// Adds a route.
    ///
    /// # Errors
    /// [`ServeError::AlreadyExists`] with the route that is there already when both match the same paths.
    pub fn insert(&mut self, route: RoutePattern, value: T) -> Result<(), ServeError> {
        let index = self.routes.len();
        let first = match route.is_exact() {
            true => *self.exact.entry(route.as_str().into()).or_insert(index),
            false => *self.patterns.leaf(&route).end.get_or_insert(index),
        };
        if first != index {
            let name = self.routes[first].0.as_str().into();
            return Err(ServeError::AlreadyExists { what: "route", name });
        }
        self.routes.push((route, value));
        Ok(())
    }

    /// The value of the route that `path` belongs to, and what its parameters stand for, still percent-encoded.
    ///
    /// An exact hit is one look-up and allocates nothing.
    pub fn find<'a>(&'a self, path: &'a str) -> Option<(&'a T, RouteParams<'a>)> {
        if let Some(&index) = self.exact.get(path) {
            return Some((&self.routes[index].1, RouteParams::default()));
        }
        let mut values = Values::new();
        let index = self.patterns.find(Some(path.strip_prefix('/')?), &mut values)?;
        let (route, value) = &self.routes[index];
        Some((value, route.name(&values)))
    }

    /// Every route with its value, in the order in which they were inserted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RoutePattern, &T)> {
        self.routes.iter().map(|(route, value)| (route, value))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl Branch {
    /// Where `route` ends, made on the way.
    fn leaf(&mut self, route: &RoutePattern) -> &mut Self {
        route.segments().fold(self, |branch, segment| match segment {
            Segment::Literal(text) => branch.literals.entry(text.into()).or_default(),
            Segment::Param(_) => branch.param.get_or_insert_default(),
        })
    }

    /// The first pattern that the rest of a path matches, text before parameters; pushes what those stand for.
    ///
    /// Each branch is visited once at most, so a path costs no more than the patterns that share its beginnings.
    fn find<'a>(&self, rest: Option<&'a str>, values: &mut Values<'a>) -> Option<usize> {
        let Some(rest) = rest else { return self.end };
        let (segment, deeper) = match rest.split_once('/') {
            Some((segment, deeper)) => (segment, Some(deeper)),
            None => (rest, None),
        };
        if let Some(found) = self.literals.get(segment).and_then(|branch| branch.find(deeper, values)) {
            return Some(found);
        }
        let param = self.param.as_ref().filter(|_| !segment.is_empty())?;
        values.push(segment);
        let found = param.find(deeper, values);
        if found.is_none() {
            values.pop();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table<'a>(routes: impl IntoIterator<Item = &'a str>) -> RouteTable<&'a str> {
        let mut table = RouteTable::default();
        for route in routes {
            table.insert(RoutePattern::parse(route).unwrap(), route).unwrap();
        }
        table
    }

    fn found<'a>(table: &RouteTable<&'a str>, path: &str) -> Option<&'a str> {
        table.find(path).map(|(route, _)| *route)
    }

    #[test]
    fn exact_comes_before_patterns_and_early_text_before_late() {
        let mut routes = ["/{a}/{b}", "/{a}/c", "/b/{c}", "/b/c", "/{a}/{b}/c", "/{a}", "/b/{c}/"];
        for _ in 0..2 {
            let table = table(routes);
            let cases = [
                ("/b/c", Some("/b/c")),
                ("/b/x", Some("/b/{c}")),
                ("/x/c", Some("/{a}/c")),
                ("/x/y", Some("/{a}/{b}")),
                ("/b/c/c", Some("/{a}/{b}/c")),
                ("/b/c/", Some("/b/{c}/")),
                ("/x/y/", None),
                ("/b", Some("/{a}")),
                ("/", None),
                ("//", None),
                ("", None),
                ("b/c", None),
            ];
            for (path, route) in cases {
                assert_eq!(found(&table, path), route, "{path}");
            }
            routes.reverse();
        }
    }

    #[test]
    fn a_blind_alley_leaves_no_parameter_behind() {
        let table = table(["/a/{x}/{y}/d", "/{p}/b/{q}/e"]);
        let (_, params) = table.find("/a/b/c/e").unwrap();
        assert_eq!(params.iter().collect::<Vec<_>>(), [("p", "a"), ("q", "c")]);
    }

    #[test]
    fn a_route_of_the_same_shape_is_refused_and_nothing_changes() {
        let mut table = table(["/a/{x}", "/a/b"]);
        for (again, taken) in [("/a/{y}", "/a/{x}"), ("/a/b", "/a/b")] {
            let error = table.insert(RoutePattern::parse(again).unwrap(), "new").unwrap_err();
            assert_eq!(error.to_string(), format!("route {taken} exists already"));
        }
        assert_eq!(
            (table.len(), found(&table, "/a/b"), found(&table, "/a/z")),
            (2, Some("/a/b"), Some("/a/{x}"))
        );
    }

    #[test]
    fn ten_thousand_routes_are_all_found() {
        let exact = (0..5000).map(|i| format!("/models/m{i}"));
        let patterns = (0..5000).map(|i| format!("/users/u{i}/{{photo}}"));
        let routes: Vec<String> = exact.chain(patterns).collect();
        let table = table(routes.iter().map(String::as_str));
        assert_eq!((table.len(), table.is_empty(), table.iter().len()), (10_000, false, 10_000));
        for route in &routes {
            let path = route.replace("{photo}", "7");
            assert_eq!(found(&table, &path), Some(route.as_str()));
        }
        assert_eq!(found(&table, "/models/m5000"), None);
    }

    proptest! {
        #[test]
        fn it_finds_what_asking_each_pattern_finds(
            routes in prop::collection::hash_set(
                "/(a|b|\\{x\\})(/(a|b|\\{y\\})(/(a|b|\\{z\\}))?)?/?", 1..30,
            ),
            path in "(/[abc]){1,3}/?",
        ) {
            let table = table(routes.iter().map(String::as_str));
            // Text sorts before a parameter, segment by segment.
            let key = |route: &&String| route.split('/').map(|s| s.starts_with('{')).collect::<Vec<_>>();
            let best = routes
                .iter()
                .filter(|route| RoutePattern::parse(route).unwrap().matches(&path).is_some())
                .min_by_key(|route| (route.contains('{'), key(route)));
            prop_assert_eq!(found(&table, &path), best.map(String::as_str));
        }
    }
}
