//! `check --write`: the proof, one marked record.

use super::{Line, Verdict, client::CheckClient};
use crate::{config::Config, produce::TopicName};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};

/// The header by which consumers can tell the record from real ones; its value is the service's version.
const HEADER: &str = "kafka-inlet-check";

/// Produces one record without a key and waits for its acknowledgement by all in-sync replicas (`acks=all`,
/// as for the service's own records).
pub(super) fn one_record(client: &CheckClient, config: &Config, topic: &TopicName) -> Line {
    let value = serde_json::json!({
        "kafka_inlet_check": true,
        "source": config.kafka.client_id,
        "message": "written by `kafka-inlet check --write`; it means nothing else",
    })
    .to_string();
    let header = Header { key: HEADER, value: Some(env!("CARGO_PKG_VERSION")) };
    let record = BaseRecord::to(topic.as_str())
        .payload(value.as_str())
        .headers(OwnedHeaders::new_with_capacity(1).insert(header));

    let timeout = config.kafka.delivery_timeout;
    let subject = format!("write to {topic}");
    match client.send(record, timeout) {
        Some(Ok((partition, offset))) => {
            let finding =
                format!("acknowledged by all in-sync replicas: partition {partition}, offset {offset}");
            Line::new(Verdict::Ok, subject, finding)
        }
        Some(Err(error)) => {
            let reason =
                error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
            let advice = "the service needs the WRITE right, and a compacted topic refuses this record, which has no key";
            Line::new(Verdict::Fail, subject, format!("{reason}; {advice}"))
        }
        None => {
            let finding = format!(
                "no acknowledgement within {} ms (KAFKA_DELIVERY_TIMEOUT_MS); the record may have been written",
                timeout.as_millis()
            );
            Line::new(Verdict::Fail, subject, finding)
        }
    }
}
