//! Where the log goes and how much of it: standard error, as text or as JSON lines.

use crate::config::Mode;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Flags that every command takes.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Log as JSON lines (default: true for `run`, false otherwise).
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    json_log: Option<bool>,
    /// Log at level debug.
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    verbose: Option<bool>,
    /// Level: error, warn, info, debug or trace.
    #[arg(long, global = true, env = "LOG_LEVEL", default_value = "info", value_parser = level)]
    log_level: LevelFilter,
}

impl Options {
    /// Starts logging. Once per process.
    pub(super) fn start(&self, mode: Mode) {
        let level = match self.verbose {
            Some(true) => self.log_level.max(LevelFilter::DEBUG),
            _ => self.log_level,
        };
        // Colours are for people; a log file has none.
        let colours = std::io::stderr().is_terminal();
        // What a client does on HTTP/2 is not worth a warning.
        let filter = Targets::new()
            .with_default(level)
            .with_target("h2", level.min(LevelFilter::ERROR));
        let log = tracing_subscriber::fmt()
            .with_ansi(colours)
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_target(false);
        if self.json_log.unwrap_or(mode == Mode::Run) {
            log.json()
                .flatten_event(true)
                .with_current_span(false)
                .finish()
                .with(filter)
                .init();
        } else {
            log.finish().with(filter).init();
        }
    }
}

/// The names that existing installations use, beside ours.
fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "" | "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("use one of error, warn, info, debug, trace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_names_of_existing_installations_are_known() {
        for (text, expected) in [
            ("panic", LevelFilter::ERROR),
            ("fatal", LevelFilter::ERROR),
            ("warning", LevelFilter::WARN),
            ("INFO", LevelFilter::INFO),
            ("trace", LevelFilter::TRACE),
        ] {
            assert_eq!(level(text), Ok(expected));
        }
        assert!(level("loud").is_err());
    }
}
