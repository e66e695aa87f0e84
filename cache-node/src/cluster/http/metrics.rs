//! `/metrics` of the cluster, and `/v1/targets`: where Prometheus finds those of the nodes.

use std::{fmt, net::SocketAddr, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use crate::{
    cluster::{
        events::{EventCounts, EventKind},
        view::{NodeState, NodeView, Role, View},
    },
    metrics::{Labels, Number, Series},
    webhook::TargetCounts,
};

/// What the controller knows that no node does.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) view: Arc<View>,
    pub(super) counts: EventCounts,
    pub(super) webhooks: Vec<TargetCounts>,
}

/// The nodes and the controller, in the form of Prometheus's HTTP service discovery. A node's role is no label: it changes, and the series
/// would be others then.
pub(super) fn targets(controller: SocketAddr, view: &View) -> serde_json::Value {
    let target = |address: SocketAddr, name: &str| serde_json::json!({ "targets": [address], "labels": { "cluster": view.name, "node": name } });
    let nodes = view.nodes.iter().filter_map(|node| Some(target(node.metrics?, &node.name)));
    nodes.chain([target(controller, "controller")]).collect()
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut series = Series(encoder);
        self.encode_cluster(&mut series)?;
        self.encode_nodes(&mut series)?;
        self.encode_events(&mut series)?;
        series.webhooks("cache_cluster", &self.webhooks)
    }
}

impl Figures {
    fn encode_cluster(&self, series: &mut Series<'_>) -> fmt::Result {
        let view = &self.view;
        let serving = view.nodes.iter().filter(|node| node.state == NodeState::Serving).count();
        let gauges: [(&str, &str, u64); 4] = [
            ("cache_cluster_primary_serves", "Whether a node serves as the primary.", view.primary.is_some().into()),
            ("cache_cluster_nodes", "Nodes that the cluster is to have.", view.nodes.len() as u64),
            ("cache_cluster_nodes_serving", "Nodes that serve their role.", serving as u64),
            ("cache_cluster_epoch", "Counts the changes of the primary, over all lives of the controller.", view.epoch),
        ];
        for (name, help, value) in gauges {
            series.gauge(name, None, help, [(Labels::new(), Number::Whole(value))])?;
        }
        Ok(())
    }

    fn encode_nodes(&self, series: &mut Series<'_>) -> fmt::Result {
        type Read = fn(&NodeView) -> u64;
        let gauges: [(&str, &str, Read); 4] = [
            ("cache_cluster_node_serving", "Whether the node serves its role.", |node| (node.state == NodeState::Serving).into()),
            ("cache_cluster_node_is_primary", "1 for the primary, 0 for a replica.", |node| (node.role == Role::Primary).into()),
            ("cache_cluster_node_offset_bytes", "Bytes of the replication history that the node has applied.", |node| {
                node.offset
            }),
            ("cache_cluster_node_lag_bytes", "Bytes that the primary had and the node had not.", |node| node.lag_bytes),
        ];
        let label = |node: &NodeView| vec![("member", node.name.clone())];
        for (name, help, read) in gauges {
            series.gauge(name, None, help, self.view.nodes.iter().map(|node| (label(node), Number::Whole(read(node)))))?;
        }
        let restarts = self.view.nodes.iter().map(|node| (label(node), Number::Whole(node.restarts)));
        series.counter("cache_cluster_node_restarts", None, "Starts of the node's process anew by this controller.", restarts)
    }

    fn encode_events(&self, series: &mut Series<'_>) -> fmt::Result {
        let counts = &self.counts;
        let counters: [(&str, &str, u64); 3] = [
            ("cache_cluster_failovers", "Changes of the primary that succeeded.", counts.of(EventKind::FailoverComplete)),
            (
                "cache_cluster_failovers_failed",
                "Losses of the primary after which it was started again, since no replica could succeed it.",
                counts.of(EventKind::FailoverFailed),
            ),
            (
                "cache_cluster_node_replacements",
                "Nodes that were lost and serve again.",
                counts.of(EventKind::CacheNodeReplaceComplete),
            ),
        ];
        for (name, help, value) in counters {
            series.counter(name, None, help, [(Labels::new(), Number::Whole(value))])?;
        }
        series.events("cache_cluster", counts)
    }
}
