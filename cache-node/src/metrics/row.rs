//! The form of the table: a metric that is one number.

use prometheus_client::registry::Unit;

use crate::metrics::{format::Number, sample::Sample};

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// What a number counts; it stands at the end of the metric's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Things,
    Bytes,
    Seconds,
    Ratio,
}

impl Of {
    pub(super) fn unit(self) -> Option<Unit> {
        match self {
            Of::Things => None,
            Of::Bytes => Some(Unit::Bytes),
            Of::Seconds => Some(Unit::Seconds),
            Of::Ratio => Some(Unit::Other("ratio".to_owned())),
        }
    }
}

/// A metric that is one number, or none at times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) of: Of,
    /// CloudWatch's name of it; empty where it has none.
    pub(super) cloudwatch: &'static str,
    /// INFO's field, or `+` between several; empty where it has none.
    pub(super) info: &'static str,
    pub(super) help: &'static str,
    pub(super) read: fn(&Sample) -> Option<Number>,
}

impl Row {
    /// What it is, and what INFO and CloudWatch call it.
    pub(super) fn help_with_names(&self) -> String {
        let named = [("INFO", self.info), ("CloudWatch", self.cloudwatch)];
        let names: Vec<String> =
            named.iter().filter(|(_, name)| !name.is_empty()).map(|(who, name)| format!("{who}: {name}")).collect();
        let help = self.help.trim_end_matches('.');
        if names.is_empty() { help.to_owned() } else { format!("{help} ({})", names.join(", ")) }
    }

    /// The name of its series.
    #[cfg(test)]
    pub(super) fn series(&self) -> String {
        let unit = self.of.unit().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }
}

/// Writes rows: name, kind, what it counts, CloudWatch's name, INFO's field, how it is read, help.
macro_rules! rows {
    ($($name:literal $kind:ident $of:ident $cloudwatch:literal $info:literal, $read:expr, $help:literal;)*) => {
        &[$($crate::metrics::row::Row {
            name: $name,
            kind: $crate::metrics::row::Kind::$kind,
            of: $crate::metrics::row::Of::$of,
            cloudwatch: $cloudwatch,
            info: $info,
            help: $help,
            read: $read,
        }),*]
    };
}
pub(super) use rows;
