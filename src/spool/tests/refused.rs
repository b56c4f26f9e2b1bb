//! Records that Kafka refuses for good: many of them, and dead letters that are not confirmed.

use super::*;

/// No topic has this partition.
fn refused(number: usize) -> Record {
    Record { partition: Some(99), value: Some(number.to_string().into()), ..record("a") }
}

async fn store_refused(running: &Running, count: usize) -> Sequence {
    let records: Vec<_> = (0..count).map(refused).collect();
    let mut first = None;
    for records in records.chunks(1000) {
        first.get_or_insert(running.store(records).await);
    }
    first.unwrap()
}

fn with_dead_letters(settings: &mut config::Spool) {
    settings.dead_letter_topic = Some(DeadLetterTopic::parse("dlq").unwrap());
}

#[tokio::test]
async fn a_backlog_of_refused_records_ends_as_failed_ones() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.is_away(true);
    let first = store_refused(&running, 9000).await;
    running.store(&[keyed("k", "behind")]).await;
    running.is_away(false);
    running.wait_until_empty().await;
    assert_eq!(running.spool.failed_records(), 9000);
    assert_eq!(running.sent(), ["behind"]);
    for sequence in [first.0, first.0 + 4500, first.0 + 8999] {
        let state = running.state(Sequence(sequence)).await;
        assert!(matches!(state, ReceiptState::Failed(failure) if failure.error == "invalid_partition"));
    }
}

#[tokio::test]
async fn a_backlog_of_refused_records_ends_in_the_dead_letter_topic() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    let running = start_with(directory.path(), &producer, with_dead_letters);
    running.is_away(true);
    store_refused(&running, 9000).await;
    running.is_away(false);
    running.wait_until_empty().await;
    assert_eq!(running.spool.failed_records(), 0);
    let mut letters: Vec<usize> = running.sent().iter().map(|value| value.parse().unwrap()).collect();
    letters.sort_unstable();
    assert!(letters.iter().copied().eq(0..9000), "{} letters", letters.len());
}

#[tokio::test]
async fn a_dead_letter_that_is_confirmed_late_is_no_failed_record() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    producer.then(Step::Held);
    let running = start_patient(directory.path(), &producer, Duration::from_millis(50), with_dead_letters);
    let sequence = running.store(&[refused(0)]).await;
    eventually("the letter is under way", async || running.sent().len() == 1).await;
    // longer than the delivery timeout
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(running.state(sequence).await, ReceiptState::Pending);
    running.store(&[keyed("k", 1)]).await;
    eventually("others go on", async || running.sent().len() == 2).await;
    producer.report_held(&Ok(written(7)));
    running.wait_until_empty().await;
    assert_eq!((running.spool.failed_records(), running.sent().len()), (0, 2));
    let state = running.state(sequence).await;
    let ReceiptState::Failed(failure) = &state else { panic!("{state:?}") };
    assert_eq!(failure.dead_letter.as_ref().unwrap().offset, Some(7));
}

#[tokio::test]
async fn a_dead_letter_whose_outcome_is_unknown_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    producer.then(Step::Fails(Error::AcknowledgementLost { reason: "as a test".into() })).then(Step::Written);
    let running = start_with(directory.path(), &producer, with_dead_letters);
    running.store(&[refused(0)]).await;
    running.wait_until_empty().await;
    assert_eq!((running.spool.failed_records(), running.sent().len()), (0, 2));
    let letters = producer.sent();
    assert!(letters.iter().all(|(letter, _)| letter.receipt.as_ref().unwrap().replayed));
}

#[tokio::test]
async fn dead_letters_that_are_not_confirmed_hold_up_no_others_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    (0..64).for_each(|_| _ = producer.then(Step::Held));
    let running = start_patient(directory.path(), &producer, Duration::from_millis(50), with_dead_letters);
    running.is_away(true);
    store_refused(&running, 9000).await;
    running.store(&[keyed("k", "behind")]).await;
    running.is_away(false);
    eventually("it goes on behind them", async || {
        running.sent().last().unwrap_or(&String::new()) == "behind"
    })
    .await;
    producer.report_held(&Ok(written(7)));
    running.wait_until_empty().await;
    assert_eq!(running.spool.failed_records(), 9000 - 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_not_confirmed_ends_with_the_process_and_is_written_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    producer.then(Step::Held);
    let running = start_with(directory.path(), &producer, with_dead_letters);
    let sequence = running.store(&[refused(0), keyed("k", 1)]).await;
    eventually("both are under way", async || running.sent().len() == 2).await;
    let close = tokio::time::timeout(Duration::from_secs(20), running.spool.close());
    assert_eq!(close.await.unwrap(), 1);
    drop(running);
    let running = start_with(directory.path(), &producer, with_dead_letters);
    running.wait_until_empty().await;
    assert_eq!((running.spool.failed_records(), running.sent().len()), (0, 3));
    let state = running.state(sequence).await;
    assert!(matches!(&state, ReceiptState::Failed(failure) if failure.dead_letter.is_some()), "{state:?}");
}

#[tokio::test]
async fn a_record_that_is_refused_for_good_stays_as_failed_and_lets_others_pass() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let large = Record { value: Some(vec![b'x'; 3000].into()), ..keyed("k", "") };
    let sequence = running.store(&[large, keyed("k", 1)]).await;
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1"]);
    assert_eq!(running.spool.failed_records(), 1);
    let state = running.state(sequence).await;
    assert!(
        matches!(&state, ReceiptState::Failed(failure) if failure.error == "record_too_large"),
        "{state:?}"
    );
    assert!(running.is_free("k"));
}

#[tokio::test]
async fn a_dead_letter_says_why_and_where_from() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a", "a.dlq"]);
    let topic = DeadLetterTopic::parse("{topic}.dlq").unwrap();
    let running =
        start_with(directory.path(), &producer, |settings| settings.dead_letter_topic = Some(topic));
    let rejected = || Step::Fails(Error::Rejected { reason: "as a test".into() });
    producer.then(rejected()).then(rejected()).then(Step::Written);
    let sequence = running.store(&[keyed("k", 1)]).await;
    running.wait_until_empty().await;
    let sent = producer.sent();
    let (letter, _) = sent.last().unwrap();
    assert_eq!((letter.topic.as_str(), letter.key.as_deref()), ("a.dlq", Some(&b"k"[..])));
    let header = |name: &str| {
        let value =
            letter.headers.iter().find(|header| header.name == name).and_then(|header| header.value.clone());
        String::from_utf8(value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("dead-letter-error"), "record_rejected");
    assert_eq!(header("dead-letter-topic"), "a");
    assert!(header("dead-letter-reason").contains("as a test"));
    assert!(header("dead-letter-time").starts_with("20"));
    assert_eq!(letter.receipt.as_ref().unwrap().id.sequence, sequence);
    let place =
        DeadLetter { topic: letter.topic.clone(), partition: fake::partition(letter), offset: Some(2) };
    let state = running.state(sequence).await;
    assert!(
        matches!(&state, ReceiptState::Failed(failure) if failure.dead_letter.as_ref() == Some(&place)),
        "{state:?}"
    );
    assert_eq!(running.spool.failed_records(), 0);
}

#[tokio::test]
async fn without_its_topic_a_dead_letter_is_a_failed_record() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a"]);
    let topic = DeadLetterTopic::parse("nowhere").unwrap();
    let running =
        start_with(directory.path(), &producer, |settings| settings.dead_letter_topic = Some(topic));
    producer.then(Step::Fails(Error::KeyRequired(TopicName::parse("a").unwrap())));
    let sequence = running.store(&[record("a")]).await;
    running.wait_until_empty().await;
    assert_eq!(running.spool.failed_records(), 1);
    let state = running.state(sequence).await;
    assert!(
        matches!(&state, ReceiptState::Failed(failure) if failure.reason.contains("nowhere")),
        "{state:?}"
    );
}

/// A topic that takes records of the last and the next hour.
fn with_topic_of_this_hour() -> Arc<FakeProducer> {
    let producer = FakeProducer::with_topics(&["dlq"]);
    let config = TopicConfig {
        max_message_bytes: 2000,
        compacted: false,
        timestamp_before_max_ms: 3_600_000,
        timestamp_after_max_ms: 3_600_000,
    };
    producer.add_topic("a", Some(config.clone()));
    producer.add_topic("dlq", Some(config));
    producer
}

/// As this clock has it.
fn of_another_day(key: &'static str, days: i64) -> Record {
    let record = keyed(key, days);
    Record { timestamp: record.timestamp + days * 86_400_000, ..record }
}

#[tokio::test]
async fn stored_records_that_are_too_early_or_too_late_by_this_clock_are_judged_by_kafka() {
    let directory = tempfile::tempdir().unwrap();
    let running = start_with(directory.path(), &with_topic_of_this_hour(), with_dead_letters);
    running.store(&[of_another_day("k", -20_000), of_another_day("l", 400)]).await;
    running.wait_until_empty().await;
    assert_eq!(
        (running.sent(), running.spool.failed_records()),
        (["-20000", "400"].map(str::to_owned).to_vec(), 0)
    );
    assert!(running.producer.sent().iter().all(|(record, _)| record.topic.as_str() == "a"));
}

#[tokio::test]
async fn a_stored_record_whose_timestamp_kafka_refuses_is_a_dead_letter_whatever_its_clock() {
    let directory = tempfile::tempdir().unwrap();
    let running = start_with(directory.path(), &with_topic_of_this_hour(), with_dead_letters);
    let record = of_another_day("k", -20_000);
    let refusal = || Error::TimestampOutOfRange {
        topic: record.topic.clone(),
        timestamp: record.timestamp,
        bound: "as a test".into(),
    };
    running.producer.then(Step::Fails(refusal())).then(Step::Fails(refusal())).then(Step::Written);
    let sequence = running.store(std::slice::from_ref(&record)).await;
    running.wait_until_empty().await;
    let sent = running.producer.sent();
    let went: Vec<_> = sent.iter().map(|(record, batching)| (record.topic.as_str(), *batching)).collect();
    assert_eq!(went, [("a", Batching::Shared), ("a", Batching::Alone), ("dlq", Batching::Alone)]);
    let state = running.state(sequence).await;
    assert!(
        matches!(&state, ReceiptState::Failed(failure) if failure.error == "invalid_timestamp"),
        "{state:?}"
    );
}
