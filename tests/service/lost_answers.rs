//! A broker has appended, and its answer is lost or says something else: a real broker behind a proxy, since the mock cluster
//! appends again what it has.

use crate::support::{
    broker::Broker,
    client::Client,
    numbered::{Delivery, all_are_written_once, post_each, record},
    outcomes::{Duplicates, Outcome, Outcomes},
    proxy::{self, Fault, Proxy},
    spool::wait_empty,
};
use serde_json::json;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(60);
const KNOWN: u64 = 1_000_000;
/// The answers that say nothing of whether the record was appended.
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const UNKNOWN_SERVER_ERROR: i16 = -1;

/// What clients are told of `count` records, of which the first request has this fault after its append; the topic.
async fn post(
    (proxy, kafka): &(Proxy, Broker),
    delivery: Delivery,
    fault: Fault,
    count: u64,
    variables: &[(&str, &str)],
) -> (String, Vec<Outcome>) {
    let topic = kafka.new_topic(2, &[]).await;
    let service = delivery.start(&proxy.address(), variables).await;
    let client = service.client();
    client.post("/produce", record(&topic, 1, KNOWN, 0).to_string()).await.written();
    proxy.delay_topic(&topic, ROUND_TRIP);
    proxy.inject((topic.as_str(), 0), fault, 1);
    let records: Vec<_> = (0..count).map(|number| record(&topic, 0, number, 0)).collect();
    let outcomes = post_each(&client, &records).await;
    proxy.heal(&topic);
    wait_written(delivery, &client).await;
    let has_fault = proxy.log(&topic).iter().any(|passed| passed.told != passed.broker.map(|told| told.code));
    assert!(has_fault, "no answer was changed");
    (topic, outcomes)
}

/// Until nothing is on its way to Kafka.
async fn wait_written(delivery: Delivery, client: &Client) {
    if delivery == Delivery::Durable {
        wait_empty(client).await;
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_is_made_good_by_a_resend_without_a_duplicate() {
    let Some(shared) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        let (topic, outcomes) = post(shared, delivery, Fault::Lose, 6, &[]).await;
        all_are_written_once(outcomes, &topic, &shared.1.bootstrap());
    }
}

/// The proof of the one above: the same without what it is about.
#[tokio::test]
async fn without_idempotence_a_lost_acknowledgement_is_made_good_by_a_resend_and_a_duplicate() {
    let Some(shared) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        let variables = [("KAFKA_IDEMPOTENCE", "false")];
        let (topic, outcomes) = post(shared, delivery, Fault::Lose, 6, &variables).await;
        let outcomes = Outcomes::new(outcomes, &topic);
        assert_eq!(outcomes.failures(), [""; 0]);
        let landed = outcomes.read(&shared.1.bootstrap());
        landed.every_accepted_is_in();
        let Duplicates { declared, undeclared } = landed.duplicates();
        assert!(declared + undeclared > 0, "{delivery:?}: no record is there twice");
    }
}

/// A later answer tells what became of it, or nobody knows.
async fn an_append_that_is_answered_with(code: i16) {
    let Some(shared) = proxy::shared() else { return };
    for delivery in Delivery::BOTH {
        let (topic, outcomes) = post(shared, delivery, Fault::Rewrite(code), 6, &[]).await;
        let outcomes = Outcomes::new(outcomes, &topic);
        let landed = outcomes.read(&shared.1.bootstrap());
        landed.every_accepted_is_in();
        landed.no_refused_is_in();
        assert_eq!(outcomes.not_written(), 0, "{:?}", outcomes.failures());
        assert_eq!(landed.duplicates().undeclared, 0);
        if delivery == Delivery::Durable {
            assert_eq!(outcomes.failures(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn an_append_that_is_answered_with_a_time_out_is_neither_repeated_nor_refused() {
    an_append_that_is_answered_with(REQUEST_TIMED_OUT).await;
}

#[tokio::test]
async fn an_append_that_too_few_replicas_have_yet_is_neither_repeated_nor_refused() {
    an_append_that_is_answered_with(NOT_ENOUGH_REPLICAS_AFTER_APPEND).await;
}

#[tokio::test]
async fn an_error_of_the_broker_that_may_follow_the_append_is_unknown() {
    let Some(shared) = proxy::shared() else { return };
    let (proxy, kafka) = shared;
    let topic = kafka.new_topic(1, &[]).await;
    let service = Delivery::Direct.start(&proxy.address(), &[]).await;
    let client = service.client();
    client.post("/produce", record(&topic, 0, KNOWN, 0).to_string()).await.written();
    proxy.inject(topic.as_str(), Fault::Rewrite(UNKNOWN_SERVER_ERROR), 1);
    let answer = client.post("/produce", record(&topic, 0, 0, 0).to_string()).await;
    let outcome = Outcome::of(0, None, &answer.json());
    let outcomes = Outcomes::new(vec![outcome], &topic);
    outcomes.read(&kafka.bootstrap()).no_refused_is_in();
    assert_eq!(answer.problem(504, "delivery_timeout")["outcome"], json!("unknown"));
}

#[tokio::test]
async fn an_error_of_the_broker_that_may_follow_the_append_has_the_record_stored_and_a_copy_declared() {
    let Some(shared) = proxy::shared() else { return };
    let fault = Fault::Rewrite(UNKNOWN_SERVER_ERROR);
    let (topic, outcomes) = post(shared, Delivery::Durable, fault, 1, &[]).await;
    let outcomes = Outcomes::new(outcomes, &topic);
    assert_eq!(outcomes.failures(), [""; 0]);
    let landed = outcomes.read(&shared.1.bootstrap());
    assert_eq!(landed.every_accepted_is_in(), 1);
    assert_eq!(landed.duplicates().undeclared, 0);
}
