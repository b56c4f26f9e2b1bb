//! `GET /metrics` tells what happened, with labels from bounded sets.

use crate::{
    kafka_or_skip,
    support::{app::Service, eventually, unique},
};
use serde_json::json;
use std::time::Duration;

fn body(topic: &str) -> String {
    json!({"topic": topic, "value": 1, "project": "p"}).to_string()
}

#[tokio::test]
async fn every_documented_metric_is_there() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    client.post("/produce", body(&topic)).await.written();
    let samples = [
        "kafka_producer_connected 1".to_owned(),
        format!(r#"kafka_messages_sent_total{{status="success",topic="{topic}"}} 1"#),
        format!(r#"kafka_send_duration_seconds_count{{topic="{topic}"}} 1"#),
        format!(r#"kafka_send_duration_seconds_bucket{{topic="{topic}",le="10"}} 1"#),
        "kafka_producer_queue_messages ".into(),
        "kafka_producer_queue_bytes ".into(),
        "kafka_broker_up{broker=".into(),
        "kafka_broker_round_trip_seconds{broker=".into(),
        r#"http_requests_total{method="POST",route="/produce",status="202"} 1"#.into(),
        r#"http_request_duration_seconds_count{method="POST",route="/produce"} 1"#.into(),
        "http_connections ".into(),
        "inlet_in_flight_bytes ".into(),
        "inlet_in_flight_bytes_limit ".into(),
        "inlet_in_flight_records ".into(),
        "inlet_build_info{".into(),
        "process_cpu_seconds_total ".into(),
        "process_resident_memory_bytes ".into(),
        "process_open_fds ".into(),
    ];
    for sample in samples {
        // librdkafka's statistics come by and by
        eventually(&sample, Duration::from_secs(10), || async {
            client.get("/metrics").await.body.lines().any(|line| line.starts_with(&sample)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn topics_that_do_not_exist_and_paths_never_become_labels() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    let unknown = unique("scanned");
    client.post("/produce", body(&unknown)).await.problem(404, "unknown_topic");
    client.get(&format!("/{unknown}")).await.problem(404, "not_found");
    client.send("BREW", "/produce", &[], "").await;
    let metrics = client.get("/metrics").await.body;
    assert!(!metrics.contains(&unknown), "{metrics}");
    assert!(!metrics.contains("BREW"), "a method of the sender's invention is no label:\n{metrics}");
    assert!(metrics.contains(r#"route="unmatched""#), "{metrics}");
}

#[tokio::test]
async fn the_topics_beyond_the_limit_share_a_label() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[("METRICS_MAX_TOPICS", "1")]).await;
    let client = service.client();
    let topics =
        [kafka.new_topic(1, &[]).await, kafka.new_topic(1, &[]).await, kafka.new_topic(1, &[]).await];
    for topic in &topics {
        client.post("/produce", body(topic)).await.written();
    }
    let metrics = client.get("/metrics").await.body;
    assert!(metrics.contains(&format!(r#"topic="{}""#, topics[0])), "{metrics}");
    assert!(metrics.contains(r#"kafka_messages_sent_total{status="success",topic="_other"} 2"#), "{metrics}");
}
