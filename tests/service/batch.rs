//! A batch is checked as a whole and answered record by record.

use crate::{
    service_or_skip,
    support::{consumer, unique},
};
use serde_json::{Value, json};

#[tokio::test]
async fn records_of_several_topics_land_in_the_order_of_the_batch() {
    let (kafka, service) = service_or_skip!();
    let (one, two) = (kafka.new_topic(1, &[]).await, kafka.new_topic(1, &[]).await);
    let batch: Vec<_> = (0..100)
        .map(|n| json!({"topic": if n % 2 == 0 { &one } else { &two }, "value": n, "project": "p"}))
        .collect();
    let answer = service.client().post("/produce/batch", json!(batch).to_string()).await.written();
    assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(true), &json!(100)));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 100);
    assert_eq!((&results[3]["topic"], &results[3]["offset"]), (&json!(two), &json!(1)));
    let landed: Vec<_> = [one, two]
        .iter()
        .flat_map(|topic| consumer::read_all(&kafka.bootstrap(), topic))
        .map(|record| record.json()["value"].as_i64().unwrap())
        .collect();
    let expected: Vec<_> = (0..100).step_by(2).chain((1..100).step_by(2)).collect();
    assert_eq!(landed, expected);
}

#[tokio::test]
async fn ndjson_is_one_record_a_line() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let client = service.client();
    for content_type in ["application/x-ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8"] {
        let line = |value| json!({"topic": topic, "value": value, "project": "p"}).to_string();
        let body = format!("{}\r\n\n{}\n", line(1), line(2));
        let answer = client.post_as(content_type, "/produce/batch", body).await.written();
        assert_eq!(answer["messages_sent"], 2, "{content_type}");
    }
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 6);
}

#[tokio::test]
async fn an_empty_batch_is_accepted() {
    let (_, service) = service_or_skip!();
    let expected = json!({"success": true, "messages_sent": 0, "results": []});
    assert_eq!(service.client().post("/produce/batch", " [ ] ").await.written(), expected);
    assert_eq!(
        service.client().post_as("application/x-ndjson", "/produce/batch", "\n").await.written(),
        expected
    );
}

#[tokio::test]
async fn one_faulty_element_refuses_the_batch_and_every_fault_is_named() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let good = json!({"topic": topic, "value": 1, "project": "p"});
    let batch =
        json!([good, {"topic": topic, "value": 1}, good, {"topic": "a b", "value": 1, "project": "p"}]);
    let answer = service.client().post("/produce/batch", batch.to_string()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(false)));
    let errors = problem["errors"].as_array().unwrap();
    let named: Vec<_> = errors.iter().map(|error| (error["index"].clone(), error["error"].clone())).collect();
    assert_eq!(named, [(json!(1), json!("missing_project")), (json!(3), json!("invalid_topic"))]);
    assert!(errors.iter().all(|error| error["detail"].as_str().is_some_and(|detail| !detail.is_empty())));
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 0);
}

#[tokio::test]
async fn what_kafka_decides_is_one_result_a_record_and_207_where_they_differ() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(2, &[("max.message.bytes", "1000")]).await;
    let unknown = unique("unknown");
    let batch = json!([
        {"topic": topic, "value": "a", "project": "p", "partition": 1},
        {"topic": unknown, "value": 1, "project": "p"},
        {"topic": topic, "value": 1, "project": "p", "partition": 2},
        {"topic": topic, "value": "b", "project": "p", "partition": 1},
    ]);
    let answer = service.client().post("/produce/batch", batch.to_string()).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let answer = answer.json();
    assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(false), &json!(2)));
    let results = answer["results"].as_array().unwrap();
    let errors: Vec<_> = results.iter().map(|result| result.get("error").and_then(Value::as_str)).collect();
    assert_eq!(errors, [None, Some("unknown_topic"), Some("invalid_partition"), None]);
    for failed in &results[1..3] {
        assert_eq!((&failed["success"], &failed["outcome"]), (&json!(false), &json!("not_written")));
        assert_eq!(failed["retriable"], false);
        assert!(failed["detail"].is_string());
    }
    let landed: Vec<_> = consumer::read_all(&kafka.bootstrap(), &topic)
        .iter()
        .map(|record| record.json()["value"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(landed, ["a", "b"]);
}

#[tokio::test]
async fn a_batch_that_failed_in_one_way_has_that_status_else_400() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let missing = json!({"topic": unique("unknown"), "value": 1, "project": "p"});
    let outside = json!({"topic": topic, "value": 1, "project": "p", "partition": 1});
    let client = service.client();
    for (batch, status) in [(json!([missing, missing]), 404), (json!([missing, outside]), 400)] {
        let answer = client.post("/produce/batch", batch.to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let answer = answer.json();
        assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(false), &json!(0)));
        assert_eq!(answer["results"].as_array().unwrap().len(), 2);
    }
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 0);
}

#[tokio::test]
async fn a_batch_of_the_record_limit_lands_and_one_more_is_refused() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let one = json!({"topic": topic, "value": 1, "project": "p"}).to_string();
    let lines = |count: usize| vec![one.as_str(); count].join("\n");
    let client = service.client();
    let full = client.post_as("application/x-ndjson", "/produce/batch", lines(10_000)).await.written();
    assert_eq!(full["messages_sent"], 10_000);
    let over = client.post_as("application/x-ndjson", "/produce/batch", lines(10_001)).await;
    let problem = over.problem(413, "body_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("10000"), "{problem}");
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 10_000);
}
