//! A topic that takes less at once than a producer gathers gets no batch that it has to refuse: each refusal uses up one
//! epoch of the producer that all others share.

use crate::support::{
    broker::Broker,
    client::Client,
    eventually,
    numbered::{Delivery, all_are_written_once, post_batch, record},
    outcomes::Outcome,
    proxy,
};
use std::time::Duration;

/// The number of the first record that asks for the limit.
const KNOWN: u64 = 1_000_000;

const UNCOMPRESSED: (&str, &str) = ("KAFKA_COMPRESSION", "none");

/// A topic that takes batches of so many bytes, once the service knows that.
async fn limited_topic(kafka: &Broker, client: &Client, limit: usize) -> String {
    let topic = kafka.new_topic(1, &[("max.message.bytes", &limit.to_string())]).await;
    client.post("/produce", record(&topic, 0, KNOWN, 0).to_string()).await.written();
    let mut number = KNOWN;
    eventually("the topic's limit is known", Duration::from_secs(20), async || {
        number += 1;
        let answer = client.post("/produce", record(&topic, 0, number, limit).to_string()).await;
        (answer.status == 413).then_some(())
    })
    .await;
    topic
}

#[tokio::test]
async fn lawful_batches_of_many_clients_cause_no_refusal_by_a_topic_with_a_small_limit() {
    const CLIENTS: u64 = 8;
    const BATCHES: u64 = 10;
    const EACH: u64 = 10;
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let service = Delivery::Direct.start(&proxy.address(), &[UNCOMPRESSED]).await;
    let topic = limited_topic(kafka, &service.client(), 1000).await;
    let before = proxy.errors(&topic);
    let clients = (0..CLIENTS).map(|client| {
        let (http, topic) = (service.client(), &topic);
        async move {
            let mut outcomes = Vec::new();
            for batch in 0..BATCHES {
                let first = (client * BATCHES + batch) * EACH;
                let records: Vec<_> =
                    (first..first + EACH).map(|number| record(topic, 0, number, 100)).collect();
                outcomes.extend(post_batch(&http, &records).await);
            }
            outcomes
        }
    });
    let outcomes: Vec<Outcome> =
        futures_util::future::join_all(clients).await.into_iter().flatten().collect();
    all_are_written_once(outcomes, &topic, &kafka.bootstrap());
    assert_eq!(proxy.errors(&topic) - before, 0, "requests that were refused");
}

#[tokio::test]
async fn a_large_batch_is_written_whole_by_a_topic_with_a_small_limit_that_answers_late() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let service = Delivery::Direct.start(&proxy.address(), &[UNCOMPRESSED]).await;
    let client = service.client();
    let topic = limited_topic(kafka, &client, 10_000).await;
    let before = proxy.errors(&topic);
    proxy.delay_topic(&topic, Duration::from_millis(10));
    let records: Vec<_> = (0..5000).map(|number| record(&topic, 0, number, 0)).collect();
    let outcomes = post_batch(&client, &records).await;
    proxy.heal(&topic);
    all_are_written_once(outcomes, &topic, &kafka.bootstrap());
    assert_eq!(proxy.errors(&topic) - before, 0, "requests that were refused");
}

#[tokio::test]
async fn a_limit_that_is_lowered_is_heeded_after_a_few_refusals() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let service = Delivery::Direct.start(&proxy.address(), &[UNCOMPRESSED]).await;
    let client = service.client();
    let topic = limited_topic(kafka, &client, 10_000).await;
    kafka.limit_topic(&topic, 1000).await;
    let before = proxy.errors(&topic);
    let mut refused = 0;
    for number in 0..20 {
        let answer = client.post("/produce", record(&topic, 0, number, 2000).to_string()).await;
        refused += usize::from(answer.status == 413);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(refused >= 15, "{refused} of 20");
    let by_kafka = proxy.errors(&topic) - before;
    assert!((1..8).contains(&by_kafka), "{by_kafka} of {refused} records were sent and refused");
}
