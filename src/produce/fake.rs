//! A producer that does what a test tells it to.

use super::{
    Ack, Attempted, AutomaticHeaders, Batching, Error, InstanceId, Outgoing, Producer, ReceiptId,
    ReceiptState, Record, Report, Sequence, Spool, SpoolFuture, Topic, TopicConfig, TopicLookup, TopicName,
    Turn, Written,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::ready,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// A record of now, without key or headers.
pub fn record(topic: &str) -> Record {
    Record {
        topic: TopicName::parse(topic).unwrap(),
        partition: None,
        key: None,
        value: Some(Bytes::from_static(b"{}")),
        headers: Vec::new(),
        automatic: Arc::new(AutomaticHeaders::default()),
        timestamp: jiff::Timestamp::now().as_millisecond(),
        receipt: None,
    }
}

/// Where the producer of these tests sends the record: the sender's partition, or one of three by the key's first byte.
pub fn partition(record: &Record) -> i32 {
    let by_key = || record.key.as_ref()?.first().map(|first| i32::from(first % 3));
    record.partition.or_else(by_key).unwrap_or(0)
}

/// What happens to the next record that is enqueued.
pub enum Step {
    Written,
    Fails(Error),
    /// No report until [`FakeProducer::release`].
    Held,
}

/// Knows the topics it is given, three partitions each, and plays its steps. Without one, a record is written, or
/// fails once more where it is sent again alone.
#[derive(Default)]
pub struct FakeProducer {
    pub unavailable: Mutex<Option<Error>>,
    /// A bug: the next request panics.
    pub panics: AtomicBool,
    pub generation: AtomicU64,
    topics: Mutex<HashMap<TopicName, Arc<Topic>>>,
    /// These exist, but are not known before they were looked up.
    unknown: Mutex<HashMap<TopicName, Arc<Topic>>>,
    /// So many may be looked up at once, where that is bounded.
    pub look_ups_at_once: Mutex<Option<usize>>,
    looked_up: AtomicU64,
    steps: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<(Record, Batching)>>,
    last_failure: Mutex<Option<Error>>,
    held: Mutex<Vec<Ack>>,
}

impl FakeProducer {
    pub fn with_topics(names: &[&str]) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        names.iter().for_each(|name| fake.add_topic(name, None));
        fake
    }

    pub fn add_topic(&self, name: &str, config: Option<TopicConfig>) {
        let name = TopicName::parse(name).unwrap();
        let topic = Arc::new(Topic { config, ..Topic::new(name.clone(), 3) });
        self.topics.lock().unwrap().insert(name, topic);
    }

    /// The topic exists, but is not known before it was looked up.
    pub fn add_unknown_topic(&self, name: &str) {
        self.add_topic(name, None);
        let (name, topic) =
            self.topics.lock().unwrap().remove_entry(&TopicName::parse(name).unwrap()).unwrap();
        self.unknown.lock().unwrap().insert(name, topic);
    }

    async fn look_up(&self, name: &TopicName) -> Result<Arc<Topic>, Error> {
        let limit = *self.look_ups_at_once.lock().unwrap();
        if limit.is_some_and(|limit| self.looked_up.fetch_add(1, Relaxed) >= limit as u64) {
            self.looked_up.fetch_sub(1, Relaxed);
            return Err(Error::TooManyLookUps(name.clone()));
        }
        if limit.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.looked_up.fetch_sub(1, Relaxed);
        }
        if let Some((name, topic)) = self.unknown.lock().unwrap().remove_entry(name) {
            self.topics.lock().unwrap().insert(name, topic);
        }
        self.known_topic(name).unwrap_or_else(|| Err(Error::UnknownTopic(name.clone())))
    }

    pub fn then(&self, step: Step) -> &Self {
        self.steps.lock().unwrap().push_back(step);
        self
    }

    /// Every record that was enqueued, in order.
    pub fn sent(&self) -> Vec<(Record, Batching)> {
        self.sent.lock().unwrap().clone()
    }

    /// Reports on every record that was held.
    pub fn report_held(&self, report: &Report) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter().for_each(|ack| ack.report(report.clone(), Instant::now()));
    }

    /// Forgets the acks that were held, as a producer does that is closed.
    pub fn release(&self) {
        self.held.lock().unwrap().clear();
    }
}

impl Producer for FakeProducer {
    fn unavailable(&self) -> Option<Error> {
        assert!(!self.panics.load(Relaxed), "as a test");
        self.unavailable.lock().unwrap().clone()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn known_topic(&self, name: &TopicName) -> Option<Result<Arc<Topic>, Error>> {
        self.topics.lock().unwrap().get(name).cloned().map(Ok)
    }

    fn look_up_topic<'a>(&'a self, name: &'a TopicName, _: Turn) -> TopicLookup<'a> {
        Box::pin(self.look_up(name))
    }

    fn partition(&self, record: &Record, _: &Topic, _: Instant) -> i32 {
        partition(record)
    }

    fn enqueue(&self, records: &mut dyn Iterator<Item = Outgoing>, batching: Batching) {
        records.for_each(|outgoing| self.play(batching, outgoing));
    }
}

impl FakeProducer {
    fn play(&self, batching: Batching, outgoing: Outgoing) {
        let offset = self.sent.lock().unwrap().len();
        self.sent.lock().unwrap().push((outgoing.record().clone(), batching));
        let partition = outgoing.partition();
        let ack = outgoing.into_ack();
        let step = self.steps.lock().unwrap().pop_front();
        let again = || self.last_failure.lock().unwrap().clone().filter(|_| batching == Batching::Alone);
        match step.or_else(|| again().map(Step::Fails)).unwrap_or(Step::Written) {
            Step::Written => ack.report(
                Ok(Written { partition, offset: i64::try_from(offset).ok(), append_time: None }),
                Instant::now(),
            ),
            Step::Fails(error) => {
                *self.last_failure.lock().unwrap() = Some(error.clone());
                ack.report(Err(error), Instant::now());
            }
            Step::Held => self.held.lock().unwrap().push(ack),
        }
    }
}

/// Keeps what it is given in memory, where it is pending until it is resolved. The lines of records with a key in `waiting` are taken.
#[derive(Default)]
pub struct FakeSpool {
    pub waiting: Mutex<HashSet<Bytes>>,
    pub is_full: AtomicBool,
    pub is_too_old: AtomicBool,
    /// The disk never comes to an end.
    pub hangs: AtomicBool,
    sequence: AtomicU64,
    /// In the order in which it was given: the sequence, the record, and whether the producer had it.
    pub stored: Mutex<Vec<(Sequence, Record, bool)>>,
    pub reported: Mutex<Vec<(Sequence, Report)>>,
    /// How long it might have taken, of each time that something was stored.
    pub patience: Mutex<Vec<Duration>>,
    /// Why no receipt can be told.
    pub unreadable: Mutex<Option<Error>>,
    /// How often a receipt was asked for.
    pub asked: AtomicU64,
    /// The ids that it gave while it was called otherwise.
    pub earlier: Mutex<Vec<ReceiptId>>,
    receipts: Mutex<HashMap<Sequence, ReceiptState>>,
    resolved: Notify,
}

impl FakeSpool {
    /// From now on this is what became of the record, and who waits for it learns it.
    pub fn resolve(&self, sequence: Sequence, state: ReceiptState) {
        self.receipts.lock().unwrap().insert(sequence, state);
        self.resolved.notify_waiters();
    }

    fn state(&self, sequence: Sequence) -> ReceiptState {
        let told = self.receipts.lock().unwrap().get(&sequence).cloned();
        let is_stored = || self.stored.lock().unwrap().iter().any(|(stored, ..)| *stored == sequence);
        told.unwrap_or_else(|| if is_stored() { ReceiptState::Pending } else { ReceiptState::Unknown })
    }

    fn done<'a, T: Send + 'a>(&self, result: T) -> SpoolFuture<'a, T> {
        if self.hangs.load(Relaxed) { Box::pin(std::future::pending()) } else { Box::pin(ready(result)) }
    }

    fn full(&self) -> Result<(), Error> {
        let full = || Error::SpoolFull { reason: "as a test".into() };
        if self.is_full.load(Relaxed) { Err(full()) } else { Ok(()) }
    }
}

impl Spool for FakeSpool {
    fn instance(&self) -> &InstanceId {
        static INSTANCE: LazyLock<InstanceId> = LazyLock::new(|| InstanceId::parse("here").unwrap());
        &INSTANCE
    }

    fn gave(&self, id: &ReceiptId) -> bool {
        let earlier = self.earlier.lock().unwrap();
        let at_that_time = earlier.iter().find(|earlier| earlier.sequence == id.sequence);
        at_that_time.map_or(id.instance == *self.instance(), |earlier| earlier == id)
    }

    fn next_sequences(&self, count: usize) -> Sequence {
        Sequence(self.sequence.fetch_add(count as u64, Relaxed))
    }

    fn joins_line(&self, record: &Record, _: i32) -> bool {
        record.key.as_ref().is_some_and(|key| self.waiting.lock().unwrap().contains(key))
    }

    fn join_line(&self, record: &Record) {
        self.waiting.lock().unwrap().extend(record.key.clone());
    }

    fn store<'a>(
        &'a self,
        records: &mut dyn ExactSizeIterator<Item = &Record>,
        patience: Duration,
    ) -> SpoolFuture<'a, Result<Sequence, Error>> {
        self.patience.lock().unwrap().push(patience);
        let first = self.next_sequences(records.len());
        let stored = (first.0..).zip(records).map(|(at, record)| (Sequence(at), record.clone(), false));
        let stored = self.full().map(|()| self.stored.lock().unwrap().extend(stored));
        self.done(stored.map(|()| first))
    }

    fn refusal(&self, _: usize) -> Option<Error> {
        let too_old = || Error::SpoolFull { reason: "its oldest record, as a test".into() };
        self.is_too_old.load(Relaxed).then(too_old)
    }

    fn keep<'a>(&'a self, attempted: &[Attempted<'_>]) -> SpoolFuture<'a, Result<(), Error>> {
        let kept = attempted.iter().map(|kept| (kept.sequence, kept.record.clone(), kept.is_held));
        self.done(self.full().map(|()| self.stored.lock().unwrap().extend(kept)))
    }

    fn reported(&self, sequence: Sequence, report: &Report) {
        self.reported.lock().unwrap().push((sequence, report.clone()));
    }

    fn receipt(
        &self,
        sequence: Sequence,
        patience: Duration,
    ) -> SpoolFuture<'_, Result<ReceiptState, Error>> {
        Box::pin(async move {
            if let Some(error) = self.unreadable.lock().unwrap().clone() {
                return Err(error);
            }
            // it hears of what is resolved from here on
            let resolved = self.resolved.notified();
            self.asked.fetch_add(1, Relaxed);
            if self.state(sequence) == ReceiptState::Pending {
                // who waits in vain learns that it is pending still
                let _ = timeout(patience, resolved).await;
            }
            Ok(self.state(sequence))
        })
    }
}
