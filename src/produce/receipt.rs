//! What Kafka confirmed about one record.

use super::TopicName;

/// The record is in Kafka, acknowledged by all in-sync replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub topic: TopicName,
    pub partition: i32,
    /// None where Kafka confirmed the record but a retried acknowledgement lost its offset.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch: the record's timestamp in Kafka.
    pub timestamp: i64,
}
