//! The tests' own tools, without the service: what they say about Kafka is true.

use crate::{
    kafka_or_skip,
    support::{
        app::Service,
        broker::{self, Operation},
        client::RawConnection,
        consumer::{self, ReadRecord},
        java,
        mock::Mock,
        outcomes::{Duplicates, Outcome, Outcomes, Told},
        port::ReservedPort,
        proxy::{self, Fault},
    },
};
use rdkafka::{
    ClientConfig, Message,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
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
    mock.produce_errors(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD]);
    assert_eq!(produce(mock.bootstrap(), &[], "topic"), Err(RDKafkaErrorCode::InvalidRecord));
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), 1);
}

#[test]
fn a_mock_broker_goes_and_comes_until_the_flapping_ends() {
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    let flapping = mock.flap(1, Duration::from_millis(300));
    let address = mock.bootstrap().to_owned();
    let wait_until_listening_is = |expected: bool| {
        let start = Instant::now();
        while std::net::TcpStream::connect(&address).is_ok() != expected {
            assert!(start.elapsed() < Duration::from_secs(10), "listening is not {expected}");
            // each is a connection for the mock cluster's only thread
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for expected in [false, true, false, true, false] {
        wait_until_listening_is(expected);
    }
    drop(flapping);
    assert_eq!(produce(mock.bootstrap(), &[], "topic"), Ok(0));
}

#[test]
fn a_mock_broker_repeats_its_error_as_often_as_told() {
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    mock.repeated_produce_error(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 2);
    for _ in 0..2 {
        let refused = produce(mock.bootstrap(), &[], "topic");
        assert_eq!(refused, Err(RDKafkaErrorCode::TopicAuthorizationFailed));
    }
    assert_eq!(produce(mock.bootstrap(), &[], "topic"), Ok(0));
}

/// Where a proxy is before a real broker: what the producer was told, and what Kafka holds.
#[tokio::test]
async fn a_proxy_refuses_changes_and_loses_what_it_is_told_to_and_says_so() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let produce = || produce(&proxy.address(), &[("retries", "0")], &topic);
    assert_eq!(produce(), Ok(0));
    proxy.inject((topic.as_str(), 1), Fault::Lose, 1);
    assert_eq!(produce(), Ok(1), "another partition's");
    proxy.heal(&topic);
    for (fault, expected, count) in [
        (Fault::Refuse(87), RDKafkaErrorCode::InvalidRecord, 2),
        (Fault::Rewrite(7), RDKafkaErrorCode::RequestTimedOut, 3),
        (Fault::Lose, RDKafkaErrorCode::BrokerTransportFailure, 4),
    ] {
        proxy.inject(topic.as_str(), fault, 1);
        assert_eq!(produce(), Err(expected));
        assert_eq!(consumer::count(&kafka.bootstrap(), &topic), count, "{fault:?}");
    }
    let log = proxy.log(&topic);
    let said = log.iter().map(|passed| (passed.broker.map(|broker| broker.base_offset), passed.told));
    let expected =
        [(Some(0), Some(0)), (Some(1), Some(0)), (None, Some(87)), (Some(2), Some(7)), (Some(3), None)];
    assert_eq!(said.collect::<Vec<_>>(), expected);
    assert_eq!(proxy.errors(&topic), 2);
}

#[tokio::test]
async fn a_proxy_gives_a_producer_another_epoch_which_the_broker_takes() {
    let Some((proxy, kafka)) = proxy::own() else { return };
    let topic = kafka.new_topic(1, &[]).await;
    proxy.start_epoch(32_700, 1);
    let idempotent = [("enable.idempotence", "true")];
    for offset in 0..2 {
        assert_eq!(produce(&proxy.address(), &idempotent, &topic), Ok(offset));
    }
    let epochs: Vec<_> = proxy.log(&topic).iter().map(|passed| passed.produce.epoch).collect();
    assert_eq!(epochs, [32_700, 0], "only the first producer");
}

#[tokio::test]
async fn a_proxy_closes_a_connection_that_it_does_not_understand() {
    let Some((proxy, _)) = proxy::shared() else { return };
    let address = proxy.address().parse().unwrap();
    let produce_of_nothing = [0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 1];
    for odd in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 8], &[0, 0, 0, 2, 0, 0], &produce_of_nothing] {
        let mut connection = RawConnection::open(address).await;
        connection.send(odd).await;
        assert_eq!(connection.read_to_end(Duration::from_secs(20)).await, "");
    }
}

#[tokio::test]
async fn a_killed_service_starts_again_with_its_port_and_its_files() {
    let nobody = ReservedPort::new();
    let service = Service::spawn(&[("KAFKA_BROKERS", &nobody.address().to_string())]).await;
    let kept = service.folder().join("kept");
    std::fs::write(&kept, "").unwrap();
    service.kill();
    assert!(service.client().try_send("GET", "/health", &[], "").await.unwrap_err().is_connect());
    service.restart().await;
    assert_eq!(service.client().get("/health").await.status, 200);
    assert!(kept.exists());
}

/// A client's records, with numbers from 0, all of one key. What was written is told to be at the offset of its number.
fn outcomes(told: &[Told]) -> Outcomes {
    let outcome = |(number, told): (u64, &Told)| {
        let place = (*told == Told::Written).then_some((0, number as i64));
        Outcome { number, key: Some("k".into()), told: *told, place, failure: None }
    };
    Outcomes::new((0..).zip(told).map(outcome).collect(), "topic")
}

/// A record in Kafka: the partition, the number and the headers.
type Held<'a> = (i32, u64, &'a [(&'a str, &'a str)]);

/// They come by partition, then offset.
fn records(all: &[Held<'_>]) -> Vec<ReadRecord> {
    let record = |(offset, (partition, number, headers)): (i64, &Held<'_>)| ReadRecord {
        partition: *partition,
        offset,
        key: Some(b"k".to_vec()),
        value: Some(format!(r#"{{"number":{number}}}"#).into_bytes()),
        headers: headers.iter().map(|(name, value)| ((*name).into(), Some((*value).into()))).collect(),
        timestamp: 0,
    };
    (0..).zip(all).map(record).collect()
}

/// Whether the check fails, quietly.
fn fails<T>(check: impl FnOnce() -> T) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn a_lost_record_and_one_that_should_not_be_there_are_found() {
    let outcomes = outcomes(&[Told::Written, Told::Stored, Told::NotWritten, Told::Unknown]);
    let landed = outcomes.beside(records(&[(0, 0, &[]), (0, 1, &[])]));
    assert_eq!(landed.every_accepted_is_in(), 2);
    landed.no_refused_is_in();
    for held in [&[(0, 0, &[][..])][..], &[(0, 1, &[])]] {
        assert!(fails(|| outcomes.beside(records(held)).every_accepted_is_in()));
    }
    assert!(fails(|| outcomes.beside(records(&[(0, 2, &[])])).no_refused_is_in()));
}

#[test]
fn a_record_that_is_not_where_its_client_was_told_is_found() {
    let told = |place| {
        let outcome = Outcome { number: 7, key: None, told: Told::Written, place, failure: None };
        Outcomes::new(vec![outcome], "topic")
    };
    let held = || records(&[(0, 6, &[]), (0, 7, &[])]);
    told(Some((0, 1))).beside(held()).every_accepted_is_in();
    for wrong in [Some((0, 0)), Some((0, 2)), Some((1, 1)), None] {
        assert!(fails(|| told(wrong).beside(held()).every_accepted_is_in()), "{wrong:?}");
    }
}

#[test]
fn the_order_is_that_of_first_copies_of_accepted_records_in_one_partition() {
    let outcomes = outcomes(&[Told::Written, Told::Unknown, Told::Stored]);
    for kept in [[0, 2, 0], [0, 2, 1], [1, 0, 2]] {
        let held = kept.map(|number| (0, number, &[][..]));
        assert_eq!(outcomes.beside(records(&held)).order_is_kept(), 1, "{kept:?}");
    }
    let swapped = [(0, 2, &[][..]), (0, 0, &[])];
    let apart = [(0, 0, &[][..]), (1, 2, &[])];
    for held in [swapped, apart] {
        assert!(fails(|| outcomes.beside(records(&held)).order_is_kept()), "{held:?}");
    }
}

#[test]
fn a_duplicate_is_declared_by_its_headers() {
    let first: &[_] = &[("receipt", "a")];
    let replayed: &[_] = &[("receipt", "a"), ("receipt-replayed", "true")];
    let other: &[_] = &[("receipt", "b"), ("receipt-replayed", "true")];
    let outcomes = outcomes(&[Told::Stored]);
    let count = |copies: &[Held<'_>]| {
        let Duplicates { declared, undeclared } = outcomes.beside(records(copies)).duplicates();
        (declared, undeclared)
    };
    assert_eq!(count(&[(0, 0, first)]), (0, 0));
    assert_eq!(count(&[(0, 0, first), (0, 0, replayed)]), (1, 0));
    assert_eq!(count(&[(0, 0, first), (0, 0, replayed), (1, 0, replayed)]), (2, 0));
    assert_eq!(count(&[(0, 0, replayed), (0, 0, replayed)]), (1, 0), "the first attempt did not land");
    assert_eq!(count(&[(0, 0, replayed), (1, 0, first)]), (1, 0), "partitions have no common order");
    assert_eq!(count(&[(0, 0, &[]), (0, 0, &[])]), (0, 1));
    assert_eq!(count(&[(0, 0, first), (0, 0, first)]), (0, 1));
    assert_eq!(count(&[(0, 0, first), (0, 0, other)]), (0, 1));
    assert_eq!(count(&[(0, 0, replayed), (0, 0, first)]), (0, 1), "a replay before the original");
}
