//! A backlog of stored records beside what comes: it shrinks, and the log says why records are refused.

use crate::support::{
    app::Service,
    eventually,
    load::{Load, LoadOptions},
    mock::Mock,
    spool::{self, metric, wait_metric},
};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_backlog_becomes_empty_while_load_goes_on_and_fails_no_request() {
    const BATCHES: usize = 30;
    let mock = Mock::start(1);
    mock.create_topic("backlog", 3);
    mock.create_topic("load", 3);
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[]).await;
    let client = service.client();
    let record = |number| json!({"topic": "backlog", "key": format!("{}", number % 500), "value": {"number": number}, "project": "p"});
    let batch = serde_json::to_vec(&(0..1000).map(record).collect::<Vec<_>>()).unwrap();
    for _ in 0..BATCHES {
        let answer = client.post("/produce/batch", batch.as_slice()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let load = Load::start_with(
        service.address(),
        "load",
        LoadOptions { clients: 16, keys: 2, ..LoadOptions::default() },
    );
    load.wait_for(100).await;
    wait_metric(&client, "inlet_spool_records", BATCHES as f64 * 1000.0).await;

    mock.round_trip_time(1, Duration::from_millis(5));
    mock.broker_up(1);
    eventually("the spool is empty while records come", Duration::from_secs(40), || async {
        (metric(&client, "inlet_spool_records").await == 0.0).then_some(())
    })
    .await;
    load.wait_for(100).await;
    let outcomes = load.stop().await;
    assert_eq!(outcomes.failures(), [""; 0]);
    spool::wait_empty(&client).await;
    let landed = outcomes.read(mock.bootstrap());
    landed.every_accepted_is_in();
    landed.order_is_kept();
}

/// The log's lines of this level that tell of refusals.
fn refusals(service: &Service, level: &str) -> Vec<String> {
    let is_one = |line: &&str| line.contains(level) && line.contains("new records are");
    service.logs().lines().filter(is_one).map(str::to_owned).collect()
}

#[tokio::test]
async fn that_records_are_refused_and_that_it_is_over_is_one_line_each_in_the_log() {
    let mock = Mock::start(1);
    mock.create_topic("full", 3);
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[("SPOOL_MAX_BYTES", "16777216")]).await;
    let client = service.client();
    let record = json!({"topic": "full", "value": "x".repeat(10 << 10), "project": "p"});
    let batch = serde_json::to_vec(&vec![&record; 100]).unwrap();
    let post_until_full = async || {
        for _ in 0..100 {
            if client.post("/produce/batch", batch.as_slice()).await.status == 503 {
                return;
            }
        }
        panic!("the spool is never full");
    };
    post_until_full().await;
    eventually("a warning", Duration::from_secs(10), async || refusals(&service, "WARN").pop()).await;
    for _ in 0..5 {
        post_until_full().await;
    }
    let lines = refusals(&service, "WARN");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for word in ["SPOOL_MAX_BYTES", "kafka-inlet check", "restart"] {
        assert!(lines[0].contains(word), "{lines:?}");
    }
    assert_eq!(refusals(&service, "INFO"), [""; 0]);

    mock.broker_up(1);
    spool::wait_empty(&client).await;
    eventually("the end is said", Duration::from_secs(30), async || refusals(&service, "INFO").pop()).await;
    assert_eq!(refusals(&service, "WARN").len(), 1);
}
