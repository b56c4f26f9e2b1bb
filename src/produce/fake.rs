//! A producer that does what a test tells it to.

use super::{
    Ack, AutomaticHeaders, Batching, Error, Outgoing, Producer, Record, Topic, TopicConfig, TopicLookup,
    TopicName, Written,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

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
    topics: Mutex<HashMap<TopicName, Arc<Topic>>>,
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
        let topic = Arc::new(Topic { name: name.clone(), partitions: 3, learned: Instant::now(), config });
        self.topics.lock().unwrap().insert(name, topic);
    }

    pub fn then(&self, step: Step) -> &Self {
        self.steps.lock().unwrap().push_back(step);
        self
    }

    /// Every record that was enqueued, in order.
    pub fn sent(&self) -> Vec<(Record, Batching)> {
        self.sent.lock().unwrap().clone()
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

    fn known_topic(&self, name: &TopicName) -> Option<Result<Arc<Topic>, Error>> {
        self.topics.lock().unwrap().get(name).cloned().map(Ok)
    }

    fn look_up_topic<'a>(&'a self, name: &'a TopicName) -> TopicLookup<'a> {
        let answer = self.known_topic(name).unwrap_or_else(|| Err(Error::UnknownTopic(name.clone())));
        Box::pin(std::future::ready(answer))
    }

    fn enqueue(&self, records: &mut dyn Iterator<Item = Outgoing>, batching: Batching) {
        records.for_each(|outgoing| self.play(batching, outgoing));
    }
}

impl FakeProducer {
    fn play(&self, batching: Batching, outgoing: Outgoing) {
        let offset = self.sent.lock().unwrap().len();
        self.sent.lock().unwrap().push((outgoing.record().clone(), batching));
        let partition = outgoing.record().partition.unwrap_or(0);
        let (_, ack) = outgoing.into_parts();
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
