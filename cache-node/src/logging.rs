//! Log lines of the program on standard error. An application that embeds a node has its own subscriber, which is left alone.
//!
//! A line tells what happened, with addresses, paths and numbers. Arguments of requests, keys, values and passwords are in none.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, util::SubscriberInitExt as _};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object per line: timestamp, level, target, message and fields.
    Json,
}

impl LogFormat {
    pub(crate) const NAMES: [(&'static str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

    pub(crate) fn parse(name: &str) -> Option<LogFormat> {
        LogFormat::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, format)| *format)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

type ChangeLevel = dyn Fn(&str) + Send + Sync;

/// Changes the level of what [`start`] started.
static CHANGE_LEVEL: OnceLock<Box<ChangeLevel>> = OnceLock::new();

/// Starts to log at a level of the directive `loglevel`. The variable RUST_LOG names other levels for parts of the program.
pub(crate) fn start(level: &str, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // A reader of the log that went away is no reason to end: telling it on the same closed stream would panic.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_env_filter(filter(level)).with_filter_reloading();
            let handle = builder.reload_handle();
            begin(builder.finish(), move |level| drop(handle.reload(filter(level))));
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter(level)).with_filter_reloading();
            let handle = builder.reload_handle();
            begin(builder.finish(), move |level| drop(handle.reload(filter(level))));
        }
    }
}

fn begin(subscriber: impl Into<tracing::Dispatch>, change_level: impl Fn(&str) + Send + Sync + 'static) {
    // Already set when another part of the same process logs: that one stays.
    if subscriber.try_init().is_ok() {
        CHANGE_LEVEL.get_or_init(|| Box::new(change_level));
    }
}

/// CONFIG SET loglevel. Does nothing where the application logs.
pub(crate) fn follow(level: &str) {
    if let Some(change) = CHANGE_LEVEL.get() {
        change(level);
    }
}

fn filter(level: &str) -> EnvFilter {
    let level = match level {
        "debug" => LevelFilter::DEBUG,
        "verbose" | "notice" => LevelFilter::INFO,
        "warning" => LevelFilter::WARN,
        _ => LevelFilter::OFF,
    };
    EnvFilter::builder().with_default_directive(level.into()).from_env_lossy()
}
