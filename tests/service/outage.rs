//! Brokers die, freeze and come back, and so does the service: nothing that was acknowledged is lost, nobody waits for ever, and
//! readiness tells the truth within 5 s.

use crate::{
    kafka_or_skip,
    support::{
        app::Service,
        broker::{self, Broker},
        consumer, eventually, in_time,
        load::{Load, LoadOptions, Loads, Requests},
        mock::Mock,
        outcomes::Told,
        port::ReservedPort,
        silent,
        spool::peak_memory,
    },
};
use serde_json::json;
use std::time::{Duration, Instant};

/// A short time-out keeps the tests short.
const DELIVERY_TIMEOUT: (&str, &str) = ("KAFKA_DELIVERY_TIMEOUT_MS", "4000");
/// How late an answer may be: the delivery time-out and one second.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How late `/ready` may be.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// Clients of each kind, that each have two keys.
const KEYED: LoadOptions = LoadOptions { clients: 16, keys: 2, requests: Requests::Single };
const KEYS: usize = 32;

fn body(topic: &str) -> String {
    json!({"topic": topic, "value": 1, "project": "p"}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_and_restarted_under_load_loses_no_acknowledged_record() {
    let Some(kafka) = broker::own(&[]) else { return };
    let probes = kafka.new_topic(1, &[]).await;
    let service = Service::on(&kafka, &[DELIVERY_TIMEOUT]).await;
    let client = service.client();
    let loads = Loads::start(&service, &kafka, &Requests::DIRECT, KEYED).await;
    loads.wait_for(200).await;
    kafka.kill();
    service.wait_unready_within(READY_LIMIT).await;
    assert_eq!(client.get("/health").await.status, 200, "liveness does not depend on Kafka");
    assert_eq!(client.get("/health/kafka").await.status, 503);
    kafka.restart();
    service.wait_ready_within(READY_LIMIT).await;
    eventually("a record is written", READY_LIMIT, || async {
        (client.post("/produce", body(&probes)).await.status == 202).then_some(())
    })
    .await;
    loads.wait_for(200).await;
    for (outcomes, requests) in loads.stop().await.iter().zip(Requests::DIRECT) {
        assert!(outcomes.verify(&kafka.bootstrap()) >= 400);
        assert_eq!(outcomes.read(&kafka.bootstrap()).order_is_kept(), KEYS);
        assert!(outcomes.not_written() > 0, "{requests:?}: nothing was refused while the broker was down");
    }
}

#[tokio::test]
async fn a_service_killed_and_restarted_under_load_loses_no_acknowledged_record() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[]).await;
    let loads = Loads::start(&service, kafka, &Requests::DIRECT, KEYED).await;
    for _ in 0..3 {
        loads.wait_for(200).await;
        service.kill();
        service.restart().await;
        service.wait_ready().await;
    }
    loads.wait_for(200).await;
    for (outcomes, requests) in loads.stop().await.iter().zip(Requests::DIRECT) {
        let failures = outcomes.failures();
        assert!(
            outcomes.count(Told::Unknown) > 0,
            "{requests:?}: no request was under way at a kill: {failures:?}"
        );
        assert!(outcomes.verify(&kafka.bootstrap()) >= 800);
        assert_eq!(outcomes.read(&kafka.bootstrap()).order_is_kept(), KEYS);
    }
}

#[tokio::test]
async fn a_frozen_broker_keeps_nobody_waiting() {
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(&kafka, &[DELIVERY_TIMEOUT]).await;
    let client = service.client();
    client.post("/produce", body(&topic)).await.written();

    kafka.freeze();
    let frozen = Instant::now();
    let answer = client.post("/produce", body(&topic)).await;
    in_time(frozen.elapsed(), ANSWER_LIMIT);
    // a request was on its way to a broker that may yet read it
    assert_eq!(answer.problem(504, "delivery_timeout")["outcome"], "unknown");
    let reason = service.wait_unready_within(READY_LIMIT).await;
    assert!(!reason.is_empty());

    let refused = Instant::now();
    assert_eq!(
        client.post("/produce", body(&topic)).await.problem(503, "not_ready")["outcome"],
        "not_written"
    );
    in_time(refused.elapsed(), Duration::from_secs(2));

    kafka.thaw();
    service.wait_ready_within(READY_LIMIT).await;
    client.post("/produce", body(&topic)).await.written();
    let count = consumer::count(&kafka.bootstrap(), &topic);
    assert!((2..=3).contains(&count), "{count}");
}

#[tokio::test]
async fn a_topic_that_is_new_to_a_frozen_broker_is_answered_in_time() {
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(&kafka, &[DELIVERY_TIMEOUT]).await;
    kafka.freeze();
    let asked = Instant::now();
    let answer = service.client().post("/produce", body(&topic)).await;
    in_time(asked.elapsed(), ANSWER_LIMIT);
    assert_eq!(answer.status, 503, "not 404: nobody said that it does not exist: {answer:?}");
    assert_eq!(answer.json()["outcome"], "not_written");
}

#[tokio::test]
async fn a_kafka_that_appears_a_minute_later_is_found() {
    if !broker::startable() {
        return;
    }
    let kafka = Broker::prepare(&[]);
    let service = Service::spawn(&[
        ("KAFKA_BROKERS", &kafka.bootstrap()),
        ("KAFKA_CREATE_TOPICS", "true"),
        DELIVERY_TIMEOUT,
    ])
    .await;
    let client = service.client();
    // long after every backoff has reached its bound
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        assert_eq!(client.get("/ready").await.status, 503);
        assert_eq!(client.get("/health").await.json()["kafka_connected"], false);
        client.post("/produce", body("later")).await.problem(503, "not_ready");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    kafka.restart();
    service.wait_ready_within(READY_LIMIT).await;
    kafka.create_topic("later", 1, &[]).await;
    eventually("the topic is found", READY_LIMIT, || async {
        (client.post("/produce", body("later")).await.status == 202).then_some(())
    })
    .await;
    let is_error = |line: &&str| line.contains("ERROR") && !line.contains(r#""target":"librdkafka""#);
    let errors = service.logs().lines().filter(is_error).count();
    assert_eq!(errors, 0, "an absent Kafka is no error of the service:\n{}", service.logs());
}

#[tokio::test]
async fn one_broker_of_two_that_is_down_is_no_outage() {
    let mock = Mock::start(2);
    mock.create_topic("topic", 2);
    let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap()), DELIVERY_TIMEOUT]).await;
    let client = service.client();
    let post = async |partition: i32| {
        let body = json!({"topic": "topic", "value": 1, "project": "p", "partition": partition});
        let asked = Instant::now();
        let answer = client.post("/produce", body.to_string()).await;
        in_time(asked.elapsed(), ANSWER_LIMIT);
        answer.status
    };
    assert_eq!([post(0).await, post(1).await], [202, 202]);
    mock.broker_down(2);
    let mut statuses = [post(0).await, post(1).await];
    statuses.sort_unstable();
    assert_eq!(statuses[0], 202, "the other broker's partition: {statuses:?}");
    assert!([503, 504].contains(&statuses[1]), "{statuses:?}");
    assert_eq!(client.get("/ready").await.status, 200);
    mock.broker_up(2);
    eventually("both partitions are written again", Duration::from_secs(10), async || {
        (post(0).await == 202 && post(1).await == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_flaps_every_second_loses_no_acknowledged_record() {
    let mock = Mock::start(1);
    mock.create_topic("topic", 3);
    let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap()), DELIVERY_TIMEOUT]).await;
    let options = LoadOptions { clients: 16, keys: 1, ..LoadOptions::default() };
    let load = Load::start_with(service.address(), "topic", options);
    load.wait_for(200).await;
    let flapping = mock.flap(1, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(6)).await;
    drop(flapping);
    service.wait_ready_within(READY_LIMIT).await;
    load.wait_for(200).await;
    let outcomes = load.stop().await;
    let landed = outcomes.read(mock.bootstrap());
    // duplicates are not counted: the mock cluster is no measure of what a broker takes twice
    assert!(landed.every_accepted_is_in() >= 400);
    landed.no_refused_is_in();
    landed.order_is_kept();
}

#[tokio::test]
async fn memory_stays_bounded_while_a_broker_does_not_answer_and_while_there_is_none() {
    memory_stays_bounded(1000).await;
}

/// Of batches whose buffers grow once, from a mebibyte to half as much again.
#[tokio::test]
async fn memory_stays_bounded_also_for_larger_batches() {
    memory_stays_bounded(1400).await;
}

async fn memory_stays_bounded(records: usize) {
    const LIMIT: u64 = 32 << 20;
    let mock = Mock::start(1);
    mock.create_topic("topic", 3);
    let limit = LIMIT.to_string();
    let variables = [("KAFKA_BROKERS", mock.bootstrap()), ("MAX_IN_FLIGHT_BYTES", &limit), DELIVERY_TIMEOUT];
    let service = Service::ready(&variables).await;
    let client = service.client();
    client.post("/produce", body("topic")).await.written();
    let idle = peak_memory(&service);
    let record = json!({"topic": "topic", "value": "x".repeat(1024), "project": "p"});
    let batch = serde_json::to_vec(&vec![record; records]).unwrap();
    let post = async || {
        let answer = client.post("/produce/batch", batch.as_slice()).await;
        assert!([503, 504].contains(&answer.status), "{answer:?}");
        answer.status
    };

    mock.round_trip_time(1, Duration::from_secs(60));
    // three times what may be in flight, at once and again
    let mut unknown = 0;
    for _ in 0..2 {
        let statuses = futures_util::future::join_all((0..48).map(|_| post())).await;
        unknown += statuses.iter().filter(|status| **status == 504).count();
    }
    assert!(unknown > 0, "nothing was in flight");
    mock.broker_down(1);
    for _ in 0..40 {
        post().await;
    }
    let above = peak_memory(&service).saturating_sub(idle);
    assert!(above < 2 * LIMIT, "{above} above idle");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_not_ready() {
    let address = silent::listen();
    let service = Service::spawn(&[("KAFKA_BROKERS", &address), DELIVERY_TIMEOUT]).await;
    let client = service.client();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        let ready = client.get("/ready").await;
        assert_eq!(ready.status, 503);
        assert!(ready.json()["reason"].is_string(), "{ready:?}");
        let asked = Instant::now();
        client.post("/logs", r#"{"value":1,"project":"p"}"#).await.problem(503, "not_ready");
        in_time(asked.elapsed(), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(service.logs().lines().count() < 60, "too many lines:\n{}", service.logs());
}

#[tokio::test]
async fn bounded_attempts_to_connect_end_the_process() {
    let nobody = ReservedPort::new();
    let service = Service::spawn(&[
        ("KAFKA_BROKERS", &nobody.address().to_string()),
        ("KAFKA_CONNECT_RETRIES", "2"),
        ("KAFKA_CONNECT_BASE_DELAY_MS", "50"),
    ])
    .await;
    let (status, _) = service.wait_exit(Duration::from_secs(20)).await;
    assert!(!status.success());
    assert!(service.logs().contains("KAFKA_CONNECT_RETRIES"), "{}", service.logs());
}
