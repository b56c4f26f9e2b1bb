//! The log helps whoever reads it and gives away nothing.

use crate::{
    kafka_or_skip,
    support::{app::Service, eventually, mock::Mock},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

fn body(topic: &str) -> String {
    json!({"topic": topic, "key": "k3y-17", "value": {"card": "v4lue-17"}, "project": "p"}).to_string()
}

/// Posts a record, with an id for its request, and waits until `shown` is in the log.
async fn log_of_a_record(level: &str, shown: Option<&str>) -> String {
    let service = Service::spawn_with(&["--embedded"], &[("LOG_LEVEL", level)]).await;
    service.wait_ready().await;
    let request = [("x-request-id", "request-17")];
    service.client().send("POST", "/produce", &request, body("topic")).await.written();
    if let Some(shown) = shown {
        eventually(&format!("'{shown}' is logged"), Duration::from_secs(5), || async {
            service.logs().contains(shown).then_some(())
        })
        .await;
    }
    service.logs()
}

#[tokio::test]
async fn a_request_has_one_line_at_debug_with_its_id() {
    let logs = log_of_a_record("info,kafka_inlet=debug", Some("request-17")).await;
    let lines: Vec<_> = logs.lines().filter(|line| line.contains("request-17")).collect();
    assert_eq!(lines.len(), 1, "{logs}");
    assert!(lines[0].contains("/produce") && lines[0].contains("202"), "{}", lines[0]);
}

#[tokio::test]
async fn keys_and_values_are_not_logged_above_debug() {
    let logs = log_of_a_record("info", None).await;
    assert!(!logs.contains("k3y-17") && !logs.contains("v4lue-17") && !logs.contains("request-17"), "{logs}");
}

#[tokio::test]
async fn the_embedded_mode_shows_each_record_by_default() {
    let logs = log_of_a_record("", Some("v4lue-17")).await;
    let line = logs.lines().find(|line| line.contains("v4lue-17")).unwrap();
    assert!(line.contains("topic[") && line.contains("]@0") && line.contains("k3y-17"), "{line}");
}

#[tokio::test]
async fn every_line_of_the_json_log_is_an_object_with_time_level_and_message() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[("LOG_LEVEL", "debug")]).await;
    service.client().post("/produce", "{").await.problem(400, "invalid_json");
    for line in service.logs().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for member in ["timestamp", "level", "message"] {
            assert!(line[member].is_string(), "{member} is missing in {line}");
        }
    }
}

#[tokio::test]
async fn an_outage_is_a_few_lines_and_its_end_is_one() {
    let Some(kafka) = crate::support::broker::own(&[]) else { return };
    let service = Service::on(&kafka, &[]).await;
    let before = service.logs().lines().count();
    kafka.kill();
    service.wait_unready_within(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let during = service.logs().lines().count() - before;
    assert!((1..=10).contains(&during), "{}", service.logs());
    let own = |line: &&str| line.contains("WARN") && line.contains("no connection to Kafka");
    assert!(service.logs().lines().filter(own).count() >= 1, "{}", service.logs());
    kafka.restart();
    service.wait_ready_within(Duration::from_secs(5)).await;
}

/// librdkafka's lines.
fn librdkafkas(service: &Service) -> Vec<Value> {
    let lines = service.logs();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["target"] == "librdkafka").collect()
}

#[tokio::test]
async fn what_librdkafka_says_of_a_broker_that_goes_away_is_in_the_log_once_in_a_while() {
    let mock = Mock::start(1);
    let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap())]).await;
    let start = Instant::now();
    // librdkafka itself leaves out what it has just said, but not what it says in turn
    let flapping = mock.flap(1, Duration::from_millis(500));
    let repeated = |line: &Value| line["others"].as_u64().unwrap() > 0;
    eventually("a line stands for others", Duration::from_secs(60), async || {
        librdkafkas(&service).iter().any(repeated).then_some(())
    })
    .await;
    drop(flapping);
    let (lines, tens_of_seconds) = (librdkafkas(&service), start.elapsed().as_secs() as usize / 10 + 1);
    let text = |line: &Value| line["message"].as_str().unwrap().to_owned();
    let kinds: BTreeSet<String> =
        lines.iter().map(|line| text(line).replace(|c: char| c.is_ascii_digit(), "")).collect();
    assert!(lines.len() <= kinds.len() * tens_of_seconds, "{lines:#?}");
    let refused = lines.iter().find(|line| text(line).contains("Connection refused")).unwrap();
    assert_eq!((&refused["level"], &refused["facility"]), (&json!("ERROR"), &json!("FAIL")));
    assert!(text(refused).contains(mock.bootstrap()), "{refused}");
}
