//! Records that the producer had already when they were stored.

use super::*;

#[tokio::test]
async fn a_held_record_that_kafka_took_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let sequence = running.hold(&keyed("k", 1)).await;
    running.store(&[keyed("k", 2), keyed("l", 3)]).await;
    eventually("the other line goes on", async || running.sent() == ["3"]).await;
    assert_eq!(running.state(sequence).await, ReceiptState::Pending);
    running.spool.reported(sequence, &Ok(written(7)));
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["3", "2"]);
    assert!(
        matches!(running.state(sequence).await, ReceiptState::Written(receipt) if receipt.offset == Some(7))
    );
    assert!(running.is_free("k"));
}

/// A record that is held, and one behind it, once the held one's report has said `error`.
async fn released_by(error: Error) {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let held = running.hold(&keyed("k", 1)).await;
    let behind = running.store(&[keyed("k", 2)]).await;
    running.spool.reported(held, &Err(error));
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "2"]);
    assert_eq!(running.declared(), [Some(held), Some(behind)]);
    assert!(matches!(running.state(held).await, ReceiptState::Written(_)));
    assert!(running.is_free("k"));
}

/// `RD_KAFKA_MSG_STATUS_NOT_PERSISTED`, which `kafka/error.rs` reads so.
#[tokio::test]
async fn a_held_record_that_kafka_did_not_take_is_sent_before_those_behind_it() {
    released_by(Error::BrokerUnavailable { reason: "as a test".into() }).await;
}

/// `RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED`.
#[tokio::test]
async fn a_held_record_that_kafka_may_have_taken_is_sent_as_a_declared_duplicate() {
    released_by(Error::AcknowledgementLost { reason: "as a test".into() }).await;
}

#[tokio::test]
async fn a_report_that_comes_before_the_disk_has_the_record_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let (record, sequence) = (keyed("k", 1), running.spool.next_sequences(1));
    let keeping = running.spool.keep(&[Attempted { record: &record, sequence, partition: 0, is_held: true }]);
    running.spool.reported(sequence, &Ok(written(3)));
    keeping.await.unwrap();
    running.wait_until_empty().await;
    assert!(running.sent().is_empty());
    assert!(running.is_free("k"));
}
