//! The tests' own tools, without the service: what they say about Kafka is true.

use crate::{
    kafka_or_skip,
    support::{
        broker::{self, Operation},
        consumer, java,
        mock::Mock,
    },
};
use rdkafka::{
    ClientConfig, Message,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Keeps the result of the last delivery.
#[derive(Clone, Default)]
struct LastDelivery(Arc<Mutex<Option<Result<i64, RDKafkaErrorCode>>>>);

impl rdkafka::ClientContext for LastDelivery {}

impl ProducerContext for LastDelivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        };
        *self.0.lock().unwrap() = Some(result);
    }
}

fn produce(bootstrap: &str, settings: &[(&str, &str)], topic: &str) -> Result<i64, RDKafkaErrorCode> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("message.timeout.ms", "10000").set("log_level", "0");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let last = LastDelivery::default();
    let producer: BaseProducer<LastDelivery> = config.create_with_context(last.clone()).unwrap();
    let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some("v") });
    producer
        .send(BaseRecord::to(topic).key("k").payload("x").headers(headers))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(Duration::from_secs(15)).unwrap();
    last.0.lock().unwrap().take().unwrap()
}

fn sasl<'a>(protocol: &'a str, mechanism: &'a str, user: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    vec![
        ("security.protocol", protocol),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user.0),
        ("sasl.password", user.1),
    ]
}

#[tokio::test]
async fn a_record_is_read_back_as_it_was_written() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    assert_eq!(produce(&kafka.bootstrap(), &[], &topic), Ok(0));
    let record = consumer::read_one(&kafka.bootstrap(), &topic);
    assert_eq!((record.key.as_deref(), record.text(), record.header("h")), (Some(&b"k"[..]), "x", Some("v")));
    assert_eq!(consumer::high_watermarks(&kafka.bootstrap(), &topic), [1]);
}

#[tokio::test]
async fn every_secured_listener_takes_its_users() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let ca = java::ca();
    let tls = ("ssl.ca.location", ca.to_str().unwrap());
    assert_eq!(produce(&kafka.ssl_bootstrap(), &[("security.protocol", "ssl"), tls], &topic), Ok(0));
    let mut offset = 0;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let plain = sasl("sasl_plaintext", mechanism, java::WRITER);
        offset += 1;
        assert_eq!(produce(&kafka.sasl_plain_bootstrap(), &plain, &topic), Ok(offset), "{mechanism}");
        let mut encrypted = sasl("sasl_ssl", mechanism, java::WRITER);
        encrypted.push(tls);
        offset += 1;
        assert_eq!(produce(&kafka.sasl_ssl_bootstrap(), &encrypted, &topic), Ok(offset), "{mechanism}");
    }
}

#[tokio::test]
async fn the_restricted_user_may_do_what_was_allowed() {
    let kafka = kafka_or_skip!();
    let (open, closed) = (kafka.new_topic(1, &[]).await, kafka.new_topic(1, &[]).await);
    kafka.allow_restricted(&open, Operation::Write).await;
    kafka.allow_restricted(&closed, Operation::Describe).await;
    let restricted = sasl("sasl_plaintext", "PLAIN", java::RESTRICTED);
    assert_eq!(produce(&kafka.sasl_plain_bootstrap(), &restricted, &open), Ok(0));
    let refused = produce(&kafka.sasl_plain_bootstrap(), &restricted, &closed);
    assert_eq!(refused, Err(RDKafkaErrorCode::TopicAuthorizationFailed));
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_records() {
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(1, &[]).await;
    assert_eq!(produce(&kafka.bootstrap(), &[], &topic), Ok(0));
    kafka.kill();
    kafka.restart();
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 1);
    kafka.freeze();
    kafka.thaw();
    assert_eq!(produce(&kafka.bootstrap(), &[], &topic), Ok(1));
}

#[test]
fn the_mock_cluster_takes_and_refuses_records() {
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    assert_eq!(produce(mock.bootstrap(), &[], "topic"), Ok(0));
    mock.produce_errors(&[rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD]);
    assert_eq!(produce(mock.bootstrap(), &[], "topic"), Err(RDKafkaErrorCode::InvalidRecord));
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), 1);
}
