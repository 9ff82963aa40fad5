//! Series that other layers count: they are read when somebody asks.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// What a series tells of `T`.
pub(crate) enum Value<T> {
    Int(fn(&T) -> u64),
    Float(fn(&T) -> f64),
    /// The series is not shown without a figure.
    Maybe(fn(&T) -> Option<u64>),
}

/// A series without labels of its own.
pub(crate) struct Figure<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: Value<T>,
}

impl<T> Figure<T> {
    /// Never falls.
    pub(crate) const fn counter(name: &'static str, help: &'static str, value: Value<T>) -> Self {
        Self { name, help, kind: MetricType::COUNTER, value }
    }

    /// May rise and fall.
    pub(crate) const fn gauge(name: &'static str, help: &'static str, value: Value<T>) -> Self {
        Self { name, help, kind: MetricType::GAUGE, value }
    }

    fn of(&self, seen: &T) -> Option<f64> {
        match self.value {
            Value::Int(f) => Some(f(seen) as f64),
            Value::Float(f) => Some(f(seen)),
            Value::Maybe(f) => f(seen).map(|n| n as f64),
        }
    }
}

/// A table of series, and where the figures come from.
pub(crate) struct Figures<T: 'static> {
    table: &'static [Figure<T>],
    descs: Vec<Desc>,
    look: Box<dyn Fn() -> Option<T> + Send + Sync>,
}

impl<T> Figures<T> {
    /// Shows what `look` sees; nothing when it sees nothing.
    pub(crate) fn new(
        table: &'static [Figure<T>],
        look: impl Fn() -> Option<T> + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let descs = table.iter().map(|f| desc(f.name, f.help, &[])).collect::<prometheus::Result<_>>()?;
        Ok(Self { table, descs, look: Box::new(look) })
    }
}

impl<T> Collector for Figures<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(seen) = (self.look)() else { return Vec::new() };
        let shown = self.table.iter().filter_map(|f| {
            let value = f.of(&seen)?;
            Some(family(f.name, f.help, f.kind, vec![metric(f.kind, value, &[])]))
        });
        shown.collect()
    }
}

/// What a series is called.
pub(crate) fn desc(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Desc> {
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
}

/// Series of one name.
pub(crate) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// One series of a family.
pub(crate) fn metric(kind: MetricType, value: f64, labels: &[(&str, String)]) -> Metric {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let pair = |(name, value): &(&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    metric.set_label(labels.iter().map(pair).collect());
    metric
}
