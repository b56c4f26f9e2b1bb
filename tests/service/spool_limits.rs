//! How much the spool takes, of its limit, of the disk and of memory, and what becomes of what it does not take.

use crate::support::{
    app::Service,
    broker::{self, Broker},
    client::{Answer, Client},
    consumer,
    disk::TestDisk,
    eventually,
    mock::Mock,
    spool::{self, body, metric, stored_one, wait_empty, wait_metric, wait_storing},
};
use serde_json::json;
use std::{fs, time::Duration};

/// Posts batches of 100 records of 10 KiB and then single ones until the spool is full; how many were accepted.
async fn fill(service: &Service, topic: &str) -> usize {
    let client = service.client();
    let value = "x".repeat(10 << 10);
    let record = json!({"topic": topic, "value": value, "project": "p"});
    let batch = serde_json::to_vec(&vec![&record; 100]).unwrap();
    let mut accepted = 0;
    for _ in 0..100 {
        let answer = client.post("/produce/batch", batch.as_slice()).await;
        if answer.status != 202 {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            for result in answer.json()["results"].as_array().unwrap() {
                assert_eq!(result["error"], "spool_full", "{result}");
                assert_eq!(result["outcome"], "not_written", "{result}");
            }
            break;
        }
        accepted += 100;
    }
    loop {
        let answer = client.post("/produce", record.to_string()).await;
        if answer.status != 202 {
            answer.problem(503, "spool_full");
            return accepted;
        }
        accepted += 1;
        assert!(accepted < 10_000, "the spool is never full");
    }
}

#[tokio::test]
async fn a_full_spool_refuses_records_until_kafka_returns_and_drops_none() {
    if !broker::startable() {
        return;
    }
    let kafka = Broker::prepare(&[]);
    let service = spool::spawn(&kafka.bootstrap(), &[("SPOOL_MAX_BYTES", "16777216")]).await;
    let client = service.client();
    let accepted = fill(&service, "full").await;
    assert!(accepted > 500, "{accepted}");
    let reason = service.wait_unready_within(Duration::from_secs(5)).await;
    assert!(reason.contains("spool is full"), "{reason}");
    assert_eq!(client.get("/health").await.status, 200);

    kafka.restart();
    kafka.create_topic("full", 3, &[]).await;
    spool::wait_connected(&client).await;
    wait_empty(&client).await;
    client.post("/produce", body("full", 0)).await.written()["offset"].as_i64().unwrap();
    assert_eq!(consumer::count(&kafka.bootstrap(), "full"), accepted as i64 + 1);
}

#[tokio::test]
async fn a_full_disk_refuses_records_and_neither_ends_the_process_nor_loses_one() {
    let Some(disk) = TestDisk::mount("24m") else { return };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let mock = Mock::start(1);
    mock.create_topic("topic", 3);
    mock.broker_down(1);
    let folder = disk.path().join("spool");
    fs::create_dir(&folder).unwrap();
    let service = spool::spawn(mock.bootstrap(), &[("SPOOL_DIR", folder.to_str().unwrap())]).await;
    let client = service.client();
    let first = fill(&service, "topic").await;
    assert!(first > 100, "{first}");
    service.wait_unready_within(Duration::from_secs(5)).await;
    assert_eq!(client.get("/health").await.status, 200);

    fs::remove_file(&ballast).unwrap();
    wait_storing_again(&client).await;
    let second = fill(&service, "topic").await;
    assert!(second > 100, "{second}");
    mock.broker_up(1);
    wait_empty(&client).await;
    client.post("/produce", body("topic", 0)).await.written()["offset"].as_i64().unwrap();
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), (first + second) as i64 + 1);
    assert!(service.logs().lines().count() < 300, "too many lines:\n{}", service.logs());
}

/// As [`wait_storing`], after the spool was full.
async fn wait_storing_again(client: &Client) {
    eventually("there is room again", Duration::from_secs(10), || async {
        (client.get("/ready").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn memory_stays_bounded_however_long_the_outage_and_while_its_records_are_sent() {
    const BATCHES: usize = 150;
    const LIMIT: u64 = 16 << 20;
    // bodies, records, librdkafka's copies of these; the groups and pages of the spool, its cache, and buffers
    const MEMORY: u64 = 3 * LIMIT + (80 << 20);
    let Some(kafka) = broker::own(&[]) else { return };
    kafka.create_topic("long", 3, &[]).await;
    let limit = LIMIT.to_string();
    let service = spool::ready(
        &kafka.bootstrap(),
        &[("MAX_IN_FLIGHT_BYTES", &limit), ("MAX_BODY_BYTES", "2MiB"), ("MAX_BATCH_RECORDS", "1000")],
    )
    .await;
    let client = service.client();
    let idle = spool::peak_memory(&service);
    let stays_bounded = |when: &str| {
        let above = spool::peak_memory(&service).saturating_sub(idle);
        eprintln!("memory above idle, {when}: {above} of {MEMORY}");
        assert!(above < MEMORY, "{when}: {above}");
    };
    let value = "x".repeat(1024);
    let record =
        |number| json!({"topic": "long", "key": format!("{}", number % 500), "value": value, "project": "p"});
    let batch = serde_json::to_vec(&(0..1000).map(record).collect::<Vec<_>>()).unwrap();
    let accepted = |answer: &Answer| {
        let answer = answer.json();
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        count("messages_sent") + count("messages_stored")
    };

    let mut all = accepted(&client.post("/produce/batch", batch.as_slice()).await);
    assert_eq!(all, 1000, "the topic is known, so that librdkafka gets its records");
    kafka.freeze();
    // more at once than may be in flight: some are refused
    let posts = (0..40).map(|_| client.post("/produce/batch", batch.as_slice()));
    let answers = futures_util::future::join_all(posts).await;
    all += answers.iter().map(accepted).sum::<u64>();
    // on a busy machine there is not time enough to store some
    let unknown = 1000 * answers.iter().filter(|answer| answer.status == 504).count() as u64;
    wait_metric(&client, "inlet_spool_held_records", 1000.0).await;
    stays_bounded("librdkafka holds records");
    kafka.kill();
    wait_storing(&client).await;
    // what is passed over is looked at again and again, and nothing is sent twice by that
    let missing = stored_one(&client.post("/produce", body("missing", 0)).await);
    for _ in 0..BATCHES {
        let answer = client.post("/produce/batch", batch.as_slice()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        all += accepted(&answer);
    }
    stays_bounded("a backlog is stored");
    service.kill();
    service.restart().await;
    let answer = client.post("/produce/batch", batch.as_slice()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    all += accepted(&answer);
    stays_bounded("a backlog is found");
    kafka.restart();
    eventually("only one record is left", Duration::from_secs(60), || async {
        (metric(&client, "inlet_spool_records").await == 1.0).then_some(())
    })
    .await;
    stays_bounded("a backlog is sent");
    // the broker died before it had read what was under way
    let count = consumer::count(&kafka.bootstrap(), "long") as u64;
    assert!((all..=all + unknown).contains(&count), "{count} of {all}, or {unknown} more");
    assert_eq!(client.get(&format!("/receipts/{missing}")).await.json()["state"], "pending");
}
