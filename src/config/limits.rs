//! The group of what bounds memory.

use super::{Faults, units, variables::Group};
use serde::Deserialize;

/// What bounds memory. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_body_bytes: usize,
    /// The record limit for topics whose own `max.message.bytes` cannot be read.
    pub max_record_bytes: usize,
    pub max_batch_records: usize,
    /// Request bodies and records that wait for Kafka, together; answers that wait to be read have as much again.
    pub max_in_flight_bytes: usize,
    pub max_connections: usize,
    /// Topics with a metric label of their own; the rest is `_other`.
    pub metrics_max_topics: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            max_record_bytes: 1_048_588,
            max_batch_records: 10_000,
            max_in_flight_bytes: 32 << 20,
            max_connections: 10_000,
            metrics_max_topics: 200,
        }
    }
}

/// The most that librdkafka takes as `message.max.bytes` is 1,000,000,000, and it is set above the record limit.
const LARGEST_RECORD: usize = 999_000_000;

#[derive(Deserialize)]
pub(super) struct LimitsVariables {
    max_body_bytes: Option<String>,
    max_record_bytes: Option<String>,
    max_batch_records: Option<String>,
    max_in_flight_bytes: Option<String>,
    max_connections: Option<String>,
    metrics_max_topics: Option<String>,
}

impl Group for LimitsVariables {
    const PREFIX: &str = "";
}

impl LimitsVariables {
    pub(super) fn parse(&self, faults: &mut Faults) -> Limits {
        let default = Limits::default();
        let mut size = |variable, given: &Option<String>, largest, default| {
            faults.read(variable, given.as_deref(), units::bytes(1..=largest)).unwrap_or(default)
        };
        let max_body_bytes = size("MAX_BODY_BYTES", &self.max_body_bytes, 1 << 30, default.max_body_bytes);
        let max_record_bytes =
            size("MAX_RECORD_BYTES", &self.max_record_bytes, LARGEST_RECORD, default.max_record_bytes);
        let max_in_flight_bytes =
            size("MAX_IN_FLIGHT_BYTES", &self.max_in_flight_bytes, 1 << 40, default.max_in_flight_bytes);
        let mut count = |variable, given: &Option<String>, default| {
            faults.read(variable, given.as_deref(), units::whole(1..=1_000_000)).unwrap_or(default)
        };
        Limits {
            max_body_bytes,
            max_record_bytes,
            max_batch_records: count("MAX_BATCH_RECORDS", &self.max_batch_records, default.max_batch_records),
            max_in_flight_bytes,
            max_connections: count("MAX_CONNECTIONS", &self.max_connections, default.max_connections),
            metrics_max_topics: count(
                "METRICS_MAX_TOPICS",
                &self.metrics_max_topics,
                default.metrics_max_topics,
            ),
        }
    }
}
