//! `Query`: what stands behind the question mark, with every mistake told at once.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    config::limits::TIMEOUT_MAX,
    error::{Problem, ServeError},
};

/// Keys and values of a query, to be taken one by one; what nobody takes is a mistake.
#[derive(Debug)]
pub(super) struct Query {
    given: Vec<(String, String)>,
    allowed: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        // Any text is a list of pairs; what is not UTF-8 is replaced.
        let given = serde_urlencoded::from_str(text).unwrap_or_default();
        Self { given, allowed: Vec::new(), problems: Vec::new() }
    }

    /// `true`, `false`, or what it is when it is not there.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key).as_deref() {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                self.wrong(key, &format!("{other:?} was given; allowed: true or false"));
                default
            }
        }
    }

    /// A whole number within bounds, or what it is when it is not there.
    pub(super) fn number(&mut self, key: &'static str, bounds: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(given) = self.take(key) else { return default };
        let number = given.parse().ok().filter(|number| bounds.contains(number));
        number.unwrap_or_else(|| {
            let (least, most) = bounds.into_inner();
            self.wrong(key, &format!("{given:?} was given; allowed: a whole number from {least} to {most}"));
            default
        })
    }

    /// A time in seconds, more than 0.
    pub(super) fn timeout(&mut self, key: &'static str) -> Option<Duration> {
        let given = self.take(key)?;
        let seconds = given.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let allowed = seconds.filter(|seconds| !seconds.is_zero() && *seconds <= TIMEOUT_MAX);
        if allowed.is_none() {
            let max = TIMEOUT_MAX.as_secs();
            let what =
                format!("{given:?} was given; allowed: a number of seconds, more than 0 and at most {max}");
            self.wrong(key, &what);
        }
        allowed
    }

    /// Every mistake, those of keys that nobody took too.
    pub(super) fn finish(&mut self) -> Result<(), ServeError> {
        let allowed = if self.allowed.is_empty() { "none".into() } else { self.allowed.join(", ") };
        for (key, _) in std::mem::take(&mut self.given) {
            let twice = self.allowed.contains(&key.as_str());
            let what = if twice { "given twice".into() } else { format!("unknown key; allowed: {allowed}") };
            self.wrong(&key, &what);
        }
        let problems = std::mem::take(&mut self.problems);
        if problems.is_empty() { Ok(()) } else { Err(ServeError::InvalidConfig(problems)) }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.allowed.push(key);
        let at = self.given.iter().position(|(given, _)| given == key)?;
        Some(self.given.remove(at).1)
    }

    fn wrong(&mut self, key: &str, what: &str) {
        let shown: String = key.chars().take(60).collect();
        self.problems.push(Problem { place: format!("query.{shown}"), what: what.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_read() {
        let mut query = Query::parse("dry_run=true&timeout_s=1.5");
        assert!(query.flag("dry_run", false) && query.flag("wait", true));
        assert_eq!(query.timeout("timeout_s"), Some(Duration::from_millis(1500)));
        query.finish().unwrap();
    }

    #[test]
    fn a_number_is_whole_and_within_its_bounds() {
        for (given, read) in [("", 7), ("max=1", 1), ("max=9", 9)] {
            let mut query = Query::parse(given);
            assert_eq!(query.number("max", 1..=9, 7), read);
            query.finish().unwrap();
        }
        for given in ["0", "10", "-1", "1.5", "", "a"] {
            let mut query = Query::parse(&format!("max={given}"));
            query.number("max", 1..=9, 7);
            let error = query.finish().unwrap_err().to_string();
            assert!(error.contains("a whole number from 1 to 9"), "{given}: {error}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let mut query = Query::parse("dry_run=yes&wait=true&wait=false&timeout_s=0&color=red&flag");
        query.flag("dry_run", false);
        query.flag("wait", true);
        query.timeout("timeout_s");
        let error = query.finish().unwrap_err().to_string();
        for part in [
            "5 problems",
            "query.dry_run: \"yes\" was given; allowed: true or false",
            "query.wait: given twice",
            "query.timeout_s: \"0\" was given",
            "query.color: unknown key; allowed: dry_run, wait, timeout_s",
            "query.flag: unknown key",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        for timeout in ["-1", "NaN", "inf", "1e30", "", "a"] {
            let mut query = Query::parse(&format!("timeout_s={timeout}"));
            assert_eq!(query.timeout("timeout_s"), None);
            query.finish().unwrap_err();
        }
    }
}
