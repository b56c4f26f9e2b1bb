//! What receipts and the age of the spool promise, between real instances.

use crate::support::{
    app::Service,
    eventually,
    mock::Mock,
    spool::{self, stored_one},
};
use serde_json::json;
use std::time::Duration;

/// How long a state may take to come, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
const UNWAITED: [(&str, &str); 2] = [("content-type", "application/json"), ("prefer", "respond-async")];

fn cluster() -> Mock {
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    mock
}

/// Stores a record without an attempt; its receipt.
async fn store(service: &Service) -> String {
    let body = json!({"topic": "topic", "value": 1, "project": "p"}).to_string();
    stored_one(&service.client().send("POST", "/produce", &UNWAITED, body).await)
}

#[tokio::test]
async fn a_receipt_is_forgotten_after_its_time_and_not_before_its_record_is_resolved() {
    let mock = cluster();
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[("RECEIPT_TTL", "1s")]).await;
    let client = service.client();
    let id = store(&service).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let path = format!("/receipts/{id}");
    assert_eq!(client.get(&path).await.json()["state"], "pending", "it counts from the end of the waiting");
    mock.broker_up(1);
    assert_eq!(spool::receipt(&client, &id).await["state"], "written");
    let forgotten = eventually("the receipt is forgotten", LIMIT, || async {
        let answer = client.get(&path).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    forgotten.problem(404, "unknown_receipt");
}

#[tokio::test]
async fn while_the_oldest_record_is_too_old_new_ones_are_refused_and_the_service_is_unready() {
    let mock = cluster();
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[("SPOOL_MAX_AGE", "1s")]).await;
    let client = service.client();
    let id = store(&service).await;
    let body = json!({"topic": "topic", "value": 2, "project": "p"}).to_string();
    let refused = eventually("new records are refused", LIMIT, || async {
        let answer = client.post("/produce", body.as_str()).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert!(refused.problem(503, "spool_full")["detail"].as_str().unwrap().contains("SPOOL_MAX_AGE=1s"));
    let reason = service.wait_unready_within(LIMIT).await;
    assert!(reason.contains("spool"), "{reason}");
    assert_eq!(client.get(&format!("/receipts/{id}")).await.json()["state"], "pending", "it is kept");

    mock.broker_up(1);
    assert_eq!(spool::receipt(&client, &id).await["state"], "written");
    service.wait_ready_within(LIMIT).await;
    eventually("records are taken again", LIMIT, || async {
        (client.post("/produce", body.as_str()).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_instance_names_the_one_that_has_the_receipt() {
    let mock = cluster();
    // each has a working directory of its own
    let variables = |id| [("INSTANCE_ID", id)];
    let (one, two) = (variables("one"), variables("two"));
    let (one, two) = tokio::join!(spool::ready(mock.bootstrap(), &one), spool::ready(mock.bootstrap(), &two));
    let id = store(&one).await;
    assert!(id.starts_with("one-"), "{id}");
    let elsewhere = two.client().get(&format!("/receipts/{id}?wait=1s")).await;
    let problem = elsewhere.problem(421, "wrong_instance");
    assert!(problem["detail"].as_str().unwrap().contains("'one'"), "{problem}");
    assert_eq!(spool::receipt(&one.client(), &id).await["state"], "written");
}
