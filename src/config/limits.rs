/// What bounds memory. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_body_bytes: usize,
    /// The record limit for topics whose own `max.message.bytes` cannot be read.
    pub max_record_bytes: usize,
    pub max_batch_records: usize,
    /// Request bodies and records that wait for Kafka, together.
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
