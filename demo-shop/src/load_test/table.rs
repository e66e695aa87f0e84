//! The report for a terminal.

use std::fmt::Write;

use crate::load_test::recorder::Failure;
use crate::load_test::report::{Report, Run};

/// A table with a row for each run, the losses, the kills, and the verdict.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n  {:>8} {:>9} {:>9} {:>9} {:>9} {:>7}   {:<26} seen per shopper",
        "replicas", "requests", "per s", "p50 ms", "p99 ms", "errors", "shares"
    );
    for run in &report.runs {
        let _ = writeln!(
            text,
            "  {:>8} {:>9} {:>9.1} {:>9.2} {:>9.2} {:>7}   {:<26} min {}, average {:.1}",
            run.replicas,
            run.requests,
            run.requests_per_second,
            run.latency.p50_ms,
            run.latency.p99_ms,
            run.errors.total,
            shares(run),
            run.instances_per_shopper.min,
            run.instances_per_shopper.average,
        );
    }
    let _ = writeln!(text, "\n  Latencies count from the moment a shopper intended to send.");
    for run in &report.runs {
        let operations = run.operations;
        let _ = writeln!(
            text,
            "\n  {} replica{}, {} shoppers: {} changes acknowledged, {} refused, {} unknown, {} repeated; {} carts compared",
            run.replicas,
            if run.replicas == 1 { "" } else { "s" },
            run.shoppers,
            operations.acknowledged,
            operations.refused,
            operations.unknown,
            operations.repeated,
            operations.carts_compared,
        );
        let losses: Vec<String> = run.losses.named().iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(text, "    {}", losses.join(" · "));
        if operations.not_begun > 0 {
            let _ = writeln!(text, "    the shop fell behind: {} planned actions were not begun in time", operations.not_begun);
        }
        for kill in &run.kills {
            let after = |ms: Option<f64>, none: &str| ms.map_or_else(|| none.to_owned(), |ms| format!("{ms:.0} ms"));
            let _ = writeln!(
                text,
                "    {:>6.1} s  {} of {} (pid {}): first error {}, first success {}, {}",
                kill.at_s,
                kill.failure.name(),
                kill.replica,
                kill.pid,
                after(kill.first_error_ms, "none"),
                after(kill.first_success_ms, "not seen"),
                match kill.failure {
                    Failure::ReplicaKilled => format!("back {}", after(kill.back_ms, "not seen")),
                    Failure::NodeKilled | Failure::NodeFrozen => {
                        format!("{} without an acknowledged change", after(kill.gap_ms, "the rest"))
                    }
                },
            );
        }
        for example in &run.examples {
            let _ = writeln!(text, "    ! {example}");
        }
    }
    let _ = writeln!(text, "\n  {}", report.sentence());
    text
}

fn shares(run: &Run) -> String {
    let shares: Vec<String> = run.shares.iter().map(|share| format!("{} {:.0} %", share.replica, share.percent)).collect();
    shares.join(", ")
}
