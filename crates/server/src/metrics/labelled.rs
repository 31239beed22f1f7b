//! Families with labels: one metric per combination of label values, made at first use.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::cells::{Counter, Gauge, Histogram};
use super::encode::{Metric, Text, label};

/// A family whose metrics differ in `N` labels.
///
/// The map is read under a shared lock for every lookup, so callers on a busy path look their
/// metric up once and keep the `Arc`. Label values come from closed sets of ours (operations,
/// outcomes, versions), never from requests: a client cannot make the map grow.
pub struct Labelled<M, const N: usize> {
    names: [&'static str; N],
    make: fn() -> M,
    metrics: RwLock<BTreeMap<[String; N], Arc<M>>>,
}

/// Counters by label.
pub type Counters<const N: usize> = Labelled<Counter, N>;
/// Gauges by label.
pub type Gauges<const N: usize> = Labelled<Gauge, N>;
/// Histograms by label.
pub type Histograms<const N: usize> = Labelled<Histogram, N>;

impl<M, const N: usize> Labelled<M, N> {
    /// A family with these label names, in alphabetical order as the format prints them.
    pub(super) fn new(names: [&'static str; N], make: fn() -> M) -> Labelled<M, N> {
        debug_assert!(names.is_sorted(), "{names:?}");
        Labelled {
            names,
            make,
            metrics: RwLock::default(),
        }
    }

    /// The metric of these label values, given in the order of the label names.
    pub fn with(&self, values: [&str; N]) -> Arc<M> {
        let key = values.map(str::to_owned);
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = metrics.get(&key) {
            return metric.clone();
        }
        drop(metrics);
        let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
        metrics
            .entry(key)
            .or_insert_with(|| Arc::new((self.make)()))
            .clone()
    }
}

impl<const N: usize> Labelled<Gauge, N> {
    /// Sets the gauges of these label values to 1, and all that were there before to 0.
    pub fn set_only(&self, values: &[[&str; N]]) {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        for (key, gauge) in metrics.iter() {
            let is_on = values.iter().any(|on| key.iter().eq(on.iter()));
            gauge.set(i64::from(is_on));
        }
        drop(metrics);
        for on in values {
            self.with(*on).set(1);
        }
    }
}

impl<M: Metric, const N: usize> Labelled<M, N> {
    pub(super) fn write(&self, name: &str, text: &mut Text) {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        for (values, metric) in metrics.iter() {
            let labels: Vec<String> = self
                .names
                .iter()
                .zip(values)
                .map(|(name, value)| label(name, value))
                .collect();
            metric.write(name, &labels.join(","), text);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.metrics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}
