//! A recorder that gives every metric the labels of one replica.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::ids::ReplicaId;

/// A recorder that gives every metric the labels of one replica.
pub(crate) struct Labelled {
    inner: Arc<PrometheusRecorder>,
    labels: [Label; 2],
}

impl Labelled {
    pub(crate) fn new(inner: Arc<PrometheusRecorder>, replica: &ReplicaId) -> Self {
        let labels = [
            Label::new("backend", replica.backend.as_str().to_owned()),
            Label::new("replica", replica.slot.to_string()),
        ];
        Self { inner, labels }
    }

    fn key(&self, key: &Key) -> Key {
        // Of two labels with one name the exporter keeps the last: ours.
        let labels = key.labels().chain(&self.labels).cloned().collect::<Vec<_>>();
        Key::from_parts(key.name().to_owned(), labels)
    }
}

impl Recorder for Labelled {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_counter(key, unit, text);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_gauge(key, unit, text);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_histogram(key, unit, text);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.inner.register_counter(&self.key(key), metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.inner.register_gauge(&self.key(key), metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.inner.register_histogram(&self.key(key), metadata)
    }
}
