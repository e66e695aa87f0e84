//! What is seen while a run goes on.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::load_test::limits::PROGRESS_INTERVAL;
use crate::load_test::recorder::Recorder;

/// Shows the run's progress until it is dropped: a bar on a terminal, a line every few seconds elsewhere.
pub(crate) async fn show(title: String, duration: Duration, recorder: Arc<Recorder>) {
    let start = Instant::now();
    if !std::io::stderr().is_terminal() {
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            eprintln!("{title}: {:>3.0} s  {}", start.elapsed().as_secs_f64(), glance(&recorder));
        }
    }
    let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(whole);
    let style = ProgressStyle::with_template("  {prefix} [{bar:30.cyan/dim}] {percent:>3} %  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("━━─"));
    bar.set_prefix(title);
    // Cleared on drop too, so that the table is not printed behind half a bar.
    let bar = ClearOnDrop(bar);
    let mut ticks = interval(Duration::from_millis(200));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        bar.0.set_position(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).min(whole));
        bar.0.set_message(glance(&recorder));
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn glance(recorder: &Recorder) -> String {
    let glance = recorder.glance();
    let kills = match glance.kills {
        0 => String::new(),
        1 => " · 1 kill".to_owned(),
        count => format!(" · {count} kills"),
    };
    let faults = if glance.faults == 0 { "nothing lost".to_owned() } else { format!("{} LOST", glance.faults) };
    format!("{} requests · p99 {:.1} ms · {} errors{kills} · {faults}", glance.requests, glance.p99_ms, glance.errors)
}
