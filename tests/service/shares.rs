//! A partition that takes nothing leaves room for the others.

use crate::support::{app::Service, client::Client, consumer, mock::Mock};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;

async fn post(client: &Client, topic: &str, size: usize) -> (u16, String) {
    let body = json!({"topic": topic, "value": "x".repeat(size), "project": "p"});
    let answer = client.post("/produce", body.to_string()).await;
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn while_a_partition_takes_nothing_the_others_are_written_to() {
    let mock = Mock::start(2);
    for (topic, broker) in [("silent", 1), ("good", 2)] {
        mock.create_topic(topic, 1);
        mock.leader(topic, 0, broker);
    }
    let service = Service::ready(&[
        ("KAFKA_BROKERS", mock.bootstrap()),
        ("MAX_BODY_BYTES", "100000"),
        ("MAX_BATCH_RECORDS", "100"),
        ("MAX_IN_FLIGHT_BYTES", "1000000"),
    ])
    .await;
    let client = service.client();
    for topic in ["silent", "good"] {
        assert_eq!(post(&client, topic, 10).await.0, 202);
    }
    mock.round_trip_time(1, Duration::from_secs(60));
    let silent = async {
        // one after the other, as a client at 3 MB/s sends them
        let all = (0..40).map(async |number: u64| {
            tokio::time::sleep(Duration::from_millis(20 * number)).await;
            post(&client, "silent", 60_000).await
        });
        join_all(all).await
    };
    let good = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..20 {
            let (status, error) = post(&client, "good", 60_000).await;
            assert_eq!(status, 202, "{error}");
        }
    };
    let (silent, ()) = tokio::join!(silent, good);
    // what had a place waits in vain, the others are told so at once
    for (status, error) in &silent {
        assert!(
            [(504, "delivery_timeout"), (503, "overloaded"), (503, "broker_unavailable")]
                .contains(&(*status, error)),
            "{status} {error}"
        );
    }
    assert!(silent.iter().any(|(status, _)| *status == 503), "{silent:?}");
    assert_eq!(consumer::count(mock.bootstrap(), "good"), 21);
}
