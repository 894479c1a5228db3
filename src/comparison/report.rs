//! What a comparison says of itself: counts, rates, and pairs that differed, for people and machines.

use std::{fmt, sync::PoisonError};

use serde::Serialize;

use super::Comparison;
use crate::{ids::BackendName, metrics::comparison::Comparisons, traffic::Compare};

/// What came of the comparisons of one shadow rule since it was set, or last changed. Its `Display` is a report
/// for people.
#[derive(Clone, Debug, Serialize)]
pub struct ComparisonReport {
    /// How answers are compared.
    pub compare: Compare,
    /// The shadow backend compared with the backends that served.
    pub shadow: Comparisons,
    /// The share of compared pairs that agreed, 0 to 1; none while nothing has been compared.
    pub agreement: Option<f64>,
    /// The backends that served compared with themselves.
    pub noise: Comparisons,
    /// The share of those pairs that differed, 0 to 1: as much of the shadow's difference is no fault of its
    /// own. None while there was none.
    pub noise_rate: Option<f64>,
    /// The last pairs that differed, the oldest first.
    pub sample: Vec<DifferingPair>,
    /// Why a comparison last failed, if one has.
    pub last_failure: Option<String>,
}

/// Two answers to one request that differed.
#[derive(Clone, Debug, Serialize)]
pub struct DifferingPair {
    /// The request.
    pub request_id: String,
    /// The backend whose answer the caller got.
    pub served_by: BackendName,
    /// Where they first differed: `outputs[0].data[3]` in JSON or tensors, `$` for the whole, `(status)`,
    /// `(error)`, or `(body)[17]`, a byte of a body that is no JSON.
    pub path: String,
    /// The answer that the caller got.
    pub primary: SideOfPair,
    /// The answer that nobody got.
    pub shadow: SideOfPair,
}

/// One of two answers that differed.
#[derive(Clone, Debug, Serialize)]
pub struct SideOfPair {
    /// What stood where they first differed; at most 256 bytes.
    pub found: String,
    /// The whole answer as JSON or text, or the error; at most 2 KiB.
    pub answer: String,
    /// From sending to the answer, in milliseconds; of the primary, until its caller had it.
    pub latency_ms: f64,
}

impl Comparison {
    /// What it has found so far.
    pub(crate) fn report(&self) -> ComparisonReport {
        let (shadow, noise) = self.counts.read();
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let last_failure = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ComparisonReport {
            compare: self.compare.clone(),
            agreement: shadow.agreement(),
            shadow,
            noise_rate: noise.agreement().map(|agreed| 1.0 - agreed),
            noise,
            sample,
            last_failure,
        }
    }
}

impl fmt::Display for ComparisonReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compare, shadow, agreement, noise, noise_rate, sample, last_failure } = self;
        let percent = |rate: &Option<f64>| {
            rate.map_or_else(|| "nothing compared".to_owned(), |rate| format!("{:.2} %", rate * 100.0))
        };
        writeln!(f, "compared: {compare}")?;
        writeln!(f, "agreement: {} ({})", percent(agreement), counts(shadow))?;
        if compare.noise_floor_share() > 0.0 {
            let rate = percent(noise_rate);
            writeln!(f, "noise floor: {rate} differ from themselves ({})", counts(noise))?;
        }
        if let Some(why) = last_failure {
            writeln!(f, "last failure: {why}")?;
        }
        for DifferingPair { request_id, served_by, path, primary, shadow } in sample {
            writeln!(f, "request {request_id} at {path}")?;
            writeln!(f, "  {served_by}: {} in {:.2} ms", primary.found, primary.latency_ms)?;
            writeln!(f, "  shadow: {} in {:.2} ms", shadow.found, shadow.latency_ms)?;
        }
        Ok(())
    }
}

fn counts(of: &Comparisons) -> String {
    let told = of.outcomes().into_iter().filter(|(_, n)| *n > 0).map(|(outcome, n)| format!("{n} {outcome}"));
    let told: Vec<_> = told.collect();
    if told.is_empty() { "none".into() } else { told.join(", ") }
}
