//! Topics that the service does not know yet are asked for many at once, and names without a topic harm nobody.

use crate::{
    kafka_or_skip,
    support::{
        app::Service, client::Client, consumer, eventually, mock::Mock, proxy, spool::peak_memory, unique,
    },
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

fn record(topic: &str) -> Value {
    json!({"topic": topic, "value": 1, "project": "p"})
}

/// One batch with a record for each topic: the answer's results.
async fn post_batch(client: &Client, topics: &[String]) -> Vec<Value> {
    let records: Vec<_> = topics.iter().map(|topic| record(topic)).collect();
    let answer = client.post("/produce/batch", Value::from(records).to_string()).await.json();
    answer["results"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    let prefix = unique(prefix);
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

#[tokio::test]
async fn names_without_a_topic_are_refused_as_such_and_leave_nothing_in_memory() {
    let kafka = kafka_or_skip!();
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    let refuse = async |count| {
        for result in post_batch(&client, &names("absent", count)).await {
            assert_eq!(result["error"], "unknown_topic", "{result}");
        }
    };
    refuse(500).await;
    let before = peak_memory(&service);
    for _ in 0..6 {
        refuse(500).await;
    }
    let above = peak_memory(&service).saturating_sub(before);
    // a topic of librdkafka takes 42 kB
    assert!(above < 40_000_000, "3,000 names took {above} bytes");
}

#[tokio::test]
async fn names_without_a_topic_leave_nothing_in_memory_beside_topics_in_use() {
    let kafka = kafka_or_skip!();
    let topic = unique("used");
    kafka.create_topics(std::slice::from_ref(&topic)).await;
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    client.post("/produce", record(&topic).to_string()).await.written();
    let refuse = async |batches| {
        for _ in 0..batches {
            let results = post_batch(&client, &names("absent", 5000)).await;
            assert!(results.iter().all(|result| result["error"] == "unknown_topic"));
        }
    };
    refuse(10).await;
    let before = peak_memory(&service);
    refuse(40).await;
    let above = peak_memory(&service).saturating_sub(before);
    // librdkafka keeps an answer of 220 bytes for each name that it does not forget
    assert!(above < 20_000_000, "200,000 names took {above} bytes");
}

#[tokio::test]
async fn a_first_batch_to_hundreds_of_topics_is_written_whole() {
    let kafka = kafka_or_skip!();
    let topics = names("many", 200);
    kafka.create_topics(&topics).await;
    let service = Service::on(kafka, &[]).await;
    let results = post_batch(&service.client(), &topics).await;
    let refused: Vec<_> = results.iter().filter(|result| result["ok"] != true).collect();
    assert!(refused.is_empty(), "{} of {}: {}", refused.len(), results.len(), refused[0]);
    assert_eq!(consumer::count(&kafka.bootstrap(), &topics[199]), 1);
}

#[tokio::test]
async fn a_thousand_topics_are_written_to_from_a_cold_start() {
    let mock = Mock::start(1);
    let topics = names("cold", 1000);
    topics.iter().for_each(|topic| mock.create_topic(topic, 1));
    let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap())]).await;
    let client = service.client();
    for some in topics.chunks(100) {
        let answers = some.iter().map(|topic| client.post("/produce", record(topic).to_string()));
        for answer in join_all(answers).await {
            answer.written();
        }
    }
}

#[tokio::test]
async fn a_flood_of_names_without_a_topic_keeps_no_topic_out() {
    let kafka = kafka_or_skip!();
    let topics = names("wanted", 12);
    kafka.create_topics(&topics).await;
    let service = Service::on(kafka, &[]).await;
    let (client, unknown) = (service.client(), names("flood", 100_000));
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let flood = async || {
        while !is_over.load(Relaxed) {
            let name = &unknown[next.fetch_add(1, Relaxed) % unknown.len()];
            let answer = client.post("/produce", record(name).to_string()).await;
            answer.problem(404, "unknown_topic");
        }
    };
    let wanted = async {
        while next.load(Relaxed) < 400 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for topic in &topics {
            client.post("/produce", record(topic).to_string()).await.written();
        }
        is_over.store(true, Relaxed);
    };
    tokio::join!(wanted, join_all((0..60).map(|_| flood())));
}

#[tokio::test]
async fn many_requests_with_many_names_without_a_topic_keep_no_topic_out() {
    let kafka = kafka_or_skip!();
    let topics = names("wanted", 12);
    kafka.create_topics(&topics).await;
    let service = Service::on(kafka, &[]).await;
    let (client, is_over) = (service.client(), AtomicBool::new(false));
    let flood = async || {
        while !is_over.load(Relaxed) {
            // of these some are refused, which is not the question
            let records: Vec<_> = names("flood", 300).iter().map(|name| record(name)).collect();
            client.post("/produce/batch", Value::from(records).to_string()).await;
        }
    };
    let wanted = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for topic in &topics {
            client.post("/produce", record(topic).to_string()).await.written();
        }
        is_over.store(true, Relaxed);
    };
    tokio::join!(wanted, join_all((0..150).map(|_| flood())));
}

#[tokio::test]
async fn while_a_broker_is_down_another_one_tells_of_topics() {
    for (down, up) in [(1, 2), (2, 1)] {
        let mock = Mock::start(2);
        mock.create_topic("topic", 1);
        mock.leader("topic", 0, up);
        let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap())]).await;
        mock.broker_down(down);
        service.client().post("/produce", record("topic").to_string()).await.written();
    }
}

#[tokio::test]
async fn a_service_that_starts_before_any_broker_is_listed_writes_when_one_is() {
    let Some((proxy, kafka)) = proxy::own() else { return };
    let topic = kafka.new_topic(1, &[]).await;
    proxy.hide_brokers(true);
    let service = Service::ready(&[("KAFKA_BROKERS", &proxy.address())]).await;
    let client = service.client();
    let answer = client.post("/produce", record(&topic).to_string()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    proxy.hide_brokers(false);
    let answer = eventually("an answer of 202", Duration::from_secs(20), || async {
        let answer = client.post("/produce", record(&topic).to_string()).await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    let written = consumer::read_receipt(&kafka.bootstrap(), &answer.json());
    assert_eq!(written.json(), json!({"value": 1, "project": "p"}));
}
