//! librdkafka's errors in the core's words. The one table of what is permanent and what is not.

use super::native::report::Persistence;
use crate::produce::{Error, TopicName};
use rdkafka::types::RDKafkaErrorCode as Code;

/// A delivery report that says no.
pub struct Refusal {
    pub code: Code,
    pub persistence: Persistence,
    pub topic: Option<TopicName>,
    pub partition: i32,
    /// The record's, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The broker's or librdkafka's text.
    pub reason: String,
}

/// What the report means for the record.
pub fn of_report(refusal: Refusal) -> Error {
    let Refusal { code, persistence, topic, partition, timestamp, reason } = refusal;
    if persistence != Persistence::Not || !excludes_append(code) {
        return Error::AcknowledgementLost { reason };
    }
    match (code, topic) {
        (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge, _) => Error::BatchRefusedAsTooLarge,
        (Code::InvalidDifferentRecord, _) => Error::NeighbourRejected,
        (Code::TopicAuthorizationFailed, Some(topic)) => Error::Unauthorized(topic),
        (Code::UnknownTopicOrPartition | Code::UnknownTopic, Some(topic)) => Error::UnknownTopic(topic),
        (Code::UnknownPartition, Some(topic)) => Error::PartitionGone { topic, partition },
        (Code::InvalidTimestamp, Some(topic)) => {
            Error::TimestampOutOfRange { topic, timestamp, bound: reason }
        }
        (
            Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat,
            _,
        ) => Error::Rejected { reason },
        _ => Error::BrokerUnavailable { reason },
    }
}

/// Whether a final answer with this code means that the broker has not appended the batch. librdkafka takes every code that
/// it does not know for one that does, UNKNOWN_SERVER_ERROR among them, which a broker says that fails after its append.
fn excludes_append(code: Code) -> bool {
    // librdkafka's own, of which the status says enough
    if (code as i32) < Code::Unknown as i32 {
        return true;
    }
    match code {
        // the request is refused before it is read (KafkaApis.handleProduceRequest)
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidRequiredAcks
        | Code::InvalidRequest
        | Code::InvalidTopic
        | Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => true,
        // the batch is refused as it is checked (UnifiedLog.analyzeAndValidateRecords, LogValidator)
        Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => true,
        // its producer and sequence are (ProducerAppendInfo, ProducerStateManager)
        Code::InvalidProducerEpoch | Code::UnknownProducerId => true,
        // before the append, too few replicas (Partition.appendRecordsToLeader); no such partition here
        Code::NotEnoughReplicas | Code::UnknownTopicOrPartition => true,
        _ => false,
    }
}

/// True where librdkafka knows that the topic or the partition does not exist.
pub fn doubts_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition)
}

/// A record that librdkafka did not even queue.
pub fn of_enqueue(code: Code, topic: &TopicName, partition: i32) -> Error {
    match code {
        Code::MessageSizeTooLarge => Error::BatchRefusedAsTooLarge,
        Code::UnknownTopic => Error::UnknownTopic(topic.clone()),
        Code::UnknownPartition => Error::PartitionGone { topic: topic.clone(), partition },
        Code::TopicAuthorizationFailed => Error::Unauthorized(topic.clone()),
        Code::QueueFull => Error::BrokerUnavailable { reason: "librdkafka's queue is full".into() },
        code => Error::BrokerUnavailable { reason: code.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::Outcome;

    fn report(code: Code, persistence: Persistence) -> Error {
        let topic = TopicName::parse("t").ok();
        of_report(Refusal { code, persistence, topic, partition: 0, timestamp: 0, reason: "why".into() })
    }

    #[test]
    fn unknown_is_said_only_where_the_record_may_have_been_persisted() {
        for code in [Code::MessageTimedOut, Code::PurgeInflight, Code::NotEnoughReplicas, Code::InvalidRecord]
        {
            assert_eq!(report(code, Persistence::Possibly).outcome(), Outcome::Unknown, "{code:?}");
            assert_eq!(report(code, Persistence::Not).outcome(), Outcome::NotWritten, "{code:?}");
        }
    }

    #[test]
    fn a_code_that_a_broker_may_say_after_its_append_is_unknown() {
        for code in [Code::Unknown, Code::StaleControllerEpoch, Code::KafkaStorageError] {
            assert_eq!(report(code, Persistence::Not).outcome(), Outcome::Unknown, "{code:?}");
        }
    }

    #[test]
    fn what_the_record_itself_is_refused_for_is_not_retriable() {
        for code in [
            Code::InvalidRecord,
            Code::InvalidTimestamp,
            Code::PolicyViolation,
            Code::TopicAuthorizationFailed,
        ] {
            assert!(!report(code, Persistence::Not).is_retriable(), "{code:?}");
        }
    }

    #[test]
    fn what_the_cluster_is_at_fault_for_is_retriable() {
        for code in
            [Code::MessageTimedOut, Code::NotEnoughReplicas, Code::PurgeQueue, Code::InvalidProducerEpoch]
        {
            assert!(report(code, Persistence::Not).is_retriable(), "{code:?}");
        }
    }
}
