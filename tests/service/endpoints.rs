//! Every endpoint answers as documented, and what it accepted can be read from Kafka.

use crate::{
    service_or_skip,
    support::{app::FIXED_TOPICS, consumer},
};
use serde_json::json;

#[tokio::test]
async fn the_root_names_version_and_endpoints() {
    let (_, service) = service_or_skip!();
    let answer = service.client().get("/").await;
    assert_eq!(answer.status, 200);
    let root = answer.json();
    assert!(root["message"].is_string(), "{root}");
    assert_eq!(root["version"], env!("CARGO_PKG_VERSION"));
    let paths: Vec<_> =
        root["endpoints"].as_object().unwrap().values().map(|path| path.as_str().unwrap()).collect();
    for path in ["/logs", "/metrics", "/events", "/produce", "/produce/batch", "/health", "/ready", "/docs"] {
        assert!(paths.iter().any(|known| known.contains(path)), "{path} is missing in {root}");
    }
}

#[tokio::test]
async fn health_is_200_and_says_whether_kafka_is_connected() {
    let (_, service) = service_or_skip!();
    let answer = service.client().get("/health").await;
    assert_eq!(answer.status, 200);
    let health = answer.json();
    assert_eq!((&health["status"], &health["kafka_connected"]), (&json!("healthy"), &json!(true)));
    let timestamp: jiff::Timestamp = health["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp.duration_until(jiff::Timestamp::now()).as_secs() < 60);
}

#[tokio::test]
async fn the_connection_to_kafka_is_described() {
    let (kafka, service) = service_or_skip!();
    let answer = service.client().get("/health/kafka").await;
    assert_eq!(answer.status, 200);
    let expected = json!({"status": "connected", "clientId": "kafka-inlet", "brokers": [kafka.bootstrap()]});
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn ready_is_200_while_kafka_answers() {
    let (_, service) = service_or_skip!();
    let answer = service.client().get("/ready").await;
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &json!(true)));
}

#[tokio::test]
async fn the_api_is_described_by_openapi_and_a_page_without_foreign_assets() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let document = client.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
    for path in ["/", "/logs", "/metrics", "/events", "/produce", "/produce/batch", "/health", "/ready"] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    let mut page = client.get("/docs").await;
    if page.status == 200 && page.body.is_empty() {
        page = client.get("/docs/").await;
    }
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    for foreign in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!page.body.contains(foreign), "{foreign} in {}", page.body);
    }
}

#[tokio::test]
async fn each_fixed_route_writes_both_body_forms_to_its_topic() {
    let (kafka, service) = service_or_skip!();
    let client = service.client();
    for (path, topic) in FIXED_TOPICS {
        let value =
            client.post(path, r#"{"value":{"a":1},"project":"p","topic":"ignored","partition":99}"#).await;
        let receipt = value.written();
        assert_eq!(receipt["topic"], topic);
        assert_eq!(consumer::read_receipt(&kafka.bootstrap(), &receipt).text(), r#"{"a":1,"project":"p"}"#);

        let message = client.post(path, r#"{"message":{"b":2}}"#).await;
        let receipt = message.written();
        assert_eq!(receipt["topic"], topic);
        assert_eq!(consumer::read_receipt(&kafka.bootstrap(), &receipt).json()["b"], 2);
    }
}

#[tokio::test]
async fn produce_writes_both_body_forms_to_the_named_topic() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let client = service.client();
    for (offset, body) in
        [json!({"value": [1], "project": "p"}), json!({"message": {"b": 2}})].iter_mut().enumerate()
    {
        body["topic"] = json!(topic);
        let receipt = client.post("/produce", body.to_string()).await.written();
        assert_eq!((&receipt["partition"], &receipt["offset"]), (&json!(0), &json!(offset)));
    }
    let records = consumer::read_all(&kafka.bootstrap(), &topic);
    assert_eq!(records[0].text(), r#"{"value":[1],"project":"p"}"#);
    assert_eq!(records[1].json()["b"], 2);
}

#[tokio::test]
async fn a_receipt_says_where_the_record_is_and_when() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let body = json!({"topic": topic, "value": 1, "project": "p", "timestamp": 1_577_934_245_678_i64});
    let answer = service.client().post("/produce", body.to_string()).await;
    let expected = json!({
        "ok": true, "success": true, "message": "Message sent successfully",
        "topic": topic, "partition": 0, "offset": 0, "timestamp": "2020-01-02T03:04:05.678Z",
    });
    assert_eq!(answer.written(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(consumer::read_one(&kafka.bootstrap(), &topic).timestamp, 1_577_934_245_678);
}

#[tokio::test]
async fn one_trailing_slash_is_accepted_and_letter_case_is_not_folded() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for path in ["/health/", "/ready/", "/health/kafka/", "/metrics/", "/openapi.json/"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    client.post("/logs/", r#"{"value":1,"project":"p"}"#).await.written();
    client.post("/produce/batch/", "[]").await.written();
    client.get("/health//").await.problem(404, "not_found");
    client.get("/Health").await.problem(404, "not_found");
}

#[tokio::test]
async fn the_same_path_serves_metrics_and_takes_records_by_method() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let scraped = client.get("/metrics").await;
    assert_eq!(scraped.status, 200);
    assert!(scraped.header("content-type").unwrap().starts_with("text/plain"), "{scraped:?}");
    let receipt = client.post("/metrics", r#"{"value":1,"project":"p"}"#).await.written();
    assert_eq!(receipt["topic"], "rtmh.metrics");
}

#[tokio::test]
async fn every_content_type_that_clients_send_json_with_is_read_as_json() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let body = r#"{"value":1,"project":"p"}"#;
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "text/json",
        "application/vnd.kafka.json.v2+json",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ] {
        client.post_as(content_type, "/logs", body).await.written();
    }
    client.send("POST", "/logs", &[], body).await.written();
}

#[tokio::test]
async fn a_gzipped_body_is_unpacked() {
    let (kafka, service) = service_or_skip!();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, br#"{"value":{"packed":true},"project":"p"}"#).unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = service.client().send("POST", "/logs", &headers, packed.finish().unwrap()).await;
    let record = consumer::read_receipt(&kafka.bootstrap(), &answer.written());
    assert_eq!(record.text(), r#"{"packed":true,"project":"p"}"#);
}

#[tokio::test]
async fn the_request_id_is_returned_or_made() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let mine = client.send("GET", "/health", &[("x-request-id", "mine-17")], "").await;
    assert_eq!(mine.header("x-request-id"), Some("mine-17"));
    let (one, two) = (client.get("/health").await, client.get("/nowhere").await);
    assert!(one.header("x-request-id").is_some_and(|id| !id.is_empty()));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn a_page_of_the_services_own_origin_may_post() {
    let (_, service) = service_or_skip!();
    let own = format!("http://{}", service.address());
    let answer =
        service.client().send("POST", "/logs", &[("origin", &own)], r#"{"value":1,"project":"p"}"#).await;
    answer.written();
}
