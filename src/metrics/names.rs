//! Names of users' metrics, so that no family of the Prometheus text is there twice.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use metrics_exporter_prometheus::formatting::sanitize_metric_name;

/// What our own families begin with, now and later.
const OWN: &str = "serve_";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// The names that it prints under.
    fn printed(self, name: &str) -> Vec<String> {
        let ends: &[&str] = match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_sum", "_count", "_bucket"],
        };
        ends.iter().map(|end| format!("{name}{end}")).collect()
    }
}

/// Who prints under which name. As many as the exporter keeps metrics of, which is for good.
#[derive(Debug, Default)]
pub(crate) struct UserNames(Mutex<HashMap<String, (Kind, String)>>);

impl UserNames {
    /// The name that a metric called `given` has in the text: `serve_x` becomes `user_serve_x`, and a name that a
    /// metric of another kind prints under already gets its kind at the end.
    pub(crate) fn name(&self, given: &str, kind: Kind) -> String {
        let mut name = sanitize_metric_name(given);
        if name.starts_with(OWN) {
            name.insert_str(0, "user_");
        }
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let owner = (kind, name.clone());
            let printed = kind.printed(&name);
            if printed.iter().all(|printed| taken.get(printed).is_none_or(|other| *other == owner)) {
                taken.extend(printed.into_iter().map(|printed| (printed, owner.clone())));
                return name;
            }
            name = format!("{name}_{}", kind.word());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_belongs_to_one_kind_and_ours_to_none() {
        let names = UserNames::default();
        for _ in 0..2 {
            assert_eq!(names.name("serve_batch_size", Kind::Counter), "user_serve_batch_size");
            assert_eq!(names.name("serve.batch size", Kind::Counter), "user_serve_batch_size");
            assert_eq!(names.name("x", Kind::Counter), "x");
            assert_eq!(names.name("x", Kind::Gauge), "x_gauge");
            assert_eq!(names.name("x", Kind::Histogram), "x_histogram");
            assert_eq!(names.name("y", Kind::Histogram), "y");
            assert_eq!(names.name("y_count", Kind::Counter), "y_count_counter");
            assert_eq!(names.name("z_sum", Kind::Gauge), "z_sum");
            assert_eq!(names.name("z", Kind::Histogram), "z_histogram");
        }
    }
}
