//! What the spool promises, against a producer that is told what to do and a store on the disk.

mod dropped;
mod held;
mod refused;

use super::{disk::Parts, *};
use crate::{
    config,
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{
        Attempted, Batching, DeadLetter, DeadLetterTopic, Error, InstanceId, ReceiptState, Record, Sequence,
        Spool, TopicConfig, TopicName, Written,
        fake::{self, FakeProducer, Step, record},
    },
    telemetry::metrics::Metrics,
};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

/// What a client waits.
const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    producer: Arc<FakeProducer>,
    spool: Arc<DiskSpool>,
    _supervisor: Supervisor,
}

fn start(directory: &Path, producer: &Arc<FakeProducer>) -> Running {
    start_with(directory, producer, |_| {})
}

fn start_with(
    directory: &Path,
    producer: &Arc<FakeProducer>,
    change: impl FnOnce(&mut config::Spool),
) -> Running {
    start_patient(directory, producer, Duration::from_secs(5), change)
}

fn start_patient(
    directory: &Path,
    producer: &Arc<FakeProducer>,
    delivery_timeout: Duration,
    change: impl FnOnce(&mut config::Spool),
) -> Running {
    let mut settings = config::Spool {
        directory: directory.to_owned(),
        max_bytes: 1 << 30,
        max_age: None,
        receipt_max_bytes: 1 << 20,
        receipt_ttl: Duration::from_secs(60),
        dead_letter_topic: None,
    };
    change(&mut settings);
    let metrics = Arc::new(Metrics::for_tests());
    let mut supervisor = Supervisor::new();
    let parts = Parts {
        producer: producer.clone(),
        max_in_flight_bytes: 1 << 20,
        delivery_timeout,
        max_record_bytes: 2000,
        readiness: Readiness::new(),
        spool_metrics: metrics.spool(settings.max_bytes).unwrap(),
        metrics,
        settings,
    };
    let store = open(directory);
    let spool = DiskSpool::start(store, parts, &mut supervisor).unwrap();
    Running { producer: producer.clone(), spool, _supervisor: supervisor }
}

/// The tasks of an earlier run end in a moment.
fn open(directory: &Path) -> Store {
    let start = Instant::now();
    loop {
        match Store::open(directory, &InstanceId::parse("here").unwrap(), SystemTime::now()) {
            Err(OpenError::Locked(_)) if start.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn keyed(key: &'static str, value: impl ToString) -> Record {
    Record { key: Some(key.into()), value: Some(value.to_string().into()), ..record("a") }
}

fn away() -> Error {
    Error::NotReady { reason: "as a test".into() }
}

fn written(offset: i64) -> Written {
    Written { partition: 1, offset: Some(offset), append_time: None }
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Running {
    fn is_away(&self, is_away: bool) {
        *self.producer.unavailable.lock().unwrap() = is_away.then(away);
    }

    /// Stores records that were not attempted.
    async fn store(&self, records: &[Record]) -> Sequence {
        records.iter().for_each(|record| self.spool.join_line(record));
        self.spool.store(&mut records.iter(), PATIENCE).await.unwrap()
    }

    /// Stores a record whose place in line is taken.
    async fn store_one(&self, record: &Record) -> Result<Sequence, Error> {
        self.spool.store(&mut [record].into_iter(), PATIENCE).await
    }

    /// Stores a record that the producer has.
    async fn hold(&self, record: &Record) -> Sequence {
        let sequence = self.spool.next_sequences(1);
        let partition = fake::partition(record);
        self.spool.keep(&[Attempted { record, sequence, partition, is_held: true }]).await.unwrap();
        sequence
    }

    /// Whether each record that was sent said that it may be a duplicate, and of which receipt, in order.
    fn declared(&self) -> Vec<Option<Sequence>> {
        let declared = |record: &Record| {
            record.receipt.as_ref().filter(|receipt| receipt.replayed).map(|receipt| receipt.id.sequence)
        };
        self.producer.sent().iter().map(|(record, _)| declared(record)).collect()
    }

    /// The values that were sent, in order.
    fn sent(&self) -> Vec<String> {
        let value = |record: &Record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        self.producer.sent().iter().map(|(record, _)| value(record)).collect()
    }

    async fn state(&self, sequence: Sequence) -> ReceiptState {
        self.spool.receipt(sequence, Duration::ZERO).await.unwrap()
    }

    async fn wait_until_empty(&self) {
        eventually("the spool is empty", async || self.spool.records() == 0).await;
    }

    /// Whether a record with the key may be sent past the spool.
    fn is_free(&self, key: &'static str) -> bool {
        !self.spool.is_waited_behind(&keyed(key, ""))
    }
}

#[tokio::test]
async fn what_is_stored_is_sent_in_order_and_named_a_replay() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.is_away(true);
    let first = running.store(&[keyed("k", 1), keyed("l", 2)]).await;
    running.store(&[keyed("k", 3)]).await;
    assert!(!running.is_free("k"));
    assert_eq!(running.state(first).await, ReceiptState::Pending);
    running.is_away(false);
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "2", "3"]);
    let receipt = running.producer.sent()[0].0.receipt.clone().unwrap();
    assert_eq!((receipt.id.sequence, receipt.replayed), (first, true));
    assert!(
        matches!(running.state(first).await, ReceiptState::Written(receipt) if receipt.offset == Some(0))
    );
    assert!(running.is_free("k"));
}

#[tokio::test]
async fn a_receipt_can_be_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.is_away(true);
    let sequence = running.store(&[record("a")]).await;
    let waiting = running.spool.receipt(sequence, Duration::from_secs(20));
    let coming_back = async { running.is_away(false) };
    let (state, ()) = tokio::join!(waiting, coming_back);
    assert!(matches!(state.unwrap(), ReceiptState::Written(_)));
    assert_eq!(running.state(Sequence(7)).await, ReceiptState::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_sends_what_is_left_and_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a"]);
    let running = start(directory.path(), &producer);
    running.is_away(true);
    let first = running.store(&[keyed("k", 1), keyed("k", 2)]).await;
    assert_eq!(running.spool.close().await, 2);
    drop(running);
    let running = start(directory.path(), &producer);
    assert!(!running.is_free("k"), "its line is counted anew");
    assert!(running.spool.next_sequences(1) > Sequence(first.0 + 1));
    running.is_away(false);
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "2"]);
}

#[tokio::test]
async fn a_missing_topic_holds_up_its_own_records_alone() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.is_away(true);
    let missing = Record { key: Some("k".into()), value: Some("missing".into()), ..record("none") };
    let sequence = running.store(&[missing, keyed("k", 1)]).await;
    running.store(&[keyed("k", 2)]).await;
    running.is_away(false);
    eventually("the others are sent", async || running.spool.records() == 1).await;
    assert_eq!(running.sent(), ["1", "2"]);
    assert_eq!(running.state(sequence).await, ReceiptState::Pending);
    assert!(matches!(running.state(Sequence(sequence.0 + 1)).await, ReceiptState::Written(_)));
    running.producer.add_topic("none", None);
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "2", "missing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_does_not_send_again_what_was_written_of_a_chunk_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a"]);
    let running = start(directory.path(), &producer);
    running.is_away(true);
    running.store(&[record("none"), keyed("k", 1)]).await;
    running.is_away(false);
    eventually("one is left", async || running.spool.records() == 1).await;
    assert_eq!(running.spool.close().await, 1);
    drop(running);
    producer.add_topic("none", None);
    let running = start(directory.path(), &producer);
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "{}"]);
}

#[tokio::test]
async fn a_record_that_is_denied_keeps_its_place_in_line() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a", "b"]));
    let denied = Error::Unauthorized(TopicName::parse("a").unwrap());
    running.producer.then(Step::Fails(denied));
    running.store(&[keyed("k", 1)]).await;
    eventually("it is tried", async || running.sent().len() == 1).await;
    running.store(&[keyed("k", 2), Record { value: Some("b".into()), ..record("b") }]).await;
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "b", "1", "2"]);
}

#[tokio::test]
async fn nothing_is_sent_by_a_new_client_before_the_old_one_has_reported() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.producer.then(Step::Held);
    running.store(&[keyed("k", 1)]).await;
    eventually("it is under way", async || running.sent() == ["1"]).await;
    running.producer.generation.fetch_add(1, Relaxed);
    running.store(&[keyed("k", 2)]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.sent(), ["1"]);
    running.producer.report_held(&Err(Error::AcknowledgementLost { reason: "as a test".into() }));
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "1", "2"]);
    assert!(running.declared().iter().all(Option::is_some), "{:?}", running.declared());
}

#[tokio::test]
async fn a_record_that_failed_for_its_neighbours_is_sent_again_alone() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.producer.then(Step::Fails(Error::NeighbourRejected)).then(Step::Written);
    running.store(&[keyed("k", 1)]).await;
    running.wait_until_empty().await;
    let batching: Vec<_> = running.producer.sent().iter().map(|(_, batching)| *batching).collect();
    assert_eq!(batching, [Batching::Shared, Batching::Alone]);
}

#[tokio::test]
async fn nothing_overtakes_a_record_that_is_sent_alone() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.producer.then(Step::Fails(Error::NeighbourRejected)).then(Step::Held);
    running.store(&[keyed("k", 1)]).await;
    eventually("it is sent alone", async || running.sent() == ["1", "1"]).await;
    running.store(&[keyed("k", 2), keyed("l", 3)]).await;
    eventually("the other line goes on", async || running.sent().len() == 3).await;
    // any change for the better has everything looked at again
    let other = running.hold(&keyed("m", 4)).await;
    running.spool.reported(other, &Ok(written(9)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.sent(), ["1", "1", "3"]);
    running.producer.report_held(&Ok(written(1)));
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1", "1", "3", "2"]);
}

#[tokio::test]
async fn an_old_record_keeps_new_ones_out_and_itself_in() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a"]);
    let running =
        start_with(directory.path(), &producer, |settings| settings.max_age = Some(Duration::from_millis(1)));
    running.is_away(true);
    running.store(&[keyed("k", 1)]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let refused = running.store_one(&record("a")).await.unwrap_err();
    assert_eq!(refused.tag(), "spool_full");
    assert!(refused.to_string().contains("SPOOL_MAX_AGE"), "{refused}");
    assert_eq!(running.spool.refusal(1), Some(refused));
    running.is_away(false);
    running.wait_until_empty().await;
    assert_eq!(running.sent(), ["1"]);
    assert_eq!(running.spool.refusal(1), None);
}

#[tokio::test]
async fn a_line_is_free_again_where_its_record_could_not_be_stored() {
    let directory = tempfile::tempdir().unwrap();
    let producer = FakeProducer::with_topics(&["a"]);
    let running = start_with(directory.path(), &producer, |settings| settings.max_bytes = 10);
    let record = keyed("k", 1);
    running.spool.join_line(&record);
    assert_eq!(running.store_one(&record).await.unwrap_err().tag(), "spool_full");
    assert!(running.is_free("k"));
    let sequence = running.spool.next_sequences(1);
    let attempted = [Attempted { record: &record, sequence, partition: 0, is_held: true }];
    assert_eq!(running.spool.keep(&attempted).await.unwrap_err().tag(), "spool_full");
    eventually("the line is free", async || running.is_free("k")).await;
}

#[tokio::test]
async fn what_is_sent_first_refuses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    let record = keyed("k", 1);
    running.spool.pace().turn(1, 1_000_000);
    running.spool.pace().counts(1000);
    running.spool.join_line(&record);
    running.spool.store(&mut [&record].into_iter(), Duration::ZERO).await.unwrap();
    running.wait_until_empty().await;
}

#[tokio::test]
async fn a_backlog_of_many_chunks_is_sent_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), &FakeProducer::with_topics(&["a"]));
    running.is_away(true);
    let keys = ["k", "l", "m"];
    let records: Vec<_> = (0..9000).map(|number| keyed(keys[number % 3], number)).collect();
    for records in records.chunks(1000) {
        running.store(records).await;
    }
    running.is_away(false);
    running.wait_until_empty().await;
    let sent: Vec<usize> = running.sent().iter().map(|value| value.parse().unwrap()).collect();
    for rest in 0..3 {
        let of_key: Vec<_> = sent.iter().filter(|number| **number % 3 == rest).collect();
        assert!(of_key.is_sorted() && of_key.len() == 3000, "{}", of_key.len());
    }
}
