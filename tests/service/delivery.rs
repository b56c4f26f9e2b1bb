//! What a broker says of a record becomes the right answer; `unknown` is said only where it is.

use crate::support::{app::Service, client::Client, consumer, eventually, in_time, mock::Mock};
use futures_util::future::join_all;
use rdkafka::types::{
    RDKafkaApiKey,
    RDKafkaRespErr::{self, *},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DELIVERY_TIMEOUT: (&str, &str) = ("KAFKA_DELIVERY_TIMEOUT_MS", "4000");
/// How late an answer may be: the delivery time-out and one second.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const TOPIC: &str = "topic";
/// More than a record is tried within its time-out.
const ALWAYS: usize = 200;

/// A mock cluster with one topic of one partition, and a service on it that has already written one record.
async fn start(variables: &[(&str, &str)]) -> (Mock, Service) {
    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 1);
    let service =
        Service::ready(&[&[("KAFKA_BROKERS", mock.bootstrap()), DELIVERY_TIMEOUT], variables].concat()).await;
    service.client().post("/produce", body()).await.written();
    (mock, service)
}

fn body() -> String {
    json!({"topic": TOPIC, "value": 1, "project": "p"}).to_string()
}

fn certainly_not_written(problem: &Value, retriable: bool) {
    assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(retriable)));
}

#[tokio::test]
async fn a_change_of_leader_is_waited_out() {
    let (mock, service) = start(&[]).await;
    mock.produce_errors(&[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 2]);
    service.client().post("/produce", body()).await.written();
    assert_eq!(consumer::count(mock.bootstrap(), TOPIC), 2);
}

/// It has the record already, and does not say where.
#[tokio::test]
async fn an_offset_that_kafka_has_not_told_is_null_for_every_record_of_a_batch() {
    const RECORDS: usize = 4;
    let (mock, service) = start(&[]).await;
    let client = service.client();
    let batch = format!("[{}]", vec![body(); RECORDS].join(","));
    client.post("/produce/batch", batch.as_str()).await.written();
    // one for each request that the batch may become
    mock.produce_errors(&[RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER; RECORDS]);
    let answer = client.post("/produce/batch", batch).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap();
    let told: Vec<_> = results.iter().map(|one| (&one["success"], &one["offset"])).collect();
    assert_eq!(told, [(&json!(true), &Value::Null); RECORDS]);
}

#[tokio::test]
async fn too_few_replicas_before_the_append_is_certainly_not_written() {
    let (mock, service) = start(&[]).await;
    mock.produce_errors(&[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; ALWAYS]);
    let start = Instant::now();
    let answer = service.client().post("/produce", body()).await;
    in_time(start.elapsed(), ANSWER_LIMIT);
    certainly_not_written(&answer.problem(503, "broker_unavailable"), true);
}

#[tokio::test]
async fn too_few_replicas_after_the_append_is_unknown() {
    let (mock, service) = start(&[]).await;
    mock.produce_errors(&[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND; ALWAYS]);
    let start = Instant::now();
    let answer = service.client().post("/produce", body()).await;
    in_time(start.elapsed(), ANSWER_LIMIT);
    let problem = answer.problem(504, "delivery_timeout");
    assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("unknown"), &json!(true)));
    assert!(problem["detail"].as_str().unwrap().contains("duplicate"), "{problem}");
}

#[tokio::test]
async fn an_acknowledgement_that_comes_too_late_is_unknown() {
    let (mock, service) = start(&[]).await;
    mock.round_trip_time(1, Duration::from_secs(8));
    let start = Instant::now();
    let answer = service.client().post("/produce", body()).await;
    in_time(start.elapsed(), ANSWER_LIMIT);
    assert_eq!(answer.problem(504, "delivery_timeout")["outcome"], "unknown");
}

#[tokio::test]
async fn what_a_broker_refuses_for_good_is_the_senders_to_change() {
    for (error, status, name) in [
        (RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 403, "kafka_unauthorized"),
        (RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 413, "record_too_large"),
        (RD_KAFKA_RESP_ERR_INVALID_RECORD, 400, "record_rejected"),
    ] {
        let (mock, service) = start(&[]).await;
        // once more where the record is sent again alone
        mock.produce_errors(&[error; 2]);
        let answer = service.client().post("/produce", body()).await;
        certainly_not_written(&answer.problem(status, name), false);
        assert_eq!(consumer::count(mock.bootstrap(), TOPIC), 1, "{name}");
    }
}

#[tokio::test]
async fn the_service_goes_on_after_every_kind_of_refusal() {
    let (mock, service) = start(&[]).await;
    let client = service.client();
    let errors: [RDKafkaRespErr; 3] = [
        RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
    ];
    for error in errors {
        mock.produce_errors(&[error]);
        client.post("/produce", body()).await;
        eventually("records are written again", Duration::from_secs(10), || async {
            (client.post("/produce", body()).await.status == 202).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_look_up_that_gives_no_answer_is_no_unknown_topic() {
    let (mock, service) = start(&[]).await;
    mock.create_topic("leaderless", 1);
    mock.topic_error("leaderless", RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
    let start = Instant::now();
    let body = json!({"topic": "leaderless", "value": 1, "project": "p"}).to_string();
    let answer = service.client().post("/produce", body).await;
    in_time(start.elapsed(), ANSWER_LIMIT);
    certainly_not_written(&answer.problem(503, "broker_unavailable"), true);
}

#[tokio::test]
async fn a_fatal_error_of_the_producer_is_named_and_outlived() {
    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 1);
    mock.request_errors(RDKafkaApiKey::InitProducerId, &[RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED]);
    let service = Service::spawn(&[("KAFKA_BROKERS", mock.bootstrap()), DELIVERY_TIMEOUT]).await;
    let client = service.client();
    eventually("records are written by a new producer", Duration::from_secs(15), || async {
        (client.post("/produce", body()).await.status == 202).then_some(())
    })
    .await;
    assert!(service.logs().to_lowercase().contains("fatal"), "{}", service.logs());
}

#[tokio::test]
async fn a_batch_of_which_one_outcome_is_unknown_is_504() {
    let mock = Mock::start(1);
    for topic in ["one", "two"] {
        mock.create_topic(topic, 1);
    }
    let service = Service::ready(&[("KAFKA_BROKERS", mock.bootstrap()), DELIVERY_TIMEOUT]).await;
    let batch =
        json!(["one", "two"].map(|topic| json!({"topic": topic, "value": 1, "project": "p"}))).to_string();
    service.client().post("/produce/batch", batch.clone()).await.written();
    mock.round_trip_time(1, Duration::from_secs(8));
    let answer = service.client().post("/produce/batch", batch).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert!(results.iter().all(|result| result["outcome"] == "unknown"), "{results:?}");
}

/// Room for two bodies at the limit.
const SMALL_BUDGET: [(&str, &str); 3] =
    [("MAX_BODY_BYTES", "5000"), ("MAX_BATCH_RECORDS", "9"), ("MAX_IN_FLIGHT_BYTES", "20000")];

async fn gauge(client: &Client, name: &str) -> f64 {
    let metrics = client.get("/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn what_does_not_fit_into_the_budget_is_refused_and_the_rest_is_written() {
    let (mock, service) = start(&SMALL_BUDGET).await;
    let client = service.client();
    mock.round_trip_time(1, Duration::from_millis(500));
    let body = json!({"topic": TOPIC, "value": "x".repeat(1000), "project": "p"}).to_string();
    let answers = join_all((0..60).map(|_| client.post("/produce", body.clone()))).await;
    let mut written = 1;
    for answer in answers {
        if answer.status == 202 {
            written += 1;
        } else {
            certainly_not_written(&answer.problem(503, "overloaded"), true);
        }
    }
    assert!((2..60).contains(&written), "{written}");
    assert_eq!(consumer::count(mock.bootstrap(), TOPIC), written);

    mock.round_trip_time(1, Duration::ZERO);
    client.post("/produce", body).await.written();
    eventually("the whole budget is free again", Duration::from_secs(5), || async {
        let used =
            gauge(&client, "inlet_in_flight_bytes ").await + gauge(&client, "inlet_in_flight_records ").await;
        (used == 0.0).then_some(())
    })
    .await;
    assert_eq!(gauge(&client, "inlet_in_flight_bytes_limit ").await, 20_000.0);
}

#[tokio::test]
async fn a_batch_that_can_never_fit_into_the_budget_is_told_so() {
    let (mock, service) = start(&SMALL_BUDGET).await;
    let batch = format!("[{}]", vec![body(); 60].join(","));
    let answer = service.client().post("/produce/batch", batch).await;
    certainly_not_written(&answer.problem(413, "body_too_large"), false);
    assert_eq!(consumer::count(mock.bootstrap(), TOPIC), 1);
}
