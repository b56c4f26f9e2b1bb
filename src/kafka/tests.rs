//! The adapter as a whole, against librdkafka's mock cluster in the same process.
#![expect(unsafe_code, reason = "rd_kafka_test_fatal_error has no wrapper")]

use super::{EmbeddedCluster, KafkaProducer};
use crate::{
    config::Config,
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{
        Admitted, Arrival, AutomaticHeaders, Budget, Delivery, Header, Outcome, Pipeline, Producer as _,
        Record, Settings, Submission, TopicName, Turn, Verdict,
    },
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
use futures_util::future::join_all;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList, bindings as sys,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    producer::Producer as _,
    types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaRespErr},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const TOPIC: &str = "rtmh.logs";

struct Service {
    _supervisor: Supervisor,
    readiness: Arc<Readiness>,
    producer: Arc<KafkaProducer>,
    pipeline: Pipeline,
}

fn start() -> (EmbeddedCluster, Service) {
    let cluster = EmbeddedCluster::start(&Config::default().topics.distinct(), 1).unwrap();
    let service = connect(cluster.bootstrap_servers());
    (cluster, service)
}

fn connect(bootstrap_servers: &str) -> Service {
    let mut config = Config::default();
    config.kafka.brokers = vec![bootstrap_servers.to_owned()];
    let mut supervisor = Supervisor::new();
    let (readiness, metrics) = (Readiness::new(), Arc::new(Metrics::for_tests()));
    let producer =
        KafkaProducer::start(&config, readiness.clone(), metrics.clone(), Arc::default(), &mut supervisor)
            .unwrap();
    let settings = Settings { delivery_timeout: config.kafka.delivery_timeout, max_record_bytes: 1 << 20 };
    let pipeline = Pipeline::new(producer.clone(), Budget::new(1 << 20), metrics, settings);
    Service { _supervisor: supervisor, readiness, producer, pipeline }
}

impl Service {
    /// Waits for readiness to become so, and returns the reason that it was last not.
    async fn becomes_ready(&self, ready: bool) -> Option<Arc<str>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.readiness.fault().is_none() != ready {
            assert!(Instant::now() < deadline, "ready is not {ready}: {:?}", self.readiness.fault());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.readiness.fault()
    }

    async fn send(&self, value: impl ToString) -> Verdict {
        self.submit(Record { value: Some(value.to_string().into()), ..record() }).await
    }

    async fn submit(&self, record: Record) -> Verdict {
        let mut verdicts = self.pipeline.submit(vec![record], Arrival::now()).await.unwrap();
        verdicts.remove(0)
    }

    fn lose_producer(&self) {
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        self.producer.cluster.shared().with_client(|client| {
            // SAFETY: the client is alive, and the text is a C string.
            unsafe {
                sys::rd_kafka_test_fatal_error(client.client().native_ptr(), code, c"as a test".as_ptr())
            }
        });
    }
}

/// A tombstone without key or headers.
fn record() -> Record {
    Record {
        topic: TopicName::parse(TOPIC).unwrap(),
        partition: None,
        key: None,
        value: None,
        headers: Vec::new(),
        automatic: Arc::new(AutomaticHeaders::default()),
        timestamp: 1_795_228_481_123,
        receipt: None,
    }
}

/// A consumer at the beginning of the topic's only partition.
fn reader(bootstrap_servers: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    consumer
}

/// The values in the only partition of the topic, from its beginning to the first record with the value `last`.
fn read_until(bootstrap_servers: &str, last: &str) -> Vec<String> {
    let consumer = reader(bootstrap_servers);
    let mut values = Vec::new();
    while values.last().is_none_or(|value| value != last) {
        let message = consumer.poll(Duration::from_secs(10)).expect("the last record is there").unwrap();
        values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fatal_error_takes_the_link_down_and_a_new_producer_brings_it_back() {
    let (_cluster, service) = start();
    service.becomes_ready(true).await;
    assert_eq!(service.send("{}").await.unwrap().written().unwrap().offset, Some(0));

    service.lose_producer();
    let reason = service.becomes_ready(false).await.unwrap();
    assert!(reason.contains("as a test"), "{reason}");
    service.becomes_ready(true).await;
    assert_eq!(service.send("{}").await.unwrap().written().unwrap().offset, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_record_that_a_lost_producer_held_is_answered_and_the_outcome_is_true() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let service = connect(&cluster.bootstrap_servers());
    service.becomes_ready(true).await;
    service.send("first").await.unwrap();

    // the broker writes at once but answers after the producer is lost
    cluster.broker_round_trip_time(1, Duration::from_secs(6)).unwrap();
    let begin = Instant::now();
    let numbers = 0..20;
    let held = numbers.clone().map(async |number| {
        // batches of one: the first five are sent, the others wait for an answer to them
        tokio::time::sleep(Duration::from_millis(20) * number).await;
        service.send(number).await
    });
    let lose = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        service.lose_producer();
    };
    let (verdicts, ()) = tokio::join!(join_all(held), lose);
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "not by the records' own time-out: {:?}",
        begin.elapsed()
    );

    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    service.becomes_ready(true).await;
    service.send("last").await.unwrap();
    let values = read_until(&cluster.bootstrap_servers(), "last");
    let outcomes: Vec<_> = verdicts.into_iter().map(|verdict| verdict.unwrap_err().outcome()).collect();
    assert!(outcomes.contains(&Outcome::Unknown) && outcomes.contains(&Outcome::NotWritten), "{outcomes:?}");
    for (number, outcome) in numbers.zip(outcomes) {
        let count = values.iter().filter(|value| **value == number.to_string()).count();
        let most = if outcome == Outcome::Unknown { 1 } else { 0 };
        assert!(count <= most, "record {number} is there {count} times: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_client_with_a_refused_epoch_has_not_written_goes_to_the_next_in_order_and_to_the_byte() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let service = connect(&cluster.bootstrap_servers());
    service.becomes_ready(true).await;
    service.send("first").await.unwrap();

    cluster
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH]);
    let header = |name: &str, value: Option<&'static str>| Header {
        name: name.into(),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let full = Record {
        key: Some(Bytes::from_static(b"k\0\xff")),
        value: Some(Bytes::from_static(b"v\0\xff")),
        headers: vec![header("a", Some("1")), header("null", None), header("a", Some(""))],
        ..record()
    };
    let batch = vec![full.clone(), record(), Record { value: Some("last".into()), ..record() }];
    let verdicts = service.pipeline.submit(batch, Arrival::now()).await.unwrap();
    let offsets: Vec<_> =
        verdicts.into_iter().map(|verdict| verdict.unwrap().written().unwrap().offset).collect();
    assert_eq!(offsets, [Some(1), Some(2), Some(3)]);

    let servers = cluster.bootstrap_servers();
    let reader = reader(&servers);
    let read = || reader.poll(Duration::from_secs(10)).expect("the record is there").unwrap();
    assert_eq!(read().payload(), Some(&b"first"[..]));
    let landed = read();
    assert_eq!((landed.key(), landed.payload()), (full.key.as_deref(), full.value.as_deref()));
    let headers: Vec<_> =
        landed.headers().unwrap().iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    let sent = full.headers.into_iter().map(|h| (h.name, h.value.map(|value| value.to_vec())));
    assert_eq!(headers, sent.collect::<Vec<_>>());
    assert_eq!(landed.timestamp().to_millis(), Some(full.timestamp));
    let empty = read();
    assert_eq!((empty.key(), empty.payload(), empty.headers().is_none()), (None, None, true));
    assert_eq!(read().payload(), Some(&b"last"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_that_is_not_there_is_told_from_one_that_cannot_be_asked_for() {
    let (_cluster, service) = start();
    service.becomes_ready(true).await;
    let present = TopicName::parse(TOPIC).unwrap();
    assert_eq!(service.producer.known_topic(&present).unwrap().unwrap().partitions, 1);
    let absent = TopicName::parse("nowhere").unwrap();
    let answer = service.producer.look_up_topic(&absent, Turn::First).await;
    assert_eq!(answer.unwrap_err().tag(), "unknown_topic");
    assert!(service.producer.known_topic(&absent).unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_reaches_kafka_to_the_byte() {
    let (cluster, service) = start();
    service.becomes_ready(true).await;
    let header = |name: &str, value: Option<&'static [u8]>| Header {
        name: name.into(),
        value: value.map(Bytes::from_static),
    };
    let headers = vec![
        header("binary", Some(b"a\0b\xff")),
        header("empty", Some(b"")),
        header("null", None),
        header("binary", Some(b"again")),
    ];
    let full = Record {
        key: Some(Bytes::from_static(b"k\0\xff")),
        value: Some(Bytes::from_static(b"v\0\xff")),
        headers: headers.clone(),
        ..record()
    };
    let empty = Record { key: Some(Bytes::new()), value: Some(Bytes::new()), ..record() };
    for sent in [full, empty, record()] {
        service.submit(sent).await.unwrap();
    }

    let reader = reader(cluster.bootstrap_servers());
    let read = || reader.poll(Duration::from_secs(10)).expect("the record is there").unwrap();
    let full = read();
    assert_eq!((full.key(), full.payload()), (Some(&b"k\0\xff"[..]), Some(&b"v\0\xff"[..])));
    let landed: Vec<_> =
        full.headers().unwrap().iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    let expected: Vec<_> =
        headers.into_iter().map(|h| (h.name, h.value.map(|value| value.to_vec()))).collect();
    assert_eq!(landed, expected);
    assert_eq!(full.timestamp().to_millis(), Some(1_795_228_481_123));
    let empty = read();
    assert_eq!((empty.key(), empty.payload()), (Some(&b""[..]), Some(&b""[..])));
    let null = read();
    assert_eq!((null.key(), null.payload()), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_that_librdkafka_does_not_take_comes_back_with_its_ack() {
    let (_cluster, service) = start();
    service.becomes_ready(true).await;
    service.send("{}").await.unwrap();
    let submission = Arc::new(Submission::to_one_topic([record()].into()));
    let admitted = [Admitted { record: 0, partition: 7, reserved: 0 }];
    let delivery = Delivery::new(&submission, admitted, Budget::new(1000), Instant::now());
    let outgoing = delivery.outgoing(&submission).next().unwrap();
    let topic = TopicName::parse(TOPIC).unwrap();
    let native = service.producer.cluster.shared().with_client(|client| client.topic(&topic)).unwrap();
    let (code, outgoing) = native.send(outgoing, 0).err().unwrap();
    assert_eq!(code, RDKafkaErrorCode::UnknownPartition);
    assert_eq!(outgoing.partition(), 7);
    drop(outgoing);
    delivery.resolved().await;
}
