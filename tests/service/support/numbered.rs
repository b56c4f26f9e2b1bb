//! Numbered records, posted in either kind of delivery, and what became of them in the end.

use super::{
    app::Service,
    client::{Answer, Client},
    outcomes::{Outcome, Outcomes, Told, place},
    spool,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Direct,
    Durable,
}

impl Delivery {
    pub const BOTH: [Self; 2] = [Self::Direct, Self::Durable];

    /// The service in this mode, once Kafka answers.
    pub async fn start(self, bootstrap: &str, variables: &[(&str, &str)]) -> Service {
        match self {
            Self::Direct => Service::ready(&[&[("KAFKA_BROKERS", bootstrap)], variables].concat()).await,
            Self::Durable => spool::ready(bootstrap, variables).await,
        }
    }
}

/// A record without a key, with `padding` bytes more than its number.
pub fn record(topic: &str, partition: i32, number: u64, padding: usize) -> Value {
    let value = json!({"number": number, "padding": "x".repeat(padding)});
    json!({"topic": topic, "partition": partition, "value": value, "project": "p"})
}

/// Posts the records in requests of their own, 10 ms one after the other, without waiting for the answers.
pub async fn post_each(client: &Client, records: &[Value]) -> Vec<Outcome> {
    let posts = records.iter().zip(0..).map(|(record, place)| async move {
        tokio::time::sleep(Duration::from_millis(10 * place)).await;
        let answer = client.post("/produce", record.to_string()).await;
        outcome(client, number(record), &answer, &answer.json()).await
    });
    join_all(posts).await
}

/// Posts the records in one request.
pub async fn post_batch(client: &Client, records: &[Value]) -> Vec<Outcome> {
    let answer = client.post("/produce/batch", serde_json::to_vec(records).unwrap()).await;
    let json = answer.json();
    let results = json["results"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(results.len(), records.len(), "{answer:?}");
    let outcomes =
        records.iter().zip(results).map(|(record, result)| outcome(client, number(record), &answer, result));
    join_all(outcomes).await
}

/// With the place that the receipt names in the end, where the record was stored.
async fn outcome(client: &Client, number: u64, answer: &Answer, result: &Value) -> Outcome {
    let mut outcome = Outcome::of(number, None, result);
    // 207: others of its batch were accepted
    assert!(!outcome.told.is_accepted() || [202, 207].contains(&answer.status), "{answer:?}");
    if outcome.told == Told::Stored {
        let receipt = spool::receipt(client, &spool::stored(result)).await;
        assert_eq!(receipt["state"], "written", "{receipt}");
        outcome.place = place(&receipt);
        assert!(outcome.place.is_some(), "{receipt}");
    }
    outcome
}

fn number(record: &Value) -> u64 {
    record["value"]["number"].as_u64().unwrap()
}

/// Each record was accepted, and is in Kafka once, where its client was told.
pub fn all_are_written_once(outcomes: Vec<Outcome>, topic: &str, bootstrap: &str) {
    let count = outcomes.len();
    let outcomes = Outcomes::new(outcomes, topic);
    let failures = outcomes.failures();
    assert!(failures.is_empty(), "{} of {topic} were not accepted: {}", failures.len(), failures[0]);
    assert_eq!(outcomes.verify(bootstrap), count);
}
