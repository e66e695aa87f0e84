//! LATENCY: how long commands took, from the histograms that are kept of each. Events are not kept: Redis's monitor of them is off where
//! nobody turns it on, and here it always is.

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        error::printable,
        names,
        subcommand::{self, Subcommand, subcommands},
        table::{TABLE, rows},
    },
    protocol::{Args, Reply},
    stats::{CommandTotals, command_totals, latency_bound_ns},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "LATENCY" -2 Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE), "server" NONE Client(latency) "2.8.13" "A container for latency diagnostics commands.";
};

pub(super) const LATENCY: &[Subcommand] = subcommands! {
    "DOCTOR" 2 "" "2.8.13" "Say which commands are slow, in words.";
    "GRAPH" 3 "<event>" "2.8.13" "Draw an event's durations; no event is kept.";
    "HISTOGRAM" -2 "[<command> ...]" "7.0.0" "Return how many calls took how long, of all commands or some.";
    "HISTORY" 3 "<event>" "2.8.13" "Return an event's durations; no event is kept.";
    "LATEST" 2 "" "2.8.13" "Return the latest events; no event is kept.";
    "RESET" -2 "[<event> ...]" "2.8.13" "Forget events; no event is kept.";
    "HELP" 2 "" "2.8.13" "Print this help.";
};

/// The longest duration that Redis's first bucket holds.
const FIRST_BUCKET_NS: u64 = 1024;

/// Commands of which one call in a hundred takes longer are named by DOCTOR.
const SLOW_US: f64 = 1_000.0;

fn latency(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    match subcommand::find("LATENCY", LATENCY, args)? {
        "DOCTOR" => reply.verbatim(&diagnosis(ctx)),
        "GRAPH" => {
            let event = printable(args.at(2));
            return Err(CommandError::new(format!("ERR No samples available for event '{event}'")));
        }
        "HISTOGRAM" => histogram(ctx, args.from(2), reply),
        "HISTORY" | "LATEST" => reply.array(0),
        "RESET" => reply.integer(0),
        _ => subcommand::help("LATENCY", LATENCY, reply),
    }
    Ok(())
}

fn histogram(ctx: &Context<'_>, asked: Args<'_>, reply: &mut Reply) {
    let is_all = asked.len() == 0;
    // Each once, in the order that was asked for.
    let mut indexes: Vec<usize> = if is_all { (0..TABLE.len()).collect() } else { Vec::new() };
    for index in asked.iter().filter_map(names::find) {
        if !indexes.contains(&index) {
            indexes.push(index);
        }
    }
    let totals = indexes.into_iter().map(|index| (index, command_totals(&ctx.shared.workers, index)));
    let called: Vec<(usize, CommandTotals)> = totals.filter(|(_, totals)| totals.calls() > 0).collect();
    reply.map(called.len());
    for (index, totals) in called {
        reply.bulk(TABLE[index].name.to_ascii_lowercase().as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.count(totals.calls() as usize);
        reply.bulk(b"histogram_usec");
        let buckets = buckets(&totals);
        reply.map(buckets.len());
        for (microseconds, count) in buckets {
            reply.count(microseconds as usize);
            reply.count(count as usize);
        }
    }
}

/// Calls that took so many microseconds at the most, by the bounds that Redis tells, where their number grows.
fn buckets(totals: &CommandTotals) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    let (mut bound, mut count) = (FIRST_BUCKET_NS, 0);
    for (class, calls) in totals.latencies.iter().enumerate() {
        // The last class has no bound.
        bound = latency_bound_ns(class).map_or(2 * bound, |class_bound| class_bound.max(FIRST_BUCKET_NS));
        count += calls;
        // What its histogram cannot tell from the bound.
        let microseconds = (bound + bound / 128 - 1) / 1000;
        match found.last_mut() {
            Some(last) if last.0 == microseconds => last.1 = count,
            _ if *calls > 0 => found.push((microseconds, count)),
            _ => {}
        }
    }
    found
}

fn diagnosis(ctx: &Context<'_>) -> String {
    let mut slow: Vec<(f64, &str, u64)> = TABLE
        .iter()
        .enumerate()
        .map(|(index, spec)| (command_totals(&ctx.shared.workers, index), spec.name))
        .filter_map(|(totals, name)| Some((totals.percentile_us(99.0)?, name, totals.calls())))
        .filter(|(microseconds, ..)| *microseconds > SLOW_US)
        .collect();
    slow.sort_by(|one, other| other.0.total_cmp(&one.0));
    if slow.is_empty() {
        return "Of every command 99 calls of 100 took 1 millisecond at the most, within the node. What clients measure beyond that is the \
                network, or the time that they waited for a processor.\n"
            .to_owned();
    }
    let mut text = "One call of 100 of these commands took longer than 1 millisecond, within the node:\n".to_owned();
    for (microseconds, name, calls) in slow {
        text += &format!("- {name}: up to {:.1} ms at the 99th percentile of {calls} calls\n", microseconds / 1000.0);
    }
    text + "SLOWLOG GET shows single requests with their keys; LATENCY HISTOGRAM how the durations are spread; CONFIG RESETSTAT begins anew.\n"
}

#[cfg(test)]
mod tests {
    use super::buckets;
    use crate::stats::{WorkerStats, command_totals};

    #[test]
    fn calls_are_counted_up_by_redis_bounds() {
        let workers = [WorkerStats::new()];
        for nanoseconds in [1, 300, 900, 1_500, 20_000, 100_000, 5_000_000_000] {
            workers[0].called(0, nanoseconds);
        }
        let totals = command_totals(&workers, 0);
        assert_eq!(buckets(&totals), [(1, 3), (2, 4), (33, 5), (132, 6), (2_164_260, 7)]);
        assert_eq!(totals.percentile_us(50.0), Some(2.048));
        assert_eq!(totals.percentile_us(100.0), Some(2_147_483.648));
        assert_eq!(command_totals(&workers, 1).percentile_us(50.0), None);
    }
}
