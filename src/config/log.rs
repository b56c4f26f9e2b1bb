//! The group of the log.

use super::{Faults, units, variables::Group};
use serde::Deserialize;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

/// What is logged and how.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// A `tracing_subscriber::EnvFilter` directive, `info` for example. None: `info`, and in `--embedded`
    /// mode also one line a record.
    pub level: Option<String>,
    /// None: pretty on a terminal, else JSON.
    pub format: Option<LogFormat>,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

#[derive(Deserialize)]
pub(super) struct LogVariables {
    level: Option<String>,
    format: Option<String>,
}

impl Group for LogVariables {
    const PREFIX: &str = "LOG_";
}

impl LogVariables {
    pub(super) fn parse(&self, faults: &mut Faults) -> Log {
        let formats = [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
        Log {
            level: faults.read("LOG_LEVEL", self.level.as_deref(), level),
            format: faults.read("LOG_FORMAT", self.format.as_deref(), units::one_of(&formats)),
        }
    }
}

/// Stricter than `EnvFilter`, which takes a misspelt level for the name of a module and then logs nothing.
fn level(text: &str) -> Result<String, String> {
    let misspelt =
        |directive: &str| !directive.contains(['=', '[']) && directive.parse::<LevelFilter>().is_err();
    if units::list(text).any(misspelt) || EnvFilter::builder().parse(text).is_err() {
        return Err(
            "it must be one of off, error, warn, info, debug, trace, or a list of directives such as \
                    info,librdkafka=off"
                .into(),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for good in ["info", "WARN", "off", "info,librdkafka=off", "warn,kafka_inlet::http=trace"] {
            assert_eq!(level(good), Ok(good.to_owned()));
        }
        for bad in ["inof", "verbose", "info,debgu", "librdkafka=loud", "["] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }
}
