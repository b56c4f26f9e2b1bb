//! What an enriched message gets beside its sender's members, as JSON text.

use crate::produce::{RFC3339_LENGTH, write_rfc3339};

/// The additions to the messages of one body.
pub struct Enrichment {
    source: String,
    server_time: String,
    /// That of the last record: those of a body often have the same.
    timestamp: String,
    /// The moment that `timestamp` tells.
    millis: i64,
}

impl Enrichment {
    /// `now_ms`: the time of arrival in milliseconds since the Unix epoch.
    pub fn new(source: &str, now_ms: i64) -> Self {
        // a string has a JSON text
        let source = serde_json::to_string(source).unwrap_or_default();
        Self { source, server_time: seconds(now_ms), timestamp: quoted_rfc3339(now_ms), millis: now_ms }
    }

    /// The additions to a message of that moment, in milliseconds since the Unix epoch.
    pub fn at(&mut self, millis: i64) -> &Self {
        if self.millis != millis {
            self.timestamp = quoted_rfc3339(millis);
            self.millis = millis;
        }
        self
    }

    /// RFC 3339 in UTC with milliseconds.
    pub fn timestamp(&self) -> &str {
        &self.timestamp
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Seconds since the Unix epoch, with three decimals.
    pub fn server_time(&self) -> &str {
        &self.server_time
    }
}

fn quoted_rfc3339(millis: i64) -> String {
    let text = &mut [0; RFC3339_LENGTH];
    write_rfc3339(millis, text).map_or_else(|| format!("\"{millis}\""), |text| ["\"", text, "\""].concat())
}

fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_json() {
        let mut enrichment = Enrichment::new("a \"quoted\" name", 1_795_228_481_123);
        assert_eq!(enrichment.source(), r#""a \"quoted\" name""#);
        assert_eq!(enrichment.server_time(), "1795228481.123");
        assert_eq!(enrichment.timestamp(), r#""2026-11-21T02:34:41.123Z""#);
        assert_eq!(enrichment.at(1).timestamp(), r#""1970-01-01T00:00:00.001Z""#);
        assert_eq!(enrichment.at(1).server_time(), "1795228481.123");
    }

    #[test]
    fn seconds_have_three_decimals() {
        let texts = [0, 7, 1000, -1].map(seconds);
        assert_eq!(texts, ["0.000", "0.007", "1.000", "-0.001"]);
    }
}
