//! Topics, partitions and sizes are judged by what Kafka says of them, and topics are not made by accident.

use crate::{
    kafka_or_skip, service_or_skip,
    support::{app::Service, broker, client::Client, consumer, eventually, in_time, mock::Mock, unique},
};
use futures_util::future::join_all;
use kafka_inlet::produce::{AutomaticHeaders, Record, TopicName, batch_size};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn body(topic: &str, value: impl Into<Value>) -> String {
    json!({"topic": topic, "value": value.into(), "project": "p"}).to_string()
}

/// Posts all bodies at once, by connections of their own.
async fn post_all(client: &Client, bodies: impl IntoIterator<Item = String>) -> Vec<u16> {
    let answers = join_all(bodies.into_iter().map(|body| client.post("/produce", body))).await;
    answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test]
async fn an_unknown_topic_is_refused_fast_and_not_made() {
    let (kafka, service) = service_or_skip!();
    let topic = unique("unknown");
    let client = service.client();
    let problem = client.post("/produce", body(&topic, 1)).await.problem(404, "unknown_topic");
    assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(false)));
    assert!(problem["detail"].as_str().unwrap().contains(&topic), "{problem}");
    let start = Instant::now();
    for _ in 0..20 {
        client.post("/produce", body(&topic, 1)).await.problem(404, "unknown_topic");
    }
    in_time(start.elapsed(), Duration::from_secs(2));
    assert!(!kafka.topic_exists(&topic));
}

#[tokio::test]
async fn a_topic_that_is_made_a_moment_later_is_found() {
    let (kafka, service) = service_or_skip!();
    let topic = unique("late");
    let client = service.client();
    client.post("/produce", body(&topic, 1)).await.problem(404, "unknown_topic");
    kafka.create_topic(&topic, 1, &[]).await;
    eventually("the topic is found", Duration::from_secs(5), || async {
        (client.post("/produce", body(&topic, 1)).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_was_deleted_is_unknown_again_and_keeps_nobody_waiting() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let service = Service::on(kafka, &[("KAFKA_DELIVERY_TIMEOUT_MS", "4000")]).await;
    let client = service.client();
    client.post("/produce", body(&topic, 1)).await.written();
    kafka.delete_topic(&topic).await;
    eventually("the topic is unknown", Duration::from_secs(40), async || {
        let asked = Instant::now();
        let answer = client.post("/produce", body(&topic, 1)).await;
        in_time(asked.elapsed(), Duration::from_secs(5));
        assert_eq!(answer.json()["outcome"], "not_written", "{answer:?}");
        (answer.status == 404).then_some(())
    })
    .await;
    assert!(!kafka.topic_exists(&topic));
}

#[tokio::test]
async fn a_partition_that_a_recreated_topic_no_longer_has_is_refused_as_such() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(4, &[]).await;
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    let to = |partition: i32| json!({"topic": topic, "message": {}, "partition": partition}).to_string();
    client.post("/produce", to(3)).await.written();
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 1, &[]).await;
    eventually("the new topic takes records", Duration::from_secs(40), async || {
        (client.post("/produce", to(0)).await.status == 202).then_some(())
    })
    .await;
    client.post("/produce", to(3)).await.problem(400, "invalid_partition");
}

#[tokio::test]
async fn a_recreated_topic_with_fewer_partitions_gets_records_that_name_none() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(8, &[]).await;
    let service = Service::on(kafka, &[]).await;
    let client = service.client();
    client.post("/produce", body(&topic, 0)).await.written();
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 1, &[]).await;
    let keyed = |number: u64| json!({"topic": topic, "key": format!("k{number}"), "value": {"number": number}, "project": "p"});
    let mut written = 0;
    let mut number = 0;
    // for a moment the topic does not exist, or its partition is not led; its partitions are never the sender's fault
    eventually("the new topic takes records", Duration::from_secs(40), async || {
        number += 2;
        let bodies = [body(&topic, number), keyed(number + 1).to_string()];
        let answers = join_all(bodies.map(|body| client.post("/produce", body))).await;
        assert!(answers.iter().all(|answer| [202, 404, 503, 504].contains(&answer.status)), "{answers:?}");
        written = if answers.iter().all(|answer| answer.status == 202) { written + 1 } else { 0 };
        (written == 20).then_some(())
    })
    .await;
    assert!(consumer::count(&kafka.bootstrap(), &topic) >= 40);
}

#[tokio::test]
async fn many_unknown_topics_do_not_hold_up_a_known_one() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let client = service.client();
    client.post("/produce", body(&topic, 1)).await.written();
    let unknown = async { post_all(&client, (0..40).map(|n| body(&unique(&format!("scan-{n}")), 1))).await };
    let known = async {
        let start = Instant::now();
        client.post("/produce", body(&topic, 2)).await.written();
        start.elapsed()
    };
    let (unknown, known) = tokio::join!(unknown, known);
    assert!(unknown.iter().all(|status| [404, 503].contains(status)), "{unknown:?}");
    in_time(known, Duration::from_secs(2));
}

#[tokio::test]
async fn a_partition_out_of_range_is_refused_until_it_exists() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(2, &[]).await;
    let client = service.client();
    let second = json!({"topic": topic, "value": 1, "project": "p", "partition": 2}).to_string();
    let problem = client.post("/produce", second.clone()).await.problem(400, "invalid_partition");
    assert!(problem["detail"].as_str().unwrap().contains("2 partitions"), "{problem}");
    kafka.add_partitions(&topic, 3).await;
    eventually("the new partition is found", Duration::from_secs(5), || async {
        (client.post("/produce", second.clone()).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(consumer::high_watermarks(&kafka.bootstrap(), &topic), [0, 0, 1]);
}

#[tokio::test]
async fn the_configured_topics_are_made_on_demand() {
    let kafka = kafka_or_skip!();
    let names = [unique("logs"), unique("metrics"), unique("events")];
    let service = Service::on(
        kafka,
        &[
            ("LOG_TOPIC", &names[0]),
            ("METRICS_TOPIC", &names[1]),
            ("EVENTS_TOPIC", &names[2]),
            ("KAFKA_CREATE_TOPICS", "true"),
            ("KAFKA_TOPIC_PARTITIONS", "5"),
        ],
    )
    .await;
    let client = service.client();
    for (path, topic) in ["/logs", "/metrics", "/events"].iter().zip(&names) {
        eventually(&format!("{topic} exists"), Duration::from_secs(10), || async {
            (client.post(path, r#"{"value":1,"project":"p"}"#).await.status == 202).then_some(())
        })
        .await;
        assert_eq!(kafka.partition_count(topic), 5);
    }
}

#[tokio::test]
async fn configured_topics_are_made_with_the_in_sync_replicas_that_are_set() {
    let kafka = kafka_or_skip!();
    let topic = unique("logs");
    let service = Service::on(
        kafka,
        &[
            ("LOG_TOPIC", &topic),
            ("METRICS_TOPIC", &topic),
            ("EVENTS_TOPIC", &topic),
            ("KAFKA_CREATE_TOPICS", "true"),
            // one broker: more replicas than that cannot be asked for by their number
            ("KAFKA_TOPIC_REPLICATION_FACTOR", "-1"),
            ("KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "2"),
        ],
    )
    .await;
    eventually(&format!("{topic} is made"), Duration::from_secs(10), || async {
        service
            .logs()
            .lines()
            .any(|line| line.contains("topic created") && line.contains(&topic))
            .then_some(())
    })
    .await;
    assert_eq!(kafka.topic_config(&topic, "min.insync.replicas").await, "2");
}

#[tokio::test]
async fn while_the_configured_topics_cannot_be_made_other_writes_go_on_and_the_service_stays_ready() {
    let mock = Mock::start(2);
    mock.create_topic("topic", 2);
    // it is the controller, so that each attempt to make topics waits for it until it gives up
    mock.broker_down(1);
    let service = Service::ready(&[
        ("KAFKA_BROKERS", mock.bootstrap()),
        ("KAFKA_CREATE_TOPICS", "true"),
        ("KAFKA_DELIVERY_TIMEOUT_MS", "4000"),
    ])
    .await;
    let client = service.client();
    let post = async |partition: i32| {
        let body = json!({"topic": "topic", "value": 1, "project": "p", "partition": partition});
        client.post("/produce", body.to_string()).await
    };
    let (led, mut written) = if post(0).await.status == 202 { (0, 1) } else { (1, 0) };
    // longer than from one attempt to the next
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(45) {
        let ready = client.get("/ready").await;
        assert_eq!(ready.status, 200, "{:?}: {ready:?}\n{}", start.elapsed(), service.logs());
        post(led).await.written();
        written += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(client.get("/ready").await.body.contains("rtmh.logs"));
    let lines = |text: &str| service.logs().lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("configured topics cannot be created"), 1, "{}", service.logs());
    assert_eq!(lines("configured topics do not exist"), 1, "{}", service.logs());
    mock.broker_up(1);
    assert_eq!(consumer::read_all(mock.bootstrap(), "topic").len(), written);
}

#[tokio::test]
async fn a_configured_topic_that_is_missing_is_the_operators_fault() {
    let kafka = kafka_or_skip!();
    let missing = unique("missing");
    let service = Service::on(kafka, &[("LOG_TOPIC", &missing)]).await;
    let client = service.client();
    let problem = client.post("/logs", r#"{"value":1,"project":"p"}"#).await.problem(503, "topic_missing");
    assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(true)));
    assert!(problem["detail"].as_str().unwrap().contains("KAFKA_CREATE_TOPICS"), "{problem}");
    eventually("/ready lists the topic and stays 200", Duration::from_secs(5), || async {
        let ready = client.get("/ready").await;
        assert_eq!(ready.status, 200);
        ready.body.contains(&missing).then_some(())
    })
    .await;
    assert!(service.logs().contains(&missing), "{}", service.logs());
    kafka.create_topic(&missing, 1, &[]).await;
    eventually("the topic is found", Duration::from_secs(5), || async {
        (client.post("/logs", r#"{"value":1,"project":"p"}"#).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_brokers_own_auto_creation_is_used_only_where_it_is_allowed() {
    let Some(kafka) = broker::own(&[("auto.create.topics.enable", "true"), ("num.partitions", "2")]) else {
        return;
    };
    let denied = Service::on(&kafka, &[]).await;
    denied.client().post("/produce", body("accident", 1)).await.problem(404, "unknown_topic");
    assert!(!kafka.topic_exists("accident"));

    let allowed = Service::on(&kafka, &[("KAFKA_ALLOW_AUTO_CREATE_TOPICS", "true")]).await;
    allowed.client().post("/produce", body("wanted", 1)).await.written();
    assert_eq!(consumer::count(&kafka.bootstrap(), "wanted"), 1);
    assert_eq!(kafka.partition_count("wanted"), 2);
    let together = post_all(&allowed.client(), (0..10).map(|n| body("together", n))).await;
    assert_eq!(together, [202; 10], "whoever comes while the topic is being made waits for it too");
}

/// A body whose record, without headers, is `size` bytes as Kafka stores it.
fn body_of_size(topic: &str, size: usize) -> String {
    let value = |length: usize| format!(r#"{{"value":"{}","project":"p"}}"#, "x".repeat(length));
    let stored = |length: usize| {
        batch_size(&Record {
            topic: TopicName::parse(topic).unwrap(),
            partition: None,
            key: None,
            value: Some(value(length).into()),
            headers: vec![],
            automatic: Arc::new(AutomaticHeaders::default()),
            timestamp: 0,
            receipt: None,
        })
    };
    let length = (size.saturating_sub(200)..size).find(|&length| stored(length) == size).unwrap();
    body(topic, "x".repeat(length))
}

#[tokio::test]
async fn a_record_of_exactly_the_limit_lands_and_one_byte_more_is_refused() {
    let kafka = kafka_or_skip!();
    // until the topic's limit has been read the broker decides, which measures what is compressed
    let service = Service::on(kafka, &[("RECORD_HEADERS", "none"), ("KAFKA_COMPRESSION", "none")]).await;
    let client = service.client();
    for limit in [1_048_588, 5_000] {
        let topic = kafka.new_topic(1, &[("max.message.bytes", &limit.to_string())]).await;
        client.post("/produce", body_of_size(&topic, limit)).await.written();
        let over = client.post("/produce", body_of_size(&topic, limit + 1)).await;
        let problem = over.problem(413, "record_too_large");
        assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(false)));
        assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 1);
    }
}

#[tokio::test]
async fn a_topic_that_takes_more_than_the_default_gets_it() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[("max.message.bytes", "3000000")]).await;
    let service = Service::on(kafka, &[("RECORD_HEADERS", "none")]).await;
    let client = service.client();
    // the topic's own limit is looked up on first use, in the background
    client.post("/produce", body(&topic, 1)).await.written();
    eventually("the topic's limit is known", Duration::from_secs(5), || async {
        let answer = client.post("/produce", body_of_size(&topic, 3_000_000)).await;
        (answer.status == 202).then_some(())
    })
    .await;
    client.post("/produce", body_of_size(&topic, 3_000_001)).await.problem(413, "record_too_large");
}

#[tokio::test]
async fn records_that_fit_alone_land_also_where_their_batch_is_too_large() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[("max.message.bytes", "1000")]).await;
    let service = Service::on(kafka, &[("KAFKA_LINGER_MS", "50")]).await;
    let bodies = (0..100).map(|_| body(&topic, "x".repeat(500)));
    let statuses = post_all(&service.client(), bodies).await;
    assert_eq!(statuses, [202; 100]);
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 100);
}

#[tokio::test]
async fn a_record_without_a_key_is_refused_on_a_compacted_topic_and_harms_no_neighbour() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[("cleanup.policy", "compact")]).await;
    let service = Service::on(kafka, &[("KAFKA_LINGER_MS", "50")]).await;
    let client = service.client();
    let keyed =
        |n: u32| json!({"topic": topic, "value": n, "project": "p", "key": n.to_string()}).to_string();
    let bodies = (0..60).map(|n| if n % 3 == 0 { body(&topic, n) } else { keyed(n) });
    let statuses = post_all(&client, bodies).await;
    for (n, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if n % 3 == 0 { 400 } else { 202 }, "record {n}");
    }
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 40);
    eventually("the fault is named before Kafka is asked", Duration::from_secs(5), || async {
        (client.post("/produce", body(&topic, 1)).await.json()["error"] == "invalid_key").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_timestamp_out_of_the_topics_bounds_is_refused_and_harms_no_neighbour() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[("message.timestamp.before.max.ms", "3600000")]).await;
    let service = Service::on(kafka, &[("KAFKA_LINGER_MS", "50")]).await;
    let client = service.client();
    let old =
        json!({"topic": topic, "value": 1, "project": "p", "timestamp": "2020-01-01T00:00:00Z"}).to_string();
    let bodies = (0..20).map(|n| if n == 7 { old.clone() } else { body(&topic, n) });
    let statuses = post_all(&client, bodies).await;
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 19, "{statuses:?}");
    assert_eq!(statuses[7], 400);
    eventually("the fault is named before Kafka is asked", Duration::from_secs(5), || async {
        (client.post("/produce", old.clone()).await.json()["error"] == "invalid_timestamp").then_some(())
    })
    .await;
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 19);
}
