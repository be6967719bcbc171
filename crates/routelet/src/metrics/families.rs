//! The registry of metrics, and families that know the names of their labels.
//!
//! What a family is called and what it says is written once, where it is registered; docs/metrics.md is made
//! from the same words.

use std::borrow::Cow;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

/// What all names begin with.
const PREFIX: &str = "routelet";

type LabelSet<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Metrics of one name, told apart by `N` labels.
#[derive(Debug)]
pub(super) struct Labelled<const N: usize, M> {
    labels: [&'static str; N],
    family: Family<LabelSet<N>, M>,
}

impl<const N: usize, M: Default + Clone> Labelled<N, M> {
    fn new(labels: [&'static str; N]) -> Self {
        Self {
            labels,
            family: Family::default(),
        }
    }

    /// The metric whose labels have these values; from then on, it is shown.
    pub(super) fn with(&self, values: [impl Into<Cow<'static, str>>; N]) -> M {
        let mut names = self.labels.into_iter();
        let set = values.map(|value| (names.next().unwrap_or_default(), value.into()));
        self.family.get_or_create_owned(&set)
    }
}

/// All families.
#[derive(Debug)]
pub(super) struct Families {
    registry: Registry,
    /// What was registered, for the documentation.
    #[cfg(test)]
    pub(super) documented: Vec<Documented>,
}

/// A registered family.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Documented {
    /// The name as Prometheus stores it.
    pub(super) name: String,
    /// Type, in Prometheus' words.
    pub(super) kind: String,
    /// Names of the labels.
    pub(super) labels: Vec<&'static str>,
    /// What it says, in one sentence.
    pub(super) help: &'static str,
}

/// The methods take a name without the prefix, the unit and the `_total` of counters, which follow by
/// themselves, and a help text without the full stop at its end, likewise.
impl Families {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::with_prefix(PREFIX),
            #[cfg(test)]
            documented: Vec::new(),
        }
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.add(name, help, &[], None, Counter::default())
    }

    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Labelled<N, Counter> {
        let labelled = Labelled::new(labels);
        self.add(name, help, &labels, None, labelled.family.clone());
        labelled
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.add(name, help, &[], None, Gauge::default())
    }

    pub(super) fn gauges<const N: usize, M: Metric + Default + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        unit: Option<Unit>,
    ) -> Labelled<N, M>
    where
        Family<LabelSet<N>, M>: Metric,
    {
        let labelled = Labelled::new(labels);
        self.add(name, help, &labels, unit, labelled.family.clone());
        labelled
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        buckets: impl IntoIterator<Item = f64>,
    ) -> Histogram {
        self.add(name, help, &[], unit, Histogram::new(buckets))
    }

    /// All families in the text format of OpenMetrics.
    pub(super) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }

    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "the labels are for the documentation")
    )]
    fn add<M: Metric + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
        unit: Option<Unit>,
        metric: M,
    ) -> M {
        #[cfg(test)]
        self.documented
            .push(Documented::new(name, help, labels, unit.as_ref(), &metric));
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
            None => self.registry.register(name, help, metric.clone()),
        }
        metric
    }
}

#[cfg(test)]
impl Documented {
    fn new(
        name: &str,
        help: &'static str,
        labels: &[&'static str],
        unit: Option<&Unit>,
        metric: &impl Metric,
    ) -> Self {
        let kind = metric.metric_type().as_str().to_owned();
        let mut full = format!("{PREFIX}_{name}");
        if let Some(unit) = unit {
            full = format!("{full}_{}", unit.as_str());
        }
        if kind == "counter" {
            full.push_str("_total");
        }
        Self {
            name: full,
            kind,
            labels: labels.to_vec(),
            help,
        }
    }
}
