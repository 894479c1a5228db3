//! A recorder that gives every metric the labels of one replica, and a name that is no other's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::{
    ids::ReplicaId,
    metrics::names::{Kind, UserNames},
};

/// Metrics of one kind that a replica remembers; labels that are made up anew each time must not pile up here too.
const KNOWN_MAX: usize = 1024;

/// A recorder that gives every metric the labels of one replica.
pub(crate) struct Labelled {
    inner: Arc<PrometheusRecorder>,
    names: Arc<UserNames>,
    labels: [Label; 2],
    counters: Known<Counter>,
    gauges: Known<Gauge>,
    histograms: Known<Histogram>,
}

impl Labelled {
    pub(crate) fn new(inner: Arc<PrometheusRecorder>, names: Arc<UserNames>, replica: &ReplicaId) -> Self {
        // Shared, so that a metric's own copy of them costs nothing.
        let shared = |text: &str| SharedString::from(Arc::<str>::from(text));
        let labels = [
            Label::new("backend", shared(replica.backend.as_str())),
            Label::new("replica", shared(&replica.slot.to_string())),
        ];
        let (counters, gauges, histograms) = (Known::default(), Known::default(), Known::default());
        Self { inner, names, labels, counters, gauges, histograms }
    }

    fn key(&self, key: &Key, kind: Kind) -> Key {
        // Of two labels with one name the exporter keeps the last: ours.
        let labels = key.labels().chain(&self.labels).cloned().collect::<Vec<_>>();
        Key::from_parts(self.names.name(key.name(), kind), labels)
    }

    fn name(&self, key: &KeyName, kind: Kind) -> KeyName {
        KeyName::from(self.names.name(key.as_str(), kind))
    }
}

/// What the exporter has made for the keys that user code gives: its macros ask for it each time.
struct Known<H>(Mutex<HashMap<Key, H>>);

impl<H> Default for Known<H> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<H: Clone> Known<H> {
    fn get(&self, key: &Key, make: impl FnOnce() -> H) -> H {
        // One replica's alone, so that nearly always nobody else has it.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.get(key) {
            return handle.clone();
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let handle = make();
        known.insert(key.clone(), handle.clone());
        handle
    }
}

impl Recorder for Labelled {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_counter(self.name(&key, Kind::Counter), unit, text);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_gauge(self.name(&key, Kind::Gauge), unit, text);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_histogram(self.name(&key, Kind::Histogram), unit, text);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.counters.get(key, || self.inner.register_counter(&self.key(key, Kind::Counter), metadata))
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.gauges.get(key, || self.inner.register_gauge(&self.key(key, Kind::Gauge), metadata))
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let make = || self.inner.register_histogram(&self.key(key, Kind::Histogram), metadata);
        self.histograms.get(key, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_made_once_while_it_is() {
        let known = Known::default();
        let mut made = 0;
        for round in 0..3 {
            for i in 0..KNOWN_MAX {
                let value = known.get(&Key::from_name(format!("k{i}")), || {
                    made += 1;
                    i
                });
                assert_eq!((value, made.min(KNOWN_MAX)), (i, if round == 0 { i + 1 } else { KNOWN_MAX }));
            }
        }
        assert_eq!(made, KNOWN_MAX);
        known.get(&Key::from_name("one more"), || 0);
        assert_eq!(known.0.lock().unwrap().len(), 1);
    }
}
