//! Everything that can keep a record from being written. Knows what is true about the record and whether
//! a resend can help; knows no HTTP.

use super::TopicName;

/// What is known about a record that has no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The record is certainly not in Kafka.
    NotWritten,
    /// The record may be in Kafka: it left this process and no answer came.
    Unknown,
}

impl Outcome {
    /// The outcome as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a record has no receipt. The text says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("topic '{0}' does not exist; create it, or check the spelling")]
    UnknownTopic(TopicName),
    #[error(
        "topic '{0}', which this service is configured to write to, does not exist; \
         the operator can create it or set KAFKA_CREATE_TOPICS=true"
    )]
    TopicMissing(TopicName),
    #[error("partition {partition} does not exist: topic '{topic}' has {count} partitions, 0 to {}", count - 1)]
    InvalidPartition { topic: TopicName, partition: i32, count: i32 },
    /// The topic was made again, with fewer partitions than it had.
    #[error("partition {partition} of topic '{topic}' does not exist any more")]
    PartitionGone { topic: TopicName, partition: i32 },
    #[error("topic '{0}' is compacted, so every record needs a non-empty key")]
    KeyRequired(TopicName),
    #[error("the timestamp {timestamp} is outside of what topic '{topic}' accepts ({bound})")]
    TimestampOutOfRange { topic: TopicName, timestamp: i64, bound: String },
    #[error("the record is {size} bytes as Kafka stores it, topic '{topic}' takes at most {limit}")]
    RecordTooLarge { topic: TopicName, size: usize, limit: usize },
    /// The broker's own verdict on this record.
    #[error("Kafka refused the record: {reason}")]
    Rejected { reason: String },
    /// The batch that held the record was refused as too large, or the record alone was.
    #[error("Kafka refused the record as larger than the topic's max.message.bytes")]
    BatchRefusedAsTooLarge,
    /// The broker refused the whole batch for another record in it.
    #[error(
        "the record was not written because Kafka refused another record of the same batch; send it again"
    )]
    NeighbourRejected,
    #[error("Kafka does not let this service write to topic '{0}'; ask the operator for the WRITE right")]
    Unauthorized(TopicName),
    #[error(
        "the request's records need {cost} bytes of the {limit} that may be in flight; send smaller batches"
    )]
    BatchTooLarge { cost: usize, limit: usize },
    #[error(
        "there is no connection to Kafka: {reason}; nothing was sent, try again later. The operator may run `kafka-inlet check`"
    )]
    NotReady { reason: String },
    #[error("too many bytes are in flight to Kafka ({used} of {limit}); nothing was sent, try again later")]
    Overloaded { used: usize, limit: usize },
    #[error(
        "too much is in flight to partition {partition} of topic '{topic}', which takes records slowly or not at all; the \
         record was not sent, try again later"
    )]
    PartitionBusy { topic: TopicName, partition: i32 },
    /// The local disk takes no more records: why not.
    #[error(
        "the record cannot be stored until Kafka takes it: {reason}; nothing was stored, try again later"
    )]
    SpoolFull { reason: String },
    /// In durable mode, the names of the headers that tell a duplicate.
    #[error(
        "the header '{0}' is set by this service, to tell a record from its own duplicate; choose another name"
    )]
    ReservedHeader(&'static str),
    #[error(
        "this service does not know topic '{0}' yet, and too many such topics are being asked for; nothing was sent, \
         try again later"
    )]
    TooManyLookUps(TopicName),
    #[error("Kafka did not take the record: {reason}; it was not written, try again later")]
    BrokerUnavailable { reason: String },
    #[error(
        "Kafka has not confirmed the record within {timeout_ms} ms; it may have been written, \
         so sending it again may duplicate it"
    )]
    DeliveryTimeout { timeout_ms: u64 },
    /// A retriable or unexpected failure after the record may have reached a broker.
    #[error(
        "Kafka's answer was lost ({reason}); the record may have been written, so sending it again may duplicate it"
    )]
    AcknowledgementLost { reason: String },
    /// A bug in this service. The text is for the log, never for the client.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The stable name of the error, for clients and metrics.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::UnknownTopic(_) => "unknown_topic",
            Self::TopicMissing(_) => "topic_missing",
            Self::InvalidPartition { .. } | Self::PartitionGone { .. } => "invalid_partition",
            Self::KeyRequired(_) => "invalid_key",
            Self::TimestampOutOfRange { .. } => "invalid_timestamp",
            Self::RecordTooLarge { .. } => "record_too_large",
            Self::BatchRefusedAsTooLarge => "record_too_large",
            Self::Rejected { .. } => "record_rejected",
            Self::Unauthorized(_) => "kafka_unauthorized",
            Self::BatchTooLarge { .. } => "body_too_large",
            Self::NotReady { .. } => "not_ready",
            Self::Overloaded { .. } | Self::PartitionBusy { .. } | Self::TooManyLookUps(_) => "overloaded",
            Self::SpoolFull { .. } => "spool_full",
            Self::ReservedHeader(_) => "invalid_header",
            Self::NeighbourRejected | Self::BrokerUnavailable { .. } => "broker_unavailable",
            Self::DeliveryTimeout { .. } | Self::AcknowledgementLost { .. } => "delivery_timeout",
            Self::Internal(_) => "internal",
        }
    }

    /// True where the same bytes may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::TopicMissing(_)
            | Self::NotReady { .. }
            | Self::Overloaded { .. }
            | Self::PartitionBusy { .. }
            | Self::SpoolFull { .. }
            | Self::TooManyLookUps(_)
            | Self::NeighbourRejected
            | Self::BrokerUnavailable { .. }
            | Self::DeliveryTimeout { .. }
            | Self::AcknowledgementLost { .. }
            | Self::Internal(_) => true,
            Self::UnknownTopic(_)
            | Self::InvalidPartition { .. }
            | Self::PartitionGone { .. }
            | Self::KeyRequired(_)
            | Self::TimestampOutOfRange { .. }
            | Self::RecordTooLarge { .. }
            | Self::BatchRefusedAsTooLarge
            | Self::Rejected { .. }
            | Self::Unauthorized(_)
            | Self::ReservedHeader(_)
            | Self::BatchTooLarge { .. } => false,
        }
    }

    /// True for a failure that may be another record's. Where a broker refuses one record of a batch, librdkafka (2.12,
    /// rd_kafka_interceptors_on_acknowledgement_queue) gives that record's error to all of them, so only a record that
    /// was sent alone is known to be refused for itself.
    pub fn may_be_a_neighbours(&self) -> bool {
        matches!(
            self,
            Self::NeighbourRejected
                | Self::BatchRefusedAsTooLarge
                | Self::Rejected { .. }
                | Self::TimestampOutOfRange { .. }
        )
    }

    /// What is known about the record.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::DeliveryTimeout { .. } | Self::AcknowledgementLost { .. } | Self::Internal(_) => {
                Outcome::Unknown
            }
            Self::UnknownTopic(_)
            | Self::TopicMissing(_)
            | Self::InvalidPartition { .. }
            | Self::PartitionGone { .. }
            | Self::KeyRequired(_)
            | Self::TimestampOutOfRange { .. }
            | Self::RecordTooLarge { .. }
            | Self::BatchRefusedAsTooLarge
            | Self::Rejected { .. }
            | Self::Unauthorized(_)
            | Self::ReservedHeader(_)
            | Self::BatchTooLarge { .. }
            | Self::NotReady { .. }
            | Self::Overloaded { .. }
            | Self::PartitionBusy { .. }
            | Self::SpoolFull { .. }
            | Self::TooManyLookUps(_)
            | Self::NeighbourRejected
            | Self::BrokerUnavailable { .. } => Outcome::NotWritten,
        }
    }
}
