//! Whoever is told that a record is written finds it in Kafka, once and where the answer says, also where a broker refuses
//! what a producer writes to a partition first. A broker takes an unknown producer at any sequence (KAFKA-15591), so
//! requests behind a refused one could be taken, and librdkafka would call the refused one delivered.

use crate::support::{
    app::Service,
    broker::{self, Broker},
    client::Client,
    consumer, eventually,
    mock::Mock,
    numbered::{Delivery, all_are_written_once, post_batch, post_each, record},
    outcomes::{Outcome, Outcomes, Told},
    proxy::{self, Fault, Proxy},
    spool::{self, stored_one, wait_empty},
};
use futures_util::future::join_all;
use rdkafka::types::RDKafkaRespErr::*;
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// The round trip of what is produced: while a request is refused, others are under way.
const ROUND_TRIP: Duration = Duration::from_millis(60);
/// The number of a record that makes a service know the topic.
const KNOWN: u64 = 1_000_000;
const UNCOMPRESSED: (&str, &str) = ("KAFKA_COMPRESSION", "none");

/// A topic that the service knows. It has not written to its partition 0.
async fn known_topic(kafka: &Broker, client: &Client) -> String {
    let topic = kafka.new_topic(2, &[]).await;
    client.post("/produce", record(&topic, 1, KNOWN, 0).to_string()).await.written();
    topic
}

/// The first `count` Produce requests to a partition that is new to the producer get this error code, and nothing of them
/// is written. In both kinds of delivery.
async fn the_first_requests_are_refused(code: i16, count: usize) {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        let service = delivery.start(&proxy.address(), &[]).await;
        let client = service.client();
        let topic = known_topic(kafka, &client).await;
        proxy.delay_topic(&topic, ROUND_TRIP);
        proxy.inject((topic.as_str(), 0), Fault::Refuse(code), count);
        let records: Vec<_> = (0..8).map(|number| record(&topic, 0, number, 0)).collect();
        let outcomes = post_each(&client, &records).await;
        proxy.heal(&topic);
        assert_eq!(refusals(proxy, &topic, code), count);
        all_are_written_once(outcomes, &topic, &kafka.bootstrap());
    }
}

fn refusals(proxy: &Proxy, topic: &str, code: i16) -> usize {
    proxy.log(topic).iter().filter(|passed| passed.told == Some(code)).count()
}

#[tokio::test]
async fn records_that_a_broker_refuses_since_it_does_not_lead_are_written_once() {
    the_first_requests_are_refused(6, 1).await;
}

#[tokio::test]
async fn records_that_a_broker_refuses_twice_since_it_does_not_lead_are_written_once() {
    the_first_requests_are_refused(6, 2).await;
}

#[tokio::test]
async fn records_for_a_partition_that_a_broker_does_not_know_yet_are_written_once() {
    the_first_requests_are_refused(3, 1).await;
}

#[tokio::test]
async fn records_for_too_few_replicas_are_written_once() {
    the_first_requests_are_refused(19, 1).await;
}

#[tokio::test]
async fn records_that_a_broker_cannot_store_for_now_are_written_once() {
    the_first_requests_are_refused(56, 1).await;
}

/// A batch of several requests, of which the first is refused, is written once. In both kinds of delivery.
async fn the_first_request_of_a_batch_is_refused(is_idempotent: bool) {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        let variables = [UNCOMPRESSED, ("KAFKA_IDEMPOTENCE", if is_idempotent { "true" } else { "false" })];
        let service = delivery.start(&proxy.address(), &variables).await;
        let client = service.client();
        let topic = known_topic(kafka, &client).await;
        proxy.delay_topic(&topic, ROUND_TRIP);
        proxy.inject((topic.as_str(), 0), Fault::Refuse(6), 1);
        // two do not fit into one request
        let records: Vec<_> = (0..6).map(|number| record(&topic, 0, number, 900_000)).collect();
        let outcomes = post_batch(&client, &records).await;
        proxy.heal(&topic);
        assert_eq!(refusals(proxy, &topic, 6), 1);
        if is_idempotent {
            let places: Vec<_> = outcomes.iter().map(|outcome| outcome.place).collect();
            assert_eq!(places, (0..6).map(|offset| Some((0, offset))).collect::<Vec<_>>());
        }
        all_are_written_once(outcomes, &topic, &kafka.bootstrap());
    }
}

#[tokio::test]
async fn a_batch_of_several_requests_of_which_the_first_is_refused_is_written_once_and_in_order() {
    the_first_request_of_a_batch_is_refused(true).await;
}

#[tokio::test]
async fn without_idempotence_such_a_batch_is_written_once_but_perhaps_not_in_order() {
    the_first_request_of_a_batch_is_refused(false).await;
}

#[tokio::test]
async fn every_record_is_to_be_acknowledged_by_all_in_sync_replicas() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        for idempotence in ["true", "false"] {
            let service = delivery.start(&proxy.address(), &[("KAFKA_IDEMPOTENCE", idempotence)]).await;
            let topic = known_topic(kafka, &service.client()).await;
            let acks: Vec<_> = proxy.log(&topic).iter().map(|passed| passed.produce.acks).collect();
            let is_of_all = !acks.is_empty() && acks.iter().all(|acks| *acks == -1);
            assert!(is_of_all, "{delivery:?}, idempotence {idempotence}: {acks:?}");
        }
    }
}

/// A new process sends it, to whose producer every partition is new.
#[tokio::test]
async fn a_backlog_of_which_the_first_request_is_refused_is_written_once_and_in_order() {
    const RECORDS: u64 = 12;
    let Some((proxy, kafka)) = proxy::own() else { return };
    kafka.create_topic("topic", 1, &[]).await;
    kafka.kill();
    let service = spool::spawn(&proxy.address(), &[UNCOMPRESSED]).await;
    let client = service.client();
    for number in 0..RECORDS {
        // each is a request of its own to Kafka
        stored_one(&client.post("/produce", record("topic", 0, number, 900_000).to_string()).await);
    }
    service.kill();
    kafka.restart();
    proxy.delay_topic("topic", ROUND_TRIP);
    proxy.inject("topic", Fault::Refuse(6), 1);
    service.restart().await;
    wait_empty(&client).await;
    proxy.heal("topic");
    assert_eq!(refusals(&proxy, "topic", 6), 1);
    let records = consumer::read_all(&kafka.bootstrap(), "topic");
    let numbers: Vec<_> = records.iter().map(|record| record.json()["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>());
}

/// Nothing is injected: a broker leads a new partition somewhat later than the metadata say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_for_topics_that_were_made_a_moment_ago_are_written_once_or_refused() {
    const PARTITIONS: i32 = 200;
    const LAST: i32 = 150;
    let Some(kafka) = broker::own(&[]) else { return };
    let service = Service::on(&kafka, &[UNCOMPRESSED, ("MAX_IN_FLIGHT_BYTES", "67108864")]).await;
    let client = service.client();
    for round in 0..3 {
        let topic = format!("new-{round}");
        let posting = async {
            // large ones: each is a request of its own
            let probe = record(&topic, LAST, KNOWN, 900_000).to_string();
            let first = eventually("the new topic is known", Duration::from_secs(30), async || {
                let answer = client.post("/produce", probe.as_str()).await;
                (answer.json()["error"] != "unknown_topic").then_some(answer)
            })
            .await;
            let records: Vec<_> = (0..60).map(|number| record(&topic, LAST, number, 900_000)).collect();
            let mut outcomes = vec![Outcome::of(KNOWN, None, &first.json())];
            outcomes.extend(post_each(&client, &records).await);
            outcomes
        };
        let ((), outcomes) = tokio::join!(kafka.create_topic(&topic, PARTITIONS, &[]), posting);
        let outcomes = Outcomes::new(outcomes, &topic);
        assert!(outcomes.verify(&kafka.bootstrap()) > 0, "{:?}", outcomes.failures());
        kafka.delete_topic(&topic).await;
    }
}

/// A mock cluster whose partition is known to the producer. It checks no sequences, as a broker does not that has
/// forgotten the producer: the first of several requests that are under way is refused, the next one is taken.
async fn an_acknowledgement_is_implied(delivery: Delivery, round: u64) -> (Mock, Service, Vec<Outcome>) {
    const RECORDS: u64 = 10;
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    let service = delivery.start(mock.bootstrap(), &[("KAFKA_PROPERTY_BATCH_NUM_MESSAGES", "1")]).await;
    let client = service.client();
    client.post("/produce", record("topic", 0, KNOWN, 0).to_string()).await.written();
    mock.round_trip_time(1, Duration::from_millis(200 * (round + 1)));
    mock.produce_errors(&[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
    let records: Vec<_> = (0..RECORDS).map(|number| record("topic", 0, number, 0)).collect();
    let outcomes = post_batch(&client, &records).await;
    mock.round_trip_time(1, Duration::ZERO);
    (mock, service, outcomes)
}

#[tokio::test]
async fn an_acknowledgement_that_is_only_implied_is_unknown() {
    for round in 0..5 {
        let (mock, _service, outcomes) = an_acknowledgement_is_implied(Delivery::Direct, round).await;
        let outcomes = Outcomes::new(outcomes, "topic");
        outcomes.read(mock.bootstrap()).every_accepted_is_in();
        assert_eq!(outcomes.not_written(), 0, "{:?}", outcomes.failures());
        // none is where no second request was under way
        if outcomes.count(Told::Unknown) > 0 {
            let failure: Value = serde_json::from_str(outcomes.failures()[0]).unwrap();
            assert_eq!(failure["error"], "delivery_timeout", "{failure}");
            return;
        }
    }
    panic!("no acknowledgement was implied");
}

#[tokio::test]
async fn a_stored_record_whose_acknowledgement_is_only_implied_is_sent_again_and_declared() {
    for round in 0..5 {
        let (mock, service, outcomes) = an_acknowledgement_is_implied(Delivery::Durable, round).await;
        wait_empty(&service.client()).await;
        let replayed = consumer::read_all(mock.bootstrap(), "topic")
            .iter()
            .filter(|record| record.header("receipt-replayed").is_some())
            .count();
        let outcomes = Outcomes::new(outcomes, "topic");
        assert_eq!(outcomes.failures(), [""; 0]);
        let landed = outcomes.read(mock.bootstrap());
        landed.every_accepted_is_in();
        assert_eq!(landed.duplicates().undeclared, 0);
        if replayed > 0 {
            return;
        }
    }
    panic!("no acknowledgement was implied");
}

#[tokio::test]
async fn a_record_that_waits_for_the_first_of_its_partition_past_its_time_is_certainly_not_written() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let topic = kafka.new_topic(1, &[]).await;
    let service = Delivery::Direct.start(&proxy.address(), &[("KAFKA_DELIVERY_TIMEOUT_MS", "4000")]).await;
    let client = service.client();
    proxy.delay_topic(&topic, Duration::from_secs(12));
    let post = async |number| client.post("/produce", record(&topic, 0, number, 0).to_string()).await;
    let post_behind = async {
        eventually("Kafka has the first record, unanswered", Duration::from_secs(8), async || {
            (consumer::count(&kafka.bootstrap(), &topic) == 1).then_some(())
        })
        .await;
        join_all([1, 2].map(post)).await
    };
    let (first, behind) = tokio::join!(post(0), post_behind);
    proxy.heal(&topic);
    first.problem(504, "delivery_timeout");
    for answer in &behind {
        assert_eq!(answer.problem(503, "broker_unavailable")["outcome"], "not_written");
    }
    eventually("the partition takes records again", Duration::from_secs(30), async || {
        (client.post("/produce", record(&topic, 0, 3, 0).to_string()).await.status == 202).then_some(())
    })
    .await;
    let records = consumer::read_all(&kafka.bootstrap(), &topic);
    let numbers: BTreeSet<_> =
        records.iter().map(|record| record.json()["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, BTreeSet::from([0, 3]));
}
