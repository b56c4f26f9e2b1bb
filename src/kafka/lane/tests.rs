use super::*;
use crate::{
    produce::{Admitted, Budget, Delivery, Found, Record, Submission, TopicConfig, TopicName, fake::record},
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
use smallvec::smallvec;
use std::sync::Arc;

/// The settings of a topic that takes no larger batches.
pub fn takes_batches_of(max_message_bytes: usize) -> TopicConfig {
    TopicConfig {
        max_message_bytes,
        compacted: false,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
    }
}

fn topic() -> Topic {
    Topic::new(TopicName::parse("t").unwrap(), 1)
}

/// Records with the numbers as values, each handed over at `now`.
fn outgoing(topic: &Topic, numbers: std::ops::Range<u32>, now: Instant) -> Vec<Outgoing> {
    let value = |number: u32| Some(Bytes::from(number.to_string()));
    let records = numbers.map(|number| Record { value: value(number), ..record("t") });
    let found =
        Found { topic: Arc::new(topic.clone()), metrics: Metrics::for_tests().topic(topic.name.as_str()) };
    let submission = Arc::new(Submission::new(records.collect(), smallvec![Ok(found)], Vec::new()));
    let admitted = (0..submission.records.len()).map(|record| Admitted { record, partition: 0, reserved: 0 });
    let delivery = Delivery::new(&submission, admitted, Budget::new(0), now);
    delivery.outgoing(&submission).collect()
}

fn number(outgoing: &Outgoing) -> u32 {
    std::str::from_utf8(outgoing.record().value.as_ref().unwrap()).unwrap().parse().unwrap()
}

const RULES: Rules = Rules { client: Some(1), introduces: true, batch_size: 1_000_000, learned_limit: None };

/// What leaves now, by number.
fn leaves(lane: &mut Lane, rules: Rules, now: Instant) -> Vec<(u32, Outgoing)> {
    std::iter::from_fn(|| lane.leave(rules, now)).collect()
}

fn numbers(left: &[(u32, Outgoing)]) -> Vec<u32> {
    left.iter().map(|(_, outgoing)| number(outgoing)).collect()
}

fn with(topic: &Topic, numbers: std::ops::Range<u32>) -> (Lane, Instant) {
    let now = Instant::now();
    let mut lane = Lane::new(now);
    outgoing(topic, numbers, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    (lane, now)
}

fn acknowledged(count: usize) -> Landing {
    Landing { count, ..Landing::default() }
}

fn failed(count: usize) -> Landing {
    Landing { has_failure: true, ..acknowledged(count) }
}

/// A lane whose partition knows the client, with the numbers waiting.
fn introduced(topic: &Topic, numbers: std::ops::Range<u32>) -> (Lane, Instant) {
    let (mut lane, now) = with(topic, 1000..1001);
    assert_eq!(leaves(&mut lane, RULES, now).len(), 1);
    assert!(lane.land(acknowledged(1), now).is_empty());
    outgoing(topic, numbers, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    (lane, now)
}

#[test]
fn one_record_goes_alone_until_it_is_acknowledged_and_then_all() {
    let (mut lane, now) = with(&topic(), 0..4);
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [0]);
    assert_eq!(lane.waiting(), 3);
    lane.land(acknowledged(1), now);
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [1, 2, 3]);
}

#[test]
fn after_a_refusal_all_under_way_is_waited_for_and_one_goes_alone_again() {
    let (mut lane, now) = introduced(&topic(), 0..3);
    assert_eq!(leaves(&mut lane, RULES, now).len(), 3);
    outgoing(&topic(), 3..6, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    lane.land(failed(1), now);
    assert!(leaves(&mut lane, RULES, now).is_empty());
    lane.land(acknowledged(2), now);
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [3]);
    lane.land(failed(1), now);
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [4]);
    lane.land(acknowledged(1), now);
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [5]);
}

#[test]
fn a_rest_another_client_or_another_topic_of_the_name_asks_for_an_introduction() {
    let again = |rules: Rules, topic: &Topic, after: Duration| {
        let (mut lane, now) = introduced(&self::topic(), 0..0);
        outgoing(topic, 0..2, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
        leaves(&mut lane, rules, now + after).len() == 1
    };
    let short = Duration::from_secs(60);
    assert!(!again(RULES, &topic(), short));
    assert!(again(RULES, &topic(), REST + short));
    assert!(again(Rules { client: Some(2), ..RULES }, &topic(), short));
    assert!(again(RULES, &Topic { id: Some(TopicId(7)), ..topic() }, short));
    assert!(!again(Rules { client: Some(2), introduces: false, ..RULES }, &topic(), short));
}

#[test]
fn a_record_that_librdkafka_does_not_take_introduces_nobody() {
    let (mut lane, now) = with(&topic(), 0..3);
    assert!(lane.leave(RULES, now).is_some());
    lane.stays();
    assert_eq!(numbers(&leaves(&mut lane, RULES, now)), [1]);
}

#[test]
fn no_more_is_under_way_than_fits_a_batch_of_the_topic() {
    let topic = Topic { config: Some(takes_batches_of(BATCH_OVERHEAD + 30)), ..topic() };
    let (mut lane, now) = introduced(&topic, 0..7);
    let sizes = outgoing(&topic, 0..1, now);
    let size = record_size(sizes[0].record(), 0, 0);
    let fit = 30 / size;
    assert!((2..5).contains(&fit), "{size}");
    assert_eq!(leaves(&mut lane, RULES, now).len(), fit);
    lane.land(acknowledged(1), now);
    assert!(leaves(&mut lane, RULES, now).is_empty(), "the lot is not over");
    lane.land(acknowledged(fit - 1), now);
    assert_eq!(leaves(&mut lane, RULES, now).len(), fit);
}

#[test]
fn a_limit_that_a_refusal_has_shown_counts_like_the_topics_own() {
    let (mut lane, now) = introduced(&topic(), 0..5);
    let rules = Rules { learned_limit: Some(BATCH_OVERHEAD + 1), ..RULES };
    assert_eq!(numbers(&leaves(&mut lane, rules, now)), [0], "one that does not fit goes alone");
}

#[test]
fn nothing_goes_to_a_new_client_before_the_old_one_has_reported() {
    let (mut lane, now) = introduced(&topic(), 0..2);
    assert_eq!(leaves(&mut lane, RULES, now).len(), 2);
    outgoing(&topic(), 2..5, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    let next = Rules { client: Some(2), ..RULES };
    assert!(leaves(&mut lane, next, now).is_empty());
    lane.land(acknowledged(2), now);
    assert_eq!(numbers(&leaves(&mut lane, next, now)), [2]);
}

#[test]
fn what_comes_back_from_a_replaced_client_goes_first_and_in_order() {
    let (mut lane, now) = introduced(&topic(), 0..4);
    let mut left = leaves(&mut lane, RULES, now);
    outgoing(&topic(), 4..5, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    let next = Rules { client: Some(2), introduces: false, ..RULES };
    // purged from two queues, the younger ones first
    let younger = left.split_off(3);
    let older = left.split_off(1);
    lane.land(Landing { returned: younger, ..acknowledged(1) }, now);
    lane.land(Landing { returned: older, ..acknowledged(2) }, now);
    assert!(leaves(&mut lane, next, now).is_empty());
    assert_eq!(lane.waiting(), 4);
    lane.land(acknowledged(1), now);
    assert_eq!(numbers(&leaves(&mut lane, next, now)), [1, 2, 3, 4]);
}

#[test]
fn nothing_overtakes_a_record_whose_outcome_is_open() {
    let (mut lane, now) = introduced(&topic(), 0..3);
    let mut left = leaves(&mut lane, RULES, now);
    outgoing(&topic(), 3..4, now).into_iter().for_each(|outgoing| lane.wait(outgoing));
    let returned = left.split_off(2);
    lane.land(Landing { returned, ..acknowledged(1) }, now);
    lane.land(acknowledged(1), now);
    let given_back = lane.land(Landing { breaks: true, ..failed(1) }, now);
    assert_eq!(given_back.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(lane.waiting(), 0);
}

#[test]
fn what_has_waited_for_too_long_is_given_up_and_the_rest_goes_on() {
    let (mut lane, now) = with(&topic(), 0..2);
    assert_eq!(lane.leave(RULES, now).map(|(place, _)| place), Some(0));
    let later = now + Duration::from_secs(5);
    outgoing(&topic(), 2..3, later).into_iter().for_each(|outgoing| lane.wait(outgoing));
    let late = lane.expire(Duration::from_secs(4), later);
    assert_eq!(late.iter().map(number).collect::<Vec<_>>(), [1]);
    assert!(lane.is_stuck(later));
    lane.land(acknowledged(1), later);
    assert_eq!(numbers(&leaves(&mut lane, RULES, later)), [2]);
}

#[test]
fn without_a_client_that_can_send_everything_waits() {
    let (mut lane, now) = introduced(&topic(), 0..2);
    assert!(leaves(&mut lane, Rules { client: None, ..RULES }, now).is_empty());
    assert_eq!(leaves(&mut lane, Rules { client: Some(2), ..RULES }, now).len(), 1);
}

#[test]
fn a_partition_that_did_not_answer_is_spared_but_for_one_trial_now_and_then() {
    let (mut lane, now) = with(&topic(), 0..3);
    assert_eq!(leaves(&mut lane, RULES, now).len(), 1);
    lane.land(Landing { is_unanswered: true, ..failed(1) }, now);
    assert!(lane.is_stuck(now));
    let later = now + SPARED_FOR;
    assert!(!lane.is_stuck(later), "it may be tried");
    assert_eq!(leaves(&mut lane, RULES, later).len(), 1);
    assert!(lane.is_stuck(later), "the trial is under way");
    lane.land(acknowledged(1), later);
    assert!(!lane.is_stuck(later));
}

#[test]
fn a_partition_whose_records_are_refused_answers() {
    let (mut lane, now) = with(&topic(), 0..2);
    leaves(&mut lane, RULES, now);
    lane.land(Landing { is_unanswered: true, ..failed(1) }, now);
    assert!(lane.is_stuck(now));
    leaves(&mut lane, RULES, now);
    lane.land(failed(1), now);
    assert!(!lane.is_stuck(now));
}
