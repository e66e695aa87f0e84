//! How a measure went over time, for the plot.

use serde_json::{Value as Json, json};

/// How values are spread over a chart's height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0 on.
    Linear,
    /// By powers of ten: a line of tails is then not hidden by its highest point.
    Logarithmic,
}

/// A part of the time that has a name.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    /// Seconds.
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Lines over one axis of seconds.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    /// With its unit.
    pub(crate) name: String,
    pub(crate) scale: Scale,
    pub(crate) spans: Vec<Span>,
    /// When each value was taken, in seconds.
    pub(crate) seconds: Vec<f64>,
    /// Each with a value for each of `seconds`.
    pub(crate) lines: Vec<(&'static str, Vec<f64>)>,
}

impl Timeline {
    /// All of it, for machines.
    pub(crate) fn to_json(&self) -> Json {
        let lines: Vec<Json> = self.lines.iter().map(|(name, values)| json!({"name": name, "values": values})).collect();
        let spans: Vec<Json> =
            self.spans.iter().map(|span| json!({"name": span.name, "from": span.from, "to": span.to})).collect();
        json!({"name": self.name, "seconds": self.seconds, "spans": spans, "lines": lines})
    }
}
