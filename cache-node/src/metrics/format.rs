//! Series as text: OpenMetrics for those who ask for it, Prometheus's older form for the others.

use std::fmt;

use hyper::header::HeaderValue;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What a client's Accept headers ask for. Who asks for nothing gets what everybody reads.
    pub(crate) fn wanted<'a>(accepts: impl IntoIterator<Item = &'a HeaderValue>) -> Format {
        let (mut open, mut plain) = (0.0, 0.0);
        for value in accepts.into_iter().filter_map(|accept| accept.to_str().ok()) {
            for range in value.split(',') {
                let mut words = range.split(';').map(str::trim);
                let kind = words.next().unwrap_or_default().to_ascii_lowercase();
                let quality = words.find_map(|word| word.strip_prefix("q=")).and_then(|quality| quality.parse::<f32>().ok());
                let best = match kind.as_str() {
                    "application/openmetrics-text" => &mut open,
                    "text/plain" | "text/*" | "*/*" => &mut plain,
                    _ => continue,
                };
                *best = quality.unwrap_or(1.0).max(*best);
            }
        }
        if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The text of what `collector` has.
    pub(crate) fn render(self, collector: impl Collector) -> Option<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(collector));
        let mut body = String::new();
        let written = match self {
            Format::OpenMetrics => text::encode(&mut body, &registry),
            Format::Prometheus => prometheus_text::encode(&mut body, &registry),
        };
        written.inspect_err(|error| tracing::error!(%error, "metrics could not be written")).ok().map(|()| body)
    }
}

/// The labels of one series.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// A number that stays whole where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(u64),
    Real(f64),
}

/// Writes the families of a collector.
#[derive(Debug)]
pub(crate) struct Series<'a>(pub(crate) DescriptorEncoder<'a>);

impl Series<'_> {
    /// A counter with a series per set of labels. `_total` is put behind the name.
    pub(crate) fn counter(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        series: impl IntoIterator<Item = (Labels, Number)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A gauge with a series per set of labels.
    pub(crate) fn gauge(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        series: impl IntoIterator<Item = (Labels, Number)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut prometheus_client::encoding::CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Number::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Number::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut prometheus_client::encoding::GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Number::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Number::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::Format;

    #[test]
    fn who_prefers_openmetrics_gets_it() {
        let wanted = |accept: &'static str| Format::wanted([&HeaderValue::from_static(accept)]);
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(wanted(prometheus), Format::OpenMetrics);
        assert_eq!(wanted("application/openmetrics-text; version=1.0.0; q=0.3, text/plain; q=0.9"), Format::Prometheus);
        assert_eq!(wanted("application/openmetrics-text;q=0"), Format::Prometheus);
        assert_eq!(wanted("*/*"), Format::Prometheus);
        assert_eq!(wanted("text/html"), Format::Prometheus);
        assert_eq!(Format::wanted([]), Format::Prometheus);
    }
}
