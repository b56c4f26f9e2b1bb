//! What an operator drops of what waits.

use super::*;
use crate::spool::control;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// What the operator is answered.
async fn drop_waiting(directory: &Path, topic: &str) -> String {
    let mut stream = UnixStream::connect(control::socket(directory)).await.unwrap();
    stream.write_all(format!("{{\"drop_waiting\":\"{topic}\"}}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn mistyped() -> Record {
    Record { key: Some("k".into()), value: Some("mistyped".into()), ..record("none") }
}

#[tokio::test]
async fn what_waits_for_a_topic_is_dropped_and_the_others_are_sent_in_order() {
    for is_away in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
        running.is_away(true);
        let first = running.store(&[mistyped(), keyed("k", 1), mistyped(), keyed("k", 2)]).await;
        running.store(&[mistyped()]).await;
        running.is_away(is_away);
        let others = if is_away { 2 } else { 0 };
        if !is_away {
            eventually("the others are sent", async || running.spool.records() == 3).await;
        }
        let answer = drop_waiting(directory.path(), "none").await;
        assert_eq!(answer.matches("\"dropped\":{").count(), 3, "{answer}");
        assert!(
            answer.ends_with(&format!("{{\"end\":{{\"failed\":0,\"waiting\":{others}}}}}\n")),
            "{answer}"
        );
        let state = running.state(first).await;
        let ReceiptState::Failed(failure) = &state else { panic!("{state:?}") };
        assert_eq!((failure.error.as_str(), &failure.dead_letter), ("dropped", &None));
        assert!(failure.reason.contains("an operator dropped"), "{}", failure.reason);
        assert!(!running.spool.is_waited_behind(&mistyped()), "its line is free");
        running.producer.add_topic("none", None);
        running.is_away(false);
        running.wait_until_empty().await;
        assert_eq!(running.sent(), ["1", "2"]);
        running.store(&[mistyped(), keyed("k", 3)]).await;
        running.wait_until_empty().await;
        assert_eq!(running.sent(), ["1", "2", "mistyped", "3"]);
    }
}

#[tokio::test]
async fn who_waits_for_the_receipt_of_a_dropped_record_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let sequence = running.store(&[mistyped()]).await;
    let waiting = running.spool.receipt(sequence, Duration::from_secs(20));
    let (state, _) = tokio::join!(waiting, drop_waiting(directory.path(), "none"));
    assert!(matches!(state.unwrap(), ReceiptState::Failed(failure) if failure.error == "dropped"));
}

#[tokio::test]
async fn what_is_being_sent_is_not_dropped_which_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.producer.then(Step::Held);
    let sequence = running.store(&[keyed("k", 1)]).await;
    eventually("it is under way", async || running.sent() == ["1"]).await;
    let answer = drop_waiting(directory.path(), "a").await;
    assert!(answer.contains("are being sent; try again"), "{answer}");
    running.producer.report_held(&Ok(written(1)));
    running.wait_until_empty().await;
    assert!(matches!(running.state(sequence).await, ReceiptState::Written(_)));
    let answer = drop_waiting(directory.path(), "a").await;
    assert!(answer.contains("no record waits for this topic"), "{answer}");
}
