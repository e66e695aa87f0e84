//! What a test came to, as data.

use serde::Serialize;

use crate::load_test::ledger::Fault;
use crate::load_test::recorder::{Kill, Latency, Operations, Second, Totals};

/// The whole test.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) seed: u64,
    pub(crate) think_time_ms: u64,
    /// What `latency` of a run means.
    pub(crate) latency_from: &'static str,
    pub(crate) runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// One run: one number of replicas.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// How many replicas were asked for, or answered when a running shop was the target.
    pub(crate) replicas: usize,
    pub(crate) shoppers: u32,
    pub(crate) duration_s: f64,
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) errors: Errors,
    /// From the moment the shopper wanted to send.
    pub(crate) latency: Latency,
    /// From the moment it sent.
    pub(crate) service_time: Latency,
    pub(crate) shares: Vec<Share>,
    pub(crate) instances_per_shopper: Instances,
    pub(crate) operations: Operations,
    pub(crate) losses: Losses,
    /// The first findings in words.
    pub(crate) examples: Vec<String>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) timeline: Vec<Second>,
}

/// Exchanges that failed; changes among them were repeated until their outcome was known.
#[derive(Debug, Serialize)]
pub(crate) struct Errors {
    pub(crate) total: u64,
    pub(crate) status_5xx: u64,
    pub(crate) broken: u64,
    pub(crate) late: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Share {
    pub(crate) replica: String,
    pub(crate) requests: u64,
    pub(crate) percent: f64,
}

/// Replicas that answered one shopper: more than one shows that nothing is sticky.
#[derive(Debug, Serialize)]
pub(crate) struct Instances {
    pub(crate) min: usize,
    pub(crate) average: f64,
}

/// What must be zero.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Losses {
    pub(crate) lost_carts: u64,
    pub(crate) lost_updates: u64,
    pub(crate) duplicates: u64,
    pub(crate) resurrected: u64,
    pub(crate) mix_ups: u64,
    pub(crate) stale_reads: u64,
    pub(crate) new_sessions: u64,
    pub(crate) unread_carts: u64,
}

impl Losses {
    /// Each with its name, in the order of the report.
    pub(crate) fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("lost carts", self.lost_carts),
            ("lost updates", self.lost_updates),
            ("duplicates", self.duplicates),
            ("resurrected lines", self.resurrected),
            ("mix-ups", self.mix_ups),
            ("stale reads", self.stale_reads),
            ("unexpected new sessions", self.new_sessions),
            ("carts unread at the end", self.unread_carts),
        ]
    }

    pub(crate) fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

impl Run {
    /// Puts the totals of a run and what its shoppers met into the form of the report.
    #[expect(clippy::cast_precision_loss, reason = "counts of one test are far below 2^52")]
    pub(crate) fn new(replicas: usize, shoppers: u32, totals: Totals, instances: &[usize]) -> Self {
        let fault = |fault| totals.faults.get(&fault).copied().unwrap_or(0);
        let served: u64 = totals.shares.values().sum();
        Self {
            replicas,
            shoppers,
            duration_s: totals.elapsed.as_secs_f64(),
            requests: totals.requests,
            requests_per_second: totals.requests as f64 / totals.elapsed.as_secs_f64().max(0.001),
            errors: Errors {
                total: totals.server_errors + totals.broken + totals.late,
                status_5xx: totals.server_errors,
                broken: totals.broken,
                late: totals.late,
            },
            latency: totals.latency,
            service_time: totals.service,
            losses: Losses {
                lost_carts: fault(Fault::LostCart),
                lost_updates: fault(Fault::LostUpdate),
                duplicates: fault(Fault::Duplicate),
                resurrected: fault(Fault::Resurrected),
                mix_ups: fault(Fault::MixUp),
                stale_reads: fault(Fault::StaleRead),
                new_sessions: fault(Fault::NewSession),
                unread_carts: fault(Fault::Unread),
            },
            shares: totals
                .shares
                .into_iter()
                .map(|(replica, requests)| Share { replica, requests, percent: requests as f64 * 100.0 / served.max(1) as f64 })
                .collect(),
            instances_per_shopper: Instances {
                min: instances.iter().copied().min().unwrap_or(0),
                average: instances.iter().sum::<usize>() as f64 / instances.len().max(1) as f64,
            },
            operations: totals.operations,
            examples: totals.examples,
            kills: totals.kills,
            timeline: totals.timeline,
        }
    }
}

impl Report {
    pub(crate) fn new(seed: u64, think_time_ms: u64, runs: Vec<Run>) -> Self {
        let passed = runs.iter().all(|run| run.losses.total() == 0 && run.operations.acknowledged > 0);
        Self {
            verdict: if passed { Verdict::Passed } else { Verdict::Failed },
            seed,
            think_time_ms,
            latency_from: "the moment the shopper intended to send (corrected for coordinated omission); service_time counts \
                           from the sending",
            runs,
        }
    }

    /// The verdict in one line.
    pub(crate) fn sentence(&self) -> String {
        let sum = |count: fn(&Run) -> u64| self.runs.iter().map(count).sum::<u64>();
        let acknowledged = sum(|run| run.operations.acknowledged);
        let kills = sum(|run| run.kills.len() as u64);
        let after = match kills {
            0 => String::new(),
            1 => " through 1 failure of a process".to_owned(),
            _ => format!(" through {kills} failures of processes"),
        };
        if self.verdict == Verdict::Passed {
            return format!("PASSED: {acknowledged} changes acknowledged{after}, and every one of them is there");
        }
        if acknowledged == 0 {
            return "FAILED: no change was acknowledged, so nothing was proved".to_owned();
        }
        let mut parts = Vec::new();
        let names = self.runs.first().map(|run| run.losses.named()).unwrap_or_default();
        for (place, (name, _)) in names.iter().enumerate() {
            let count: u64 = self.runs.iter().filter_map(|run| run.losses.named().get(place).map(|(_, count)| *count)).sum();
            if count > 0 {
                parts.push(format!("{count} {name}"));
            }
        }
        format!("FAILED: {} in {acknowledged} acknowledged changes{after}", parts.join(", "))
    }
}
