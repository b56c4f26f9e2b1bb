//! librdkafka's errors in the core's words. The one table of what is permanent and what is not.

use super::report::Persistence;
use crate::produce::{Error, TopicName};
use rdkafka::types::RDKafkaErrorCode as Code;

/// A delivery report that says no. `reason` is the broker's or librdkafka's text.
pub fn of_report(
    code: Code,
    persistence: Persistence,
    topic: Option<TopicName>,
    timestamp: i64,
    reason: String,
) -> Error {
    if persistence != Persistence::Not {
        return Error::AcknowledgementLost { reason };
    }
    match (code, topic) {
        (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge, _) => Error::BatchRefusedAsTooLarge,
        (Code::InvalidDifferentRecord, _) => Error::NeighbourRejected,
        (Code::TopicAuthorizationFailed, Some(topic)) => Error::Unauthorized(topic),
        (Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition, Some(topic)) => {
            Error::UnknownTopic(topic)
        }
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

/// A record that librdkafka did not even queue.
pub fn of_enqueue(code: Code, topic: &TopicName) -> Error {
    match code {
        Code::MessageSizeTooLarge => Error::BatchRefusedAsTooLarge,
        Code::UnknownTopic | Code::UnknownPartition => Error::UnknownTopic(topic.clone()),
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
        of_report(code, persistence, TopicName::parse("t").ok(), 0, "why".into())
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
            [Code::MessageTimedOut, Code::NotEnoughReplicas, Code::NotLeaderForPartition, Code::PurgeQueue]
        {
            assert!(report(code, Persistence::Not).is_retriable(), "{code:?}");
        }
    }
}
