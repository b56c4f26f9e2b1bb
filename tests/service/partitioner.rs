//! Keys land where other clients look for them.

use crate::{
    service_or_skip,
    support::{app::Service, broker::Broker, client::Client},
};
use serde_json::{Value, json};

const PARTITIONS: i32 = 12;

/// Keys, their partition of 12 by the Java client 4.1 (`Utils.toPositive(Utils.murmur2(key)) % 12`), and by the
/// first four bytes of their MD5.
const KEYS: [(&str, i32, i32); 16] = [
    ("a", 4, 9),
    ("ab", 2, 11),
    ("abc", 3, 8),
    ("abcd", 8, 4),
    ("abcde", 1, 9),
    ("user-1", 8, 3),
    ("user-42", 4, 11),
    ("tenant-7", 6, 8),
    ("order-2026-11-21", 3, 6),
    ("Zürich", 1, 2),
    ("日本語", 10, 8),
    ("🦀", 7, 0),
    ("key with spaces", 0, 7),
    ("0", 8, 0),
    ("00", 8, 4),
    ("{\"json\":true}", 11, 9),
];

async fn new_topic(kafka: &Broker) -> String {
    kafka.new_topic(PARTITIONS, &[]).await
}

/// The partition of a record with these members.
async fn partition(client: &Client, topic: &str, members: Value) -> i64 {
    let mut body = json!({"topic": topic, "value": 1, "project": "p"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    client.post("/produce", body.to_string()).await.written()["partition"].as_i64().unwrap()
}

#[tokio::test]
async fn a_key_lands_where_the_java_client_puts_it() {
    let (kafka, service) = service_or_skip!();
    let (topic, client) = (new_topic(kafka).await, service.client());
    for (key, java, _) in KEYS {
        assert_eq!(partition(&client, &topic, json!({"key": key})).await, i64::from(java), "{key}");
    }
    let long = "x".repeat(255);
    assert_eq!(partition(&client, &topic, json!({"key": long})).await, 11);
}

#[tokio::test]
async fn records_without_a_key_are_spread() {
    let (kafka, service) = service_or_skip!();
    let (topic, client) = (new_topic(kafka).await, service.client());
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        seen.insert(partition(&client, &topic, json!({})).await);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test]
async fn the_tenant_partitioner_hashes_the_tenant_then_the_key() {
    let (kafka, _) = service_or_skip!();
    let service = Service::on(kafka, &[("PARTITIONER", "tenant")]).await;
    let (topic, client) = (new_topic(kafka).await, service.client());
    for (key, _, md5) in KEYS {
        let tenant = json!({"headers": {"tenant-id": key}, "key": "other"});
        assert_eq!(partition(&client, &topic, tenant).await, i64::from(md5), "tenant {key}");
        assert_eq!(partition(&client, &topic, json!({"key": key})).await, i64::from(md5), "key {key}");
    }
    let chosen = json!({"headers": {"tenant-id": "a"}, "partition": 5});
    assert_eq!(partition(&client, &topic, chosen).await, 5, "the sender's choice wins");
}
