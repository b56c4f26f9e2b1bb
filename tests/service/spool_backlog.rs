//! A backlog of stored records beside what comes: it shrinks, and the log says why records are refused.

use crate::support::{
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
    let load =
        Load::start_with(service.address(), "load", LoadOptions { clients: 16, keys: 2, headers: &[] });
    load.wait_for(100).await;
    wait_metric(&client, "inlet_spool_records", BATCHES as f64 * 1000.0).await;

    mock.round_trip_time(1, Duration::from_millis(20));
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
