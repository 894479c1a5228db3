//! A strict reader of the Prometheus text format: whatever it does not know is an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Every series by family: labels (sorted) and value.
#[derive(Debug, Default)]
pub struct Scrape {
    pub kinds: HashMap<String, String>,
    pub series: BTreeMap<String, BTreeMap<BTreeMap<String, String>, f64>>,
}

impl Scrape {
    /// Reads a text; panics at its first mistake.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let (mut scrape, mut helped, mut current) = (Self::default(), BTreeSet::new(), String::new());
        let mut done = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap();
                assert!(helped.insert(name.to_owned()), "HELP twice: {line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                assert!(scrape.kinds.insert(name.into(), kind.into()).is_none(), "TYPE twice: {line}");
                assert!(done.insert(name.to_owned()), "a family in two places: {line}");
                current = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let kind = &scrape.kinds[&current];
                let family = match base {
                    Some(base) if kind == "histogram" || kind == "summary" => base,
                    _ => name.as_str(),
                };
                assert_eq!(family, current, "a sample outside its family: {line}");
                let old = scrape.series.entry(name.clone()).or_default().insert(labels, value);
                assert!(old.is_none(), "a series twice: {line}");
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// The value of a series, whose labels are all given.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let family = self.series.get(name).unwrap_or_else(|| panic!("no {name} in {self:#?}"));
        *family.get(&labels).unwrap_or_else(|| panic!("no {labels:?} in {family:#?}"))
    }

    fn check_histograms(&self) {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut rows: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            for (labels, value) in self.series.get(&format!("{name}_bucket")).into_iter().flatten() {
                let mut labels = labels.clone();
                let bound = match labels.remove("le").unwrap().as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap(),
                };
                rows.entry(labels).or_default().push((bound, *value));
            }
            for (labels, mut row) in rows {
                row.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(row.windows(2).all(|two| two[0].1 <= two[1].1), "{name} {labels:?}: {row:?}");
                let (last, count) = (row.last().unwrap(), self.series[&format!("{name}_count")][&labels]);
                assert_eq!((last.0, last.1), (f64::INFINITY, count), "{name} {labels:?}");
                assert!(self.series[&format!("{name}_sum")].contains_key(&labels));
            }
        }
    }
}

/// `name{a="b",c="d"} 1` or `name 1`.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
    assert!(word(name) && !name.is_empty(), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while let Some((key, value)) = rest.split_once("=\"") {
            assert!(word(key), "{line}");
            let mut text = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (_, '\\') => text.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("\\{c} in {line}"),
                    }),
                    (at, '"') => break at,
                    (_, c) => text.push(c),
                }
            };
            assert!(labels.insert(key.to_owned(), text).is_none(), "label {key} twice: {line}");
            rest = &value[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect(line);
    }
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, value.parse().expect(line))
}

#[test]
fn the_reader_refuses_what_is_wrong() {
    let good = "# HELP a b c\n# TYPE a counter\na{x=\"1\\n\\\"\"} 1\na 2\n";
    assert_eq!(Scrape::read(good).value("a", &[("x", "1\n\"")]), 1.0);
    let head = "# TYPE a histogram\n";
    for bad in [
        "# TYPE a counter\na 1\na 1\n",
        "# TYPE a counter\nb 1\n",
        "# TYPE a counter\n# TYPE a counter\n",
        "# TYPE a counter\na{x=\"1\",x=\"2\"} 1\n",
        &format!("{head}a_bucket{{le=\"1\"}} 2\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"),
        &format!("{head}a_bucket{{le=\"1\"}} 1\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n"),
    ] {
        assert!(std::panic::catch_unwind(|| Scrape::read(bad)).is_err(), "{bad}");
    }
}
