//! What another `INSTANCE_ID` at the next start changes, as a container's new host name does: nothing for what is stored.

use crate::support::{
    app::Service,
    broker,
    client::Client,
    consumer::{self, ReadRecord},
    spool::{self, keyed_body, stored_one, wait_empty},
};
use futures_util::future::join_all;
use std::{collections::BTreeMap, path::Path};

/// Records that librdkafka has when the process is killed.
const UNDER_WAY: usize = 10;

async fn start(bootstrap: &str, directory: &Path, instance: &str) -> Service {
    let directory = directory.to_str().unwrap();
    spool::ready(bootstrap, &[("SPOOL_DIR", directory), ("INSTANCE_ID", instance)]).await
}

/// Stores a record without an attempt; its receipt.
async fn store(client: &Client, topic: &str, number: usize) -> String {
    let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
    let body = keyed_body(topic, "unattempted", number);
    stored_one(&client.send("POST", "/produce", &headers, body).await)
}

fn receipt(record: &ReadRecord) -> &str {
    record.header("receipt").unwrap()
}

#[tokio::test]
async fn a_renamed_instance_sends_and_tells_what_is_stored_under_its_old_receipts() {
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let one = start(&kafka.bootstrap(), directory.path(), "host-one").await;
    let client = one.client();
    client.post("/produce", keyed_body(&topic, "known", 1000)).await.written();
    kafka.freeze();
    let posts = (0..UNDER_WAY).map(|number| {
        let body = keyed_body(&topic, &format!("key-{number}"), number);
        client.post("/produce", body)
    });
    let mut old: Vec<_> = join_all(posts).await.iter().map(stored_one).collect();
    old.push(store(&client, &topic, UNDER_WAY).await);
    one.kill();
    kafka.thaw();

    let two = start(&kafka.bootstrap(), directory.path(), "host-two").await;
    let logs = two.logs();
    let is_told =
        |line: &&str| line.contains("WARN") && line.contains("host-one") && line.contains("host-two");
    assert_eq!(logs.lines().filter(is_told).count(), 1, "{logs}");
    let client = two.client();
    wait_empty(&client).await;
    let new = store(&client, &topic, 2000).await;
    client.post("/produce", keyed_body(&topic, "known", 2001)).await.written();
    for (id, instance) in old.iter().map(|id| (id, "host-one-")).chain([(&new, "host-two-")]) {
        assert!(id.starts_with(instance), "{id}");
        assert_eq!(spool::receipt(&client, id).await["state"], "written");
    }
    // it had this name for earlier sequences alone: another instance may have it now
    let strange = client.get("/receipts/host-one-7fffffffffffffff").await;
    strange.problem(421, "wrong_instance");

    let mut copies: BTreeMap<u64, Vec<ReadRecord>> = BTreeMap::new();
    for record in consumer::read_all(&kafka.bootstrap(), &topic) {
        copies.entry(record.json()["number"].as_u64().unwrap()).or_default().push(record);
    }
    for (number, id) in (0..).zip(&old).chain([(2000, &new)]) {
        let copies = &copies[&number];
        assert!(copies.iter().all(|copy| receipt(copy) == id), "{id}: {copies:?}");
        let later = copies.iter().skip(1);
        assert!(
            later.clone().all(|copy| copy.header("receipt-replayed") == Some("true")),
            "{id}: {copies:?}"
        );
    }
    assert!(receipt(&copies[&2001][0]).starts_with("host-two-"), "{:?}", copies[&2001]);
    // else it has shown nothing
    assert!(copies.values().any(|copies| copies.len() > 1), "no record is there twice");
}
