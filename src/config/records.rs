//! The group of what the service adds to records.

use super::{Faults, Partitioner, units, variables::Group};
use serde::Deserialize;

/// What the service adds to records.
#[derive(Debug, Clone)]
pub struct Records {
    /// `timestamp`, `source` and `server_time` in the `message` form.
    pub enrich_messages: bool,
    pub headers: RecordHeaders,
}

/// Which headers every record gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeaders {
    pub content_type: bool,
    pub trace_id: bool,
    pub timestamp: bool,
    pub traceparent: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self { enrich_messages: true, headers: RecordHeaders::ALL }
    }
}

impl RecordHeaders {
    /// Every header.
    pub const ALL: Self = Self { content_type: true, trace_id: true, timestamp: true, traceparent: true };
    /// No header: `none`.
    pub const NONE: Self =
        Self { content_type: false, trace_id: false, timestamp: false, traceparent: false };
}

#[derive(Deserialize)]
pub(super) struct RecordsVariables {
    enrich_messages: Option<String>,
    record_headers: Option<String>,
    partitioner: Option<String>,
}

impl Group for RecordsVariables {
    const PREFIX: &str = "";
}

impl RecordsVariables {
    pub(super) fn parse(&self, faults: &mut Faults) -> Records {
        let default = Records::default();
        Records {
            enrich_messages: faults
                .read("ENRICH_MESSAGES", self.enrich_messages.as_deref(), units::boolean)
                .unwrap_or(default.enrich_messages),
            headers: faults
                .read("RECORD_HEADERS", self.record_headers.as_deref(), headers)
                .unwrap_or(default.headers),
        }
    }

    /// Belongs to [`super::Kafka`], and has no `KAFKA_` in its name.
    pub(super) fn partitioner(&self, faults: &mut Faults) -> Option<Partitioner> {
        let partitioners = [("java", Partitioner::Java), ("tenant", Partitioner::Tenant)];
        faults.read("PARTITIONER", self.partitioner.as_deref(), units::one_of(&partitioners))
    }
}

fn headers(text: &str) -> Result<RecordHeaders, String> {
    let mut headers = RecordHeaders::NONE;
    if text.eq_ignore_ascii_case("none") {
        return Ok(headers);
    }
    for name in units::list(text) {
        match name.to_ascii_lowercase().as_str() {
            "content-type" => headers.content_type = true,
            "trace-id" => headers.trace_id = true,
            "timestamp" => headers.timestamp = true,
            "traceparent" => headers.traceparent = true,
            _ => return Err(HEADERS_ALLOWED.into()),
        }
    }
    // a list of nothing but commas
    if headers == RecordHeaders::NONE { Err(HEADERS_ALLOWED.into()) } else { Ok(headers) }
}

const HEADERS_ALLOWED: &str =
    "it must be none, or a comma-separated list of content-type, trace-id, timestamp, traceparent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_headers_are_a_list_or_none() {
        assert_eq!(headers("none"), Ok(RecordHeaders::NONE));
        assert_eq!(headers("content-type, trace-id,timestamp,traceparent"), Ok(RecordHeaders::ALL));
        assert_eq!(headers("Trace-Id"), Ok(RecordHeaders { trace_id: true, ..RecordHeaders::NONE }));
        for bad in ["span-id", "none,timestamp", ","] {
            assert_eq!(headers(bad), Err(HEADERS_ALLOWED.to_owned()), "{bad}");
        }
    }
}
