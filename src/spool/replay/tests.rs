//! What the replay holds in memory, step by step.

use super::*;
use crate::{
    lifecycle::supervisor::Supervisor,
    produce::{
        InstanceId, Record,
        fake::{FakeProducer, Step, record},
    },
    spool::{Change, Encoded, Settings, codec},
};
use std::{sync::atomic::AtomicU64, time::SystemTime};

struct Stepped {
    replay: Replay,
    messages: mpsc::UnboundedReceiver<Message>,
    store: Arc<Store>,
    _supervisor: Supervisor,
    _directory: tempfile::TempDir,
}

fn stepped(producer: &Arc<FakeProducer>, dead_letter_topic: Option<&str>) -> Stepped {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(
        Store::open(directory.path(), &InstanceId::parse("here").unwrap(), SystemTime::now()).unwrap(),
    );
    let settings =
        Settings { max_bytes: u64::MAX, receipt_max_bytes: u64::MAX, receipt_ttl: Duration::from_secs(3600) };
    let supervisor = Supervisor::new();
    let sequences = Arc::new(AtomicU64::new(store.first_sequence().0));
    let writer =
        Writer::start(Arc::clone(&store), sequences, settings, Box::new(|_| {}), &supervisor.alarm());
    let metrics = Arc::new(Metrics::for_tests());
    let (replay, _, messages) = Replay::new(Parts {
        producer: producer.clone(),
        store: Arc::clone(&store),
        writer: Arc::new(writer.unwrap()),
        lines: Arc::default(),
        lanes: Arc::default(),
        pace: Arc::default(),
        max_in_flight_bytes: 1 << 20,
        dead_letter_topic: dead_letter_topic.map(|topic| DeadLetterTopic::parse(topic).unwrap()),
        delivery_timeout: Duration::from_secs(60),
        max_record_bytes: 2000,
        spool_metrics: metrics.spool(1 << 30).unwrap(),
        metrics,
    });
    Stepped { replay, messages, store, _supervisor: supervisor, _directory: directory }
}

impl Stepped {
    /// Puts chunks of `count` records each into the store.
    fn put(&self, chunks: u64, count: u32, record: impl Fn(u64) -> Record) {
        for place in 0..chunks {
            let first = place * u64::from(count);
            let encoded: Encoded =
                (first..first + u64::from(count)).map(&record).collect::<Vec<_>>().iter().collect();
            let bytes: Vec<u8> = encoded.records().flatten().copied().collect();
            let insert = vec![(Sequence(first), codec::chunk(1, count, &bytes))];
            self.store.commit(&Change { insert, ..Change::default() }).unwrap();
        }
    }

    /// As `Replay::run`; False where nothing has happened for a while.
    async fn step(&mut self) -> bool {
        let replay = &mut self.replay;
        replay.send_what_is_read();
        replay.refuse_next();
        replay.commit_settled();
        replay.read_on();
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => replay.hear(message, Instant::now()),
            finished = replay.commits.next() => replay.committed(finished),
            read = replay.reading.done() => replay.read(read),
            Some((topic, answer)) = replay.look_ups.next() => replay.looked_up(topic, answer),
            refused = replay.refusals.next() => replay.refused(refused),
            () = tokio::time::sleep(Duration::from_millis(300)) => {
                replay.take_turn();
                return false;
            }
        }
        true
    }
}

/// No topic has this partition.
fn refused(_: u64) -> Record {
    Record { partition: Some(99), ..record("a") }
}

#[tokio::test]
async fn no_more_is_read_while_many_refused_records_wait_for_their_dead_letters() {
    let producer = FakeProducer::with_topics(&["a", "dlq"]);
    (0..64).for_each(|_| _ = producer.then(Step::Held));
    let mut stepped = stepped(&producer, Some("dlq"));
    stepped.put(100, 100, refused);
    while stepped.step().await {}
    let open = stepped.replay.refusals.count();
    assert!((4000..=4200).contains(&open), "{open}");
    assert!(stepped.replay.window.keys().len() <= 42);
    producer.report_held(&Ok(crate::produce::Written { partition: 0, offset: Some(7), append_time: None }));
    while stepped.store.records() > 0 {
        stepped.step().await;
        assert!(stepped.replay.refusals.count() <= 4200);
    }
    assert_eq!((stepped.store.failed_records(), producer.sent().len()), (0, 10_000));
    assert_eq!(stepped.replay.refusals.count(), 0);
}

#[tokio::test]
async fn no_more_is_sent_while_many_results_are_not_committed() {
    let mut stepped = stepped(&FakeProducer::with_topics(&["a"]), None);
    stepped.put(300, 100, refused);
    // as a disk that takes long
    stepped.replay.commits.wait_until(Instant::now() + Duration::from_secs(3600));
    while stepped.step().await {}
    let open = stepped.replay.window.keys().len();
    assert!(open < 200, "{open} chunks");
    stepped.replay.commits.wait_until(Instant::now());
    while stepped.store.records() > 0 {
        stepped.step().await;
    }
    assert_eq!(stepped.store.failed_records(), 30_000);
}

#[tokio::test]
async fn topics_that_are_many_are_asked_for_in_turn_and_none_is_in_trouble_for_it() {
    let producer = FakeProducer::with_topics(&[]);
    (0..200).for_each(|number| producer.add_unknown_topic(&format!("t{number}")));
    // requests have others asked for
    *producer.look_ups_at_once.lock().unwrap() = Some(5);
    let mut stepped = stepped(&producer, None);
    stepped.put(20, 100, |number| record(&format!("t{}", number % 200)));
    while stepped.store.records() > 0 {
        stepped.step().await;
        stepped.replay.take_turn();
        let has_failed = stepped.replay.troubles.has_failed();
        assert!(!has_failed, "a topic waits, though Kafka was not asked for it");
    }
    assert_eq!(producer.sent().len(), 2000);
}

#[tokio::test]
async fn what_is_read_behind_a_record_that_has_moved_meanwhile_is_sent() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    let line = stepped.replay.parts.lines.of("a", Some(b"k")).unwrap();
    stepped.replay.parts.lines.join(line);
    // one of its line was under way when the reading began, and its report came before what is behind it was read
    stepped.replay.passed_over.lines.insert(line);
    stepped.replay.passed_over.is_due = true;
    stepped.put(1, 1, |_| Record { key: Some("k".into()), ..record("a") });
    while stepped.step().await {}
    assert_eq!((producer.sent().len(), stepped.store.records()), (1, 0));
}

#[tokio::test]
async fn what_is_passed_over_is_looked_at_again_where_nothing_is_under_way() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    let line = stepped.replay.parts.lines.of("a", Some(b"k")).unwrap();
    stepped.replay.parts.lines.join(line);
    stepped.replay.passed_over.lines.insert(line);
    stepped.put(1, 1, |_| Record { key: Some("k".into()), ..record("a") });
    while stepped.step().await {}
    assert_eq!(producer.sent().len(), 0, "it waits in its line");
    while stepped.store.records() > 0 {
        stepped.step().await;
    }
    assert_eq!(producer.sent().len(), 1);
}

/// A line of two records, of which the first is what is left of a chunk that closes.
fn closing(stepped: &mut Stepped) {
    let lines = &stepped.replay.parts.lines;
    let line = lines.of("a", Some(b"k")).unwrap();
    (0..2).for_each(|_| lines.join(line));
    let numbered = |number: u64| Some(number.to_string().into());
    stepped.put(2, 1, |number| Record { key: Some("k".into()), value: numbered(number), ..record("a") });
    let waiting = State::Waiting(Waiting { line: Some(line), obstacle: None });
    stepped.replay.window.insert(Sequence(0), window::OpenChunk::new(vec![(0, waiting)]));
    stepped.replay.commits.add(Sequence(0), 1);
    stepped.replay.commit_settled();
}

async fn close(stepped: &mut Stepped) {
    let committed = stepped.replay.commits.next().await;
    stepped.replay.committed(committed);
}

async fn read(stepped: &mut Stepped) {
    let read = stepped.replay.reading.done().await;
    stepped.replay.read(read);
}

/// Both are sent, in their order, without being looked at again for no reason.
async fn both_are_sent(mut stepped: Stepped, producer: &FakeProducer) {
    while stepped.step().await {}
    let values: Vec<_> = producer.sent().into_iter().map(|(record, _)| record.value.unwrap()).collect();
    assert_eq!(values, ["0", "1"]);
    assert_eq!(stepped.store.records(), 0);
}

#[tokio::test]
async fn what_is_left_of_a_chunk_comes_before_what_is_behind_it_where_it_closes_before_a_reading() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    closing(&mut stepped);
    close(&mut stepped).await;
    both_are_sent(stepped, &producer).await;
}

#[tokio::test]
async fn what_is_left_of_a_chunk_comes_before_what_is_behind_it_where_it_closes_during_a_reading() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    closing(&mut stepped);
    stepped.replay.read_on();
    close(&mut stepped).await;
    read(&mut stepped).await;
    both_are_sent(stepped, &producer).await;
}

#[tokio::test]
async fn what_is_left_of_a_chunk_comes_before_what_is_behind_it_where_it_closes_after_a_reading() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    closing(&mut stepped);
    stepped.replay.read_on();
    read(&mut stepped).await;
    close(&mut stepped).await;
    both_are_sent(stepped, &producer).await;
}

#[tokio::test]
async fn a_chunk_that_is_committed_holds_up_nothing_that_comes_before_it() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    let line = stepped.replay.parts.lines.of("a", Some(b"k")).unwrap();
    (0..2).for_each(|_| stepped.replay.parts.lines.join(line));
    stepped.put(2, 1, |_| Record { key: Some("k".into()), ..record("a") });
    // the second is of a chunk that closes after the reading has begun again at the first
    let waiting = State::Waiting(Waiting { line: Some(line), obstacle: None });
    stepped.replay.window.insert(Sequence(1), window::OpenChunk::new(vec![(0, waiting)]));
    stepped.replay.commits.add(Sequence(1), 1);
    stepped.replay.commit_settled();
    close(&mut stepped).await;
    while stepped.step().await {}
    assert_eq!((producer.sent().len(), stepped.store.records()), (2, 0));
}

#[tokio::test]
async fn commits_during_a_reading_do_not_begin_again_at_what_is_stuck() {
    let producer = FakeProducer::with_topics(&["a"]);
    let mut stepped = stepped(&producer, None);
    let value = Some(bytes::Bytes::from(vec![0; 1000]));
    let topic = |number| if number < 60 { "missing" } else { "a" };
    stepped.put(200, 60, |number| Record { value: value.clone(), ..record(topic(number)) });
    let mut rewinds = HashSet::new();
    while stepped.store.records() > 60 {
        stepped.step().await;
        rewinds.extend(stepped.replay.passed_over.last_rewind);
    }
    assert_eq!(producer.sent().len(), 199 * 60);
    assert!(rewinds.is_empty(), "{} times", rewinds.len());
}
