//! What is being measured now: a bar on a terminal, lines elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells a person at the terminal, or a log, how far the run is.
pub(crate) struct Progress {
    /// `None` when standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For so many workloads.
    pub(crate) fn new(workloads: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {bar:20} {pos}/{len} workloads, {elapsed}: {wide_msg}")
                .expect("the template names fields that exist");
            let bar = ProgressBar::new(workloads).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress { bar }
    }

    /// What begins now.
    pub(crate) fn step(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => eprintln!("{text}"),
        }
    }

    /// A workload is done; `text` goes to standard output.
    pub(crate) fn done(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.suspend(|| println!("{text}"));
            }
            None => println!("{text}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
