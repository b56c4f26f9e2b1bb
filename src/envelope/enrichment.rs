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
    if millis < 1000 {
        return format!("{:.3}", millis as f64 / 1000.0);
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(millis);
    let (seconds, thousandths) = digits.split_at(digits.len() - 3);
    [seconds, ".", thousandths].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert_eq!([0, 7, 999, 1000, -1].map(seconds), ["0.000", "0.007", "0.999", "1.000", "-0.001"]);
    }

    proptest! {
        #[test]
        fn seconds_are_milliseconds_by_a_thousand(millis in 0..=jiff::Timestamp::MAX.as_millisecond()) {
            prop_assert_eq!(seconds(millis), format!("{:.3}", millis as f64 / 1000.0));
        }
    }
}
