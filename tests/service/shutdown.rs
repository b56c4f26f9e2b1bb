//! On SIGTERM the service turns unready, answers what it has begun, flushes and exits with 0 within 25 s.

use crate::{
    kafka_or_skip,
    support::{
        app::Service, broker, client::RawConnection, consumer, in_time, load::Load, port::ReservedPort,
    },
};
use serde_json::json;
use std::time::Duration;

/// The longest that a shutdown may take.
const LIMIT: Duration = Duration::from_secs(25);
const SHORT_DELAY: (&str, &str) = ("SHUTDOWN_DELAY_MS", "200");
const DELIVERY_TIMEOUT: (&str, &str) = ("KAFKA_DELIVERY_TIMEOUT_MS", "4000");

/// Fails unless the service exits with 0 in time.
async fn exits_cleanly(service: &Service) -> Duration {
    let (status, taken) = service.wait_exit(LIMIT).await;
    assert_eq!(status.code(), Some(0), "{}", service.logs());
    taken
}

#[tokio::test]
async fn an_idle_service_ends_after_its_delay() {
    let kafka = kafka_or_skip!();
    for signal in ["TERM", "INT"] {
        let service = Service::on(kafka, &[SHORT_DELAY]).await;
        service.signal(signal);
        in_time(exits_cleanly(&service).await, Duration::from_secs(5));
    }
}

#[tokio::test]
async fn during_the_delay_it_is_unready_and_still_serves() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let service =
        Service::on(kafka, &[("SHUTDOWN_DELAY_MS", "5000"), ("SHUTDOWN_TIMEOUT_MS", "15000")]).await;
    let client = service.client();
    service.signal("TERM");
    let reason = service.wait_unready_within(Duration::from_secs(1)).await;
    assert!(reason.contains("shutting down"), "{reason}");
    let body = json!({"topic": topic, "value": 1, "project": "p"}).to_string();
    let answer = client.post("/produce", body).await;
    answer.written();
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(client.get("/health").await.status, 200);
    let taken = exits_cleanly(&service).await;
    assert!(taken > Duration::from_millis(500), "the delay was not kept: {taken:?}");
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 1);
}

#[tokio::test]
async fn under_load_every_acknowledged_record_is_in_kafka() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(3, &[]).await;
    let service = Service::on(kafka, &[SHORT_DELAY]).await;
    let load = Load::start(&service, &topic, 64);
    load.wait_for(500).await;
    service.signal("TERM");
    exits_cleanly(&service).await;
    assert!(load.stop().await.verify(&kafka.bootstrap()) >= 500);
}

#[tokio::test]
async fn with_the_broker_down_it_ends_in_time() {
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(&kafka, &[SHORT_DELAY, DELIVERY_TIMEOUT]).await;
    let load = Load::start(&service, &topic, 16);
    load.wait_for(100).await;
    kafka.kill();
    service.signal("TERM");
    exits_cleanly(&service).await;
    let outcomes = load.stop().await;
    kafka.restart();
    outcomes.verify(&kafka.bootstrap());
}

#[tokio::test]
async fn without_any_broker_ever_it_ends_in_time() {
    let nobody = ReservedPort::new();
    let service = Service::spawn(&[("KAFKA_BROKERS", &nobody.address().to_string()), SHORT_DELAY]).await;
    service.signal("TERM");
    exits_cleanly(&service).await;
}

#[tokio::test]
async fn half_sent_requests_do_not_hold_it_up() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[SHORT_DELAY, ("SHUTDOWN_TIMEOUT_MS", "10000")]).await;
    let mut idle = RawConnection::open(service.address()).await;
    idle.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.read_until("healthy", Duration::from_secs(5)).await;
    let mut half_head = RawConnection::open(service.address()).await;
    half_head.send("POST /logs HTTP/1.1\r\nhost:").await;
    let mut half_body = RawConnection::open(service.address()).await;
    half_body.send("POST /logs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.signal("TERM");
    exits_cleanly(&service).await;
}

#[tokio::test]
async fn a_request_that_was_begun_is_answered() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(kafka, &[SHORT_DELAY]).await;
    let body = json!({"topic": topic, "value": 1, "project": "p"}).to_string();
    let (first, last) = body.split_at(body.len() / 2);
    let mut connection = RawConnection::open(service.address()).await;
    let head = format!("POST /produce HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.send(head + first).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.signal("TERM");
    tokio::time::sleep(Duration::from_millis(700)).await;
    connection.send(last).await;
    let answer = connection.read_to_end(Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    exits_cleanly(&service).await;
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 1);
}
