//! The log: what is let through, in which form, to standard output.

use crate::config::{Log, LogFormat};
use std::io::{self, IsTerminal};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged where `LOG_LEVEL` says nothing.
const DEFAULT_FILTER: &str = "info";

/// The same with an embedded Kafka, whose user wants to see each record arrive.
const EMBEDDED_FILTER: &str = "info,kafka_inlet::record=debug";

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("LOG_LEVEL: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's log to standard output: JSON (one flat object a line, RFC 3339 timestamps) or, by
/// default on a terminal, lines for people. To be called once.
pub fn init(log: &Log, embedded: bool) -> Result<(), InitError> {
    let on_terminal = io::stdout().is_terminal();
    let format = log.format.unwrap_or(if on_terminal { LogFormat::Pretty } else { LogFormat::Json });
    tracing_subscriber::registry()
        .with(layer(format, on_terminal))
        .with(filter(log, embedded)?)
        .try_init()?;
    Ok(())
}

fn filter(log: &Log, embedded: bool) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let default = if embedded { EMBEDDED_FILTER } else { DEFAULT_FILTER };
    EnvFilter::builder().parse(log.level.as_deref().unwrap_or(default))
}

fn layer(format: LogFormat, on_terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Pretty if on_terminal => fmt::layer().compact().boxed(),
        LogFormat::Pretty => fmt::layer().compact().with_ansi(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(level: Option<&str>, embedded: bool) -> String {
        let log = Log { level: level.map(Into::into), format: None };
        filter(&log, embedded).expect("a filter").to_string()
    }

    #[test]
    fn the_level_set_wins_over_every_default() {
        assert_eq!(directives(None, false), "info");
        assert_eq!(directives(Some("warn"), false), "warn");
        assert_eq!(directives(Some("warn"), true), "warn");
    }

    #[test]
    fn an_embedded_kafka_shows_each_record() {
        assert!(directives(None, true).contains("kafka_inlet::record=debug"));
    }
}
