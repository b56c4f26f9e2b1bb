//! What the pipeline needs of Kafka. The adapter in `crate::kafka` is the real one; tests script their own.

use super::{Error, Outgoing, Record, Topic, TopicName};
use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

/// Whether a record may share a Kafka record batch with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    Shared,
    /// For a record that failed only because of its neighbours in a batch.
    Alone,
}

/// When a topic is asked for that is not known yet, beside those of other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// One of the few first of its request.
    First,
    /// One of many of its request: after the first ones of all.
    Later,
}

/// What Kafka says of a topic, in a while.
pub type TopicLookup<'a> = Pin<Box<dyn Future<Output = Result<Arc<Topic>, Error>> + Send + 'a>>;

/// Takes records to Kafka and reports on each. Never blocks.
pub trait Producer: Send + Sync {
    /// Why nothing can be sent now; None while the link to Kafka is up.
    fn unavailable(&self) -> Option<Error>;

    /// Changes with each client that takes the place of one that is lost, together with records of it. Order is kept in
    /// spite of that only by who waits for all reports before handing over more.
    fn generation(&self) -> u64;

    /// What is known of the topic without asking Kafka: None where nothing is, an error where it is known
    /// not to exist.
    fn known_topic(&self, name: &TopicName) -> Option<Result<Arc<Topic>, Error>>;

    /// Asks Kafka. An error that is not [`Error::UnknownTopic`] says nothing about the topic's existence.
    fn look_up_topic<'a>(&'a self, name: &'a TopicName, turn: Turn) -> TopicLookup<'a>;

    /// The partition that the record goes to: the sender's choice, or that of its key, or for a record without one any
    /// that takes records as of `now`.
    fn partition(&self, record: &Record, topic: &Topic, now: Instant) -> i32;

    /// Hands the records over, in order for each partition, without waiting. Each gets exactly one report, also where
    /// the record is refused at once.
    fn enqueue(&self, records: &mut dyn Iterator<Item = Outgoing>, batching: Batching);
}
