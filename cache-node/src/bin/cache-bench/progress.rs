//! What is being measured now: a bar on a terminal, lines elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells a person at the terminal, or a log, how far the run is.
pub(crate) struct Progress {
    /// `None` when standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For so many of a unit.
    pub(crate) fn new(count: u64, unit: &str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(&format!(
                "{{spinner}} {{bar:20}} {{pos}}/{{len}} {unit}, {{elapsed}}: {{wide_msg}}"
            ))
            .expect("the template names fields that exist");
            let bar = ProgressBar::new(count).with_style(style);
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

    /// So many units are done. Too often for a log, so `text` is only for a terminal.
    pub(crate) fn tick(&self, units: u64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.inc(units);
            bar.set_message(text());
        }
    }

    /// There are so many units more than it seemed.
    pub(crate) fn extend(&self, units: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(units);
        }
    }

    /// Something that a log is to have as well.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
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
