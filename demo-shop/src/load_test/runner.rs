//! One run: all shoppers at once against one shop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::load_test::canary::Shelves;
use crate::load_test::limits::{ARRIVAL_SHARE, ARRIVAL_TIME_MAX};
use crate::load_test::progress;
use crate::load_test::recorder::{Failure, Recorder};
use crate::load_test::report::Run;
use crate::load_test::shopper::{Schedule, Shopper};
use crate::load_test::target::{Killer, Target};

/// What every run of a test has in common.
#[derive(Debug, Clone)]
pub(crate) struct RunConfig {
    pub(crate) shoppers: u32,
    pub(crate) duration: Duration,
    pub(crate) think: Duration,
    pub(crate) seed: u64,
    /// Which failures happen, and how often each.
    pub(crate) strikes: Vec<(Failure, Duration)>,
}

/// After the last kill a run goes on for so long, so that there is something to see of it.
const CALM_AT_THE_END: Duration = Duration::from_secs(2);

/// Runs all shoppers to the end, or until `ending` is set.
///
/// # Errors
/// When the shop is not there, or does not take the canaries, or kills were asked for and cannot be done.
pub(crate) async fn run(
    config: &RunConfig,
    target: &Target,
    replicas: Option<u8>,
    ending: &watch::Sender<bool>,
) -> anyhow::Result<Run> {
    let skus = target.skus().await?;
    let shelves = Shelves::divide(skus, config.shoppers).context("the shop has fewer than two products")?;
    let shelves = Arc::new(shelves);
    for (failure, every) in &config.strikes {
        anyhow::ensure!(
            *every + CALM_AT_THE_END <= config.duration,
            "nothing would fail: the first {} comes after {every:?} and {CALM_AT_THE_END:?} of the run's {:?} are kept after the \
             last; take a longer --duration or a shorter {}",
            failure.name(),
            config.duration,
            failure.option()
        );
        // Asked once before anything is measured: a test that cannot do it should say so at once.
        let victims = target.killer().victims(*failure).await?;
        anyhow::ensure!(!victims.is_empty(), "{} needs a process that is up", failure.option());
    }
    let recorder = Arc::new(Recorder::new());
    let start = Instant::now();
    let end = start + config.duration;
    let arrivals = (config.duration / ARRIVAL_SHARE).min(ARRIVAL_TIME_MAX);

    let mut shoppers = JoinSet::new();
    let origin = target.origin();
    for index in 0..config.shoppers {
        let shopper = Shopper::new(index, config.seed, Arc::clone(&origin), Arc::clone(&shelves), Arc::clone(&recorder));
        let arrival = start + arrivals * index / config.shoppers;
        let schedule = Schedule { arrival, end, think: config.think };
        shoppers.spawn(shopper.shop(schedule, ending.subscribe()));
    }
    let mut helpers = JoinSet::new();
    let title = match replicas {
        Some(1) => "1 replica ".to_owned(),
        Some(count) => format!("{count} replicas"),
        None => origin.to_string(),
    };
    helpers.spawn(progress::show(title, config.duration, Arc::clone(&recorder)));
    for (strike, first) in config.strikes.iter().zip(first_strikes(&config.strikes)) {
        let first = start + first;
        helpers.spawn(strike_in_turn(target.killer(), *strike, first, end, Arc::clone(&recorder), ending.subscribe()));
    }
    let mut instances = Vec::new();
    while let Some(shopper) = shoppers.join_next().await {
        // The others end with their set when one could not begin.
        instances.push(shopper.context("a shopper failed")??);
    }
    helpers.shutdown().await;
    let totals = recorder.totals(config.duration);
    let seen = totals.shares.len();
    Ok(Run::new(replicas.map_or(seen, usize::from), config.shoppers, totals, &instances))
}

/// When the first failure of each kind comes. Kinds whose periods divide each other would else always come together, and nobody could tell
/// what each did: a node that is killed as it freezes was only killed.
fn first_strikes(strikes: &[(Failure, Duration)]) -> impl Iterator<Item = Duration> {
    let shortest = strikes.iter().map(|(_, every)| *every).min().unwrap_or_default();
    let kinds = u32::try_from(strikes.len()).unwrap_or(u32::MAX).max(1);
    (0..).zip(strikes).map(move |(kind, (_, every))| *every - shortest * kind / kinds)
}

/// Makes one process after another fail, in the order of their names.
async fn strike_in_turn(
    killer: Killer,
    (failure, every): (Failure, Duration),
    first: Instant,
    end: Instant,
    recorder: Arc<Recorder>,
    mut ending: watch::Receiver<bool>,
) {
    let mut next = first;
    let mut last = String::new();
    while next + CALM_AT_THE_END <= end {
        tokio::select! {
            () = sleep_until(next) => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        next += every;
        let victims = match killer.victims(failure).await {
            Ok(victims) => victims,
            Err(error) => {
                tracing::warn!("no {} this time: {error:#}", failure.name());
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let following = victims.iter().find(|(name, _)| *name > last).or_else(|| victims.first());
        if let Some((name, pid)) = following {
            recorder.kill(failure, name, *pid);
            if !Killer::strike(*pid, failure) {
                tracing::warn!("{name} (pid {pid}) was gone before its {}", failure.name());
            }
            last.clone_from(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::load_test::recorder::Failure;
    use crate::load_test::runner::first_strikes;

    #[test]
    fn failures_of_several_kinds_never_come_together_when_their_periods_divide_each_other() {
        let seconds = Duration::from_secs;
        let strikes = [(Failure::NodeKilled, seconds(10)), (Failure::NodeFrozen, seconds(20))];
        assert_eq!(first_strikes(&strikes).collect::<Vec<_>>(), [seconds(10), seconds(15)]);
        let strikes =
            [(Failure::ReplicaKilled, seconds(6)), (Failure::NodeKilled, seconds(6)), (Failure::NodeFrozen, seconds(6))];
        assert_eq!(first_strikes(&strikes).collect::<Vec<_>>(), [seconds(6), seconds(4), seconds(2)]);
        assert_eq!(first_strikes(&strikes[..1]).collect::<Vec<_>>(), [seconds(6)]);
    }
}
