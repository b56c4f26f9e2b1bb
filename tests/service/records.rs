//! What lands in Kafka is what the sender sent: value, key, headers, partition and timestamp.

use crate::{
    service_or_skip,
    support::{app::Service, broker::Broker, client::Answer, consumer, consumer::ReadRecord},
};
use serde_json::json;

/// Sends one record by `/produce` to a new topic of 3 partitions and reads it back. `members` is the rest of the body.
async fn landed(kafka: &Broker, service: &Service, members: &str) -> ReadRecord {
    landed_with(kafka, service, &[], members).await.1
}

async fn landed_with(
    kafka: &Broker,
    service: &Service,
    headers: &[(&str, &str)],
    members: &str,
) -> (Answer, ReadRecord) {
    let topic = kafka.new_topic(3, &[]).await;
    let body = format!(r#"{{"topic":"{topic}",{members}}}"#);
    let answer = service.client().send("POST", "/produce", headers, body).await;
    answer.written();
    let record = consumer::read_one(&kafka.bootstrap(), &topic);
    (answer, record)
}

#[tokio::test]
async fn the_senders_bytes_are_kept() {
    let (kafka, service) = service_or_skip!();
    let object = r#"{"big":123456789012345678901234567890,"f":1.0,"e":1E+2,"esc":"\u00e9\/","twice":1,"twice":2, "ü" : "日本🦀" }"#;
    let record = landed(kafka, service, &format!(r#""value": {object} ,"project":"p""#)).await;
    let kept = object.strip_suffix('}').unwrap();
    assert_eq!(record.text(), format!(r#"{kept},"project":"p"}}"#));
}

#[tokio::test]
async fn a_value_that_is_no_object_is_wrapped() {
    let (kafka, service) = service_or_skip!();
    for value in ["null", "1.50", r#""te\nxt""#, "[1, {\"a\":2.0}]", "true"] {
        let record = landed(kafka, service, &format!(r#""value":{value},"project":"p""#)).await;
        assert_eq!(record.text(), format!(r#"{{"value":{value},"project":"p"}}"#));
    }
}

#[tokio::test]
async fn a_project_in_the_value_is_replaced_in_place() {
    let (kafka, service) = service_or_skip!();
    for (value, expected) in [
        (r#"{"project":"old","a":1}"#, r#"{"project":"new","a":1}"#),
        (r#"{"pro\u006aect":[1,2],"a":1}"#, r#"{"pro\u006aect":"new","a":1}"#),
        (r#"{"a":{"project":"inner"}}"#, r#"{"a":{"project":"inner"},"project":"new"}"#),
        ("{}", r#"{"project":"new"}"#),
    ] {
        let record = landed(kafka, service, &format!(r#""value":{value},"project":"new""#)).await;
        assert_eq!(record.text(), expected);
    }
}

#[tokio::test]
async fn a_message_is_enriched_where_its_sender_has_not_set_the_member() {
    let (kafka, service) = service_or_skip!();
    let record = landed(kafka, service, r#""message":{"n": 1.0}"#).await;
    assert!(record.text().starts_with(r#"{"n": 1.0,"#), "{}", record.text());
    let value = record.json();
    assert_eq!(value["source"], "kafka-inlet");
    let timestamp: jiff::Timestamp = value["timestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(timestamp.as_millisecond(), record.timestamp);
    let server_time = value["server_time"].as_f64().unwrap();
    assert!((server_time * 1000.0 - record.timestamp as f64).abs() < 60_000.0);

    let own = r#"{"timestamp":0,"source":"mine","server_time":null}"#;
    let record = landed(kafka, service, &format!(r#""message":{own}"#)).await;
    assert_eq!(record.text(), own);
}

#[tokio::test]
async fn without_enrichment_a_message_lands_as_sent() {
    let (kafka, _) = service_or_skip!();
    let service = Service::on(kafka, &[("ENRICH_MESSAGES", "false")]).await;
    assert_eq!(landed(kafka, &service, r#""message": { "a" : 1 }"#).await.text(), r#"{ "a" : 1 }"#);
}

#[tokio::test]
async fn a_key_lands_and_an_empty_one_is_none() {
    let (kafka, service) = service_or_skip!();
    let value = r#""value":1,"project":"p""#;
    for (key, expected) in
        [(r#""k\u00fc\n""#, Some("kü\n")), (r#""日本""#, Some("日本")), (r#""""#, None), ("null", None)]
    {
        let record = landed(kafka, service, &format!(r#"{value},"key":{key}"#)).await;
        assert_eq!(record.key.as_deref(), expected.map(str::as_bytes), "{key}");
    }
}

#[tokio::test]
async fn the_partition_is_the_senders_choice() {
    let (kafka, service) = service_or_skip!();
    for partition in 0..3 {
        let members = format!(r#""value":1,"project":"p","key":"k","partition":{partition}"#);
        assert_eq!(landed(kafka, service, &members).await.partition, partition);
    }
    landed(kafka, service, r#""value":1,"project":"p","partition":-1"#).await;
    landed(kafka, service, r#""value":1,"project":"p","partition":null"#).await;
}

#[tokio::test]
async fn headers_are_text_or_binary_and_keep_their_order() {
    let (kafka, service) = service_or_skip!();
    let headers = r#"{"b":"text ü","a":{"base64":"AAEC/w=="},"empty":""}"#;
    let record = landed(kafka, service, &format!(r#""value":1,"project":"p","headers":{headers}"#)).await;
    let sent: [(String, Option<Vec<u8>>); 3] = [
        ("b".into(), Some("text ü".into())),
        ("a".into(), Some(vec![0, 1, 2, 255])),
        ("empty".into(), Some(vec![])),
    ];
    assert!(record.headers.ends_with(&sent), "{:?}", record.headers);
}

#[tokio::test]
async fn every_record_carries_the_automatic_headers() {
    let (kafka, service) = service_or_skip!();
    let record = landed(kafka, service, r#""value":1,"project":"p""#).await;
    assert_eq!(record.header("content-type"), Some("application/json"));
    assert_eq!(record.header("timestamp"), Some(record.timestamp.to_string().as_str()));
    let trace_id = record.header("trace-id").unwrap();
    assert!(trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit()), "{trace_id}");
    assert_eq!(record.header("traceparent"), None);
}

#[tokio::test]
async fn the_senders_headers_replace_the_automatic_ones() {
    let (kafka, service) = service_or_skip!();
    let headers = r#"{"content-type":"text/mine","trace-id":"t","timestamp":"then"}"#;
    let record = landed(kafka, service, &format!(r#""value":1,"project":"p","headers":{headers}"#)).await;
    let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "trace-id", "timestamp"]);
    assert_eq!(record.header("content-type"), Some("text/mine"));
}

#[tokio::test]
async fn the_trace_of_the_request_goes_on_in_the_record() {
    let (kafka, service) = service_or_skip!();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = [("traceparent", traceparent)];
    let (_, record) = landed_with(kafka, service, &request, r#""value":1,"project":"p""#).await;
    assert_eq!(record.header("trace-id"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(record.header("traceparent"), Some(traceparent));
}

#[tokio::test]
async fn the_automatic_headers_can_be_turned_off() {
    let (kafka, _) = service_or_skip!();
    let service = Service::on(kafka, &[("RECORD_HEADERS", "none")]).await;
    assert_eq!(landed(kafka, &service, r#""value":1,"project":"p""#).await.headers, []);
}

#[tokio::test]
async fn a_timestamp_is_milliseconds_or_rfc_3339() {
    let (kafka, service) = service_or_skip!();
    for timestamp in [
        "1577934245678",
        r#""2020-01-02T03:04:05.678Z""#,
        r#""2020-01-02T04:04:05.678+01:00""#,
        r#""2020-01-02 03:04:05.678""#,
        r#""2020-01-02T03:04:05.678""#,
    ] {
        let members = format!(r#""value":1,"project":"p","timestamp":{timestamp}"#);
        assert_eq!(landed(kafka, service, &members).await.timestamp, 1_577_934_245_678, "{timestamp}");
    }
}

#[tokio::test]
async fn without_a_timestamp_the_record_gets_the_time_of_its_request() {
    let (kafka, service) = service_or_skip!();
    let before = jiff::Timestamp::now().as_millisecond();
    let (answer, record) = landed_with(kafka, service, &[], r#""value":1,"project":"p""#).await;
    assert!((before..=jiff::Timestamp::now().as_millisecond()).contains(&record.timestamp));
    let answered: jiff::Timestamp = answer.json()["timestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(answered.as_millisecond(), record.timestamp);
}

#[tokio::test]
async fn a_tombstone_is_a_null_value_with_a_key() {
    let (kafka, service) = service_or_skip!();
    for rest in ["", r#","value":null"#, r#","message":null"#] {
        let record = landed(kafka, service, &format!(r#""key":"k","tombstone":true{rest}"#)).await;
        assert_eq!((record.key.as_deref(), record.value), (Some(&b"k"[..]), None), "{rest}");
    }
}

#[tokio::test]
async fn unknown_members_of_the_envelope_are_ignored() {
    let (kafka, service) = service_or_skip!();
    let record = landed(kafka, service, r#""value":{},"project":"p","colour":{"deep":[1]},"Topic":7"#).await;
    assert_eq!(record.json(), json!({"project": "p"}));
}

#[tokio::test]
async fn nesting_up_to_the_limit_lands() {
    let (kafka, service) = service_or_skip!();
    let value = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let record = landed(kafka, service, &format!(r#""value":{value},"project":"p""#)).await;
    assert_eq!(record.text(), format!(r#"{{"value":{value},"project":"p"}}"#));
}
