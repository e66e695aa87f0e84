//! A sample as series.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::{
    command::{Flags, Spec, table::TABLE},
    keyspace::Now,
    metrics::{
        format::{Format, Labels, Number, Series},
        row::Kind,
        sample::Sample,
        table::ROWS,
    },
    node::Shared,
    stats::{CommandTotals, latency_bound_ns},
};

/// Reads the node and writes what it is.
pub(super) fn read(shared: &Shared, now: Now, format: Format) -> Option<String> {
    format.render(Sample::take(shared, now))
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut series = Series(encoder);
        self.encode_rows(&mut series)?;
        self.encode_node(&mut series)?;
        self.encode_keyspace(&mut series)?;
        self.encode_replicas(&mut series)?;
        self.encode_errors(&mut series)?;
        self.encode_commands(&mut series)?;
        self.encode_latencies(&mut series)?;
        series.events("cache_node", &self.events)?;
        series.webhooks("cache_node", &self.webhooks)
    }
}

impl Sample {
    fn encode_rows(&self, series: &mut Series<'_>) -> fmt::Result {
        for row in ROWS {
            let Some(value) = (row.read)(self) else { continue };
            let unit = row.of.unit();
            let one = [(Labels::new(), value)];
            let help = row.help_with_names();
            match row.kind {
                Kind::Counter => series.counter(row.name, unit.as_ref(), &help, one)?,
                Kind::Gauge => series.gauge(row.name, unit.as_ref(), &help, one)?,
            }
        }
        Ok(())
    }

    fn encode_node(&self, series: &mut Series<'_>) -> fmt::Result {
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("redis_version", crate::REDIS_VERSION.to_owned()),
            ("run_id", self.run_id.clone()),
            ("maxmemory_policy", self.config.maxmemory_policy.name().to_owned()),
            ("durability", self.config.aof.durability.name().to_owned()),
        ];
        series.gauge("cache_node_build_info", None, "What the node is; always 1.", [(labels, Number::Whole(1))])
    }

    fn encode_keyspace(&self, series: &mut Series<'_>) -> fmt::Result {
        // The first database always, so that a dashboard of an empty node shows 0.
        let databases = self.keyspace.databases.iter().enumerate().filter(|(db, totals)| *db == 0 || totals.keys > 0);
        let label = |db: usize| vec![("db", db.to_string())];
        let keys = databases.clone().map(|(db, totals)| (label(db), Number::Whole(totals.keys as u64)));
        series.gauge("cache_node_keys", None, "Keys.", keys)?;
        let volatile = databases.map(|(db, totals)| (label(db), Number::Whole(totals.volatile as u64)));
        series.gauge("cache_node_keys_with_expiry", None, "Keys with a time to live.", volatile)
    }

    fn encode_replicas(&self, series: &mut Series<'_>) -> fmt::Result {
        let label = |address: &String| vec![("replica", address.clone())];
        let states = self.replicas.iter().map(|replica| (label(&replica.address), Number::Whole(replica.is_online.into())));
        series.gauge("cache_node_replica_online", None, "Whether a replica has its snapshot and is sent the stream.", states)?;
        let seconds = self.replicas.iter().map(|replica| (label(&replica.address), Number::Real(replica.lag.as_secs_f64())));
        let help = "Seconds since a replica last confirmed something.";
        series.gauge("cache_node_replica_lag", Some(&Unit::Seconds), help, seconds)?;
        let behind = self
            .replicas
            .iter()
            .map(|replica| (label(&replica.address), Number::Whole(self.offset.saturating_sub(replica.confirmed_offset))));
        series.gauge("cache_node_replica_lag", Some(&Unit::Bytes), "Bytes that a replica has not confirmed yet.", behind)
    }

    fn encode_errors(&self, series: &mut Series<'_>) -> fmt::Result {
        let errors = self.errors.iter().map(|(prefix, count)| (vec![("error", prefix.clone())], Number::Whole(*count)));
        series.counter("cache_node_errors", None, "Error replies, by their first word.", errors)
    }

    fn encode_commands(&self, series: &mut Series<'_>) -> fmt::Result {
        type Read = fn(&CommandTotals) -> u64;
        let families: [(&str, &str, Read); 3] = [
            ("cache_node_commands", "Calls of a command.", CommandTotals::calls),
            ("cache_node_commands_failed", "Calls of a command that ended with an error.", |totals| totals.failed),
            ("cache_node_commands_rejected", "Requests of a command that were refused before it ran.", |totals| totals.rejected),
        ];
        for (name, help, read) in families {
            // What nobody calls has no series.
            let called = TABLE.iter().zip(&self.commands).filter(|(_, totals)| totals.calls() + totals.rejected > 0);
            let counts =
                called.map(|(spec, totals)| (vec![("command", spec.name.to_ascii_lowercase())], Number::Whole(read(totals))));
            series.counter(name, None, help, counts)?;
        }
        Ok(())
    }

    /// A histogram per group of commands and whether they read or write; CloudWatch's GetTypeCmds, StringBasedCmds and the like are sums
    /// over these.
    fn encode_latencies(&self, series: &mut Series<'_>) -> fmt::Result {
        let mut groups: BTreeMap<(&str, &str), CommandTotals> = BTreeMap::new();
        for (spec, totals) in TABLE.iter().zip(&self.commands) {
            groups.entry((spec.category, kind(spec))).or_default().add(totals);
        }
        let help = "Time that commands took, by their group and by whether they only read (get) or may write (set).";
        let name = "cache_node_command_duration";
        let mut family = series.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for ((group, kind), totals) in &groups {
            let labels: Labels = vec![("group", (*group).to_owned()), ("type", (*kind).to_owned())];
            let bound = |class: usize| latency_bound_ns(class).map_or(f64::INFINITY, |bound| bound as f64 / 1e9);
            let buckets: Vec<(f64, u64)> =
                totals.latencies.iter().enumerate().map(|(class, count)| (bound(class), *count)).collect();
            let seconds = totals.nanoseconds as f64 / 1e9;
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, totals.calls(), &buckets, None)?;
        }
        Ok(())
    }
}

/// ElastiCache's words: a command of the get type reads, one of the set type may write.
fn kind(spec: &Spec) -> &'static str {
    if spec.flags.has(Flags::WRITE) {
        "set"
    } else if spec.flags.has(Flags::READONLY) {
        "get"
    } else {
        "other"
    }
}
