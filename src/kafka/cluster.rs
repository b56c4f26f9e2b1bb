//! The clients of this process: the two senders, and the prober that asks whether Kafka answers and which topics it has.

use super::{
    brokers::Brokers,
    client,
    context::{BrokerKind, Context, Event, Observed},
    flusher::Flusher,
    metadata::{AskCluster, Asked, Topics},
    native::describe::{Described, describe_topics},
    partitioner::Chooser,
    polled::{PolledProducer, StartError},
    sender::{self, Sender},
};
use crate::{
    config::{Kafka, Limits, REPORT_MARGIN},
    lifecycle::supervisor::Alarm,
    produce::{Error, TopicName},
};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    metadata::{Metadata, MetadataBroker, MetadataPartition},
    producer::Producer,
    types::RDKafkaErrorCode as Code,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Acquire},
    thread::Thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::mpsc};

/// For one question about metadata.
const ASK_TIMEOUT: Duration = Duration::from_millis(1500);
/// For a probe's first question. The prober gives a silent broker up after a second, and librdkafka looks once a
/// second: by then the second question goes to another broker.
const FIRST_PROBE_TIMEOUT: Duration = Duration::from_millis(2100);
/// For a probe's second question: with the first and the pause between probes, well below the 5 s in which a
/// lost broker must show.
const SECOND_PROBE_TIMEOUT: Duration = Duration::from_millis(1200);
/// Brokers that are asked about topics, one after the other, until one answers.
const MAX_ASKED: usize = 3;
/// The name of the right to write, as librdkafka spells it (`rd_kafka_AclOperation_name`).
const WRITE: &str = "WRITE";

pub struct Cluster {
    config: ClientConfig,
    parts: sender::Parts,
    prober: PolledProducer,
    brokers: Brokers,
    shared: Arc<Sender>,
    /// Made when a record must first be sent alone.
    alone: Mutex<Option<Arc<Sender>>>,
}

/// What the cluster works with.
pub struct Parts {
    pub events: mpsc::Sender<Event>,
    pub alarm: Alarm,
    pub topics: Arc<Topics>,
    pub flusher: Arc<Flusher>,
}

impl Cluster {
    /// Never waits for a broker.
    pub fn start(kafka: &Kafka, limits: &Limits, parts: Parts) -> Result<Arc<Self>, StartError> {
        let config = client::producer(kafka, limits)?;
        let batch_size = client::batch_size(&config);
        let parts = sender::Parts {
            runtime: Handle::current(),
            events: parts.events,
            observed: Arc::new(Observed::default()),
            alarm: parts.alarm,
            broker: if kafka.embedded { BrokerKind::Mock } else { BrokerKind::Kafka },
            topics: parts.topics,
            chooser: Arc::new(Chooser::new(kafka.partitioner, batch_size)),
            flusher: parts.flusher,
            // a quarter of the time is left to whoever is handed over at last, or nothing would be known of it either
            patience: (!kafka.never_gives_up)
                .then(|| kafka.delivery_timeout.saturating_sub(REPORT_MARGIN) * 3 / 4),
            generation: Arc::default(),
        };
        let explained = |error| match error {
            StartError::Settings(error) => StartError::Settings(error.explained(kafka)),
            StartError::Thread(error) => StartError::Thread(error),
        };
        let context =
            Context::new(parts.events.clone(), Arc::clone(&parts.observed), parts.broker, Arc::default());
        let prober = PolledProducer::start(&client::prober(kafka), context, &parts.alarm, &parts.runtime)
            .map_err(explained)?;
        let shared = Sender::start(config.clone(), batch_size, parts.clone()).map_err(explained)?;
        Ok(Arc::new(Self {
            config,
            parts,
            prober,
            brokers: Brokers::default(),
            shared,
            alone: Mutex::default(),
        }))
    }

    /// For records that share batches.
    pub fn shared(&self) -> &Arc<Sender> {
        &self.shared
    }

    /// Changes when records are lost with their client.
    pub fn generation(&self) -> u64 {
        self.parts.generation.load(Acquire)
    }

    /// For records each of which has a batch of its own.
    pub fn alone(&self) -> Result<Arc<Sender>, StartError> {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*alone {
            return Ok(Arc::clone(sender));
        }
        // its own, which nothing flushes: it has no linger
        let parts = sender::Parts { flusher: Arc::default(), ..self.parts.clone() };
        // a batch of one is as small as can be
        let sender = Sender::start(client::alone(&self.config), 0, parts)?;
        Ok(Arc::clone(alone.insert(sender)))
    }

    /// Both, as far as there are any.
    pub fn senders(&self) -> impl Iterator<Item = Arc<Sender>> {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        [Some(Arc::clone(&self.shared)), alone].into_iter().flatten()
    }

    /// Wakes the thread when something cannot wait for the next probe.
    pub fn set_link(&self, link: Thread) {
        self.parts.observed.set_link(link);
    }

    /// Whether Kafka answers, by a real question about `topic`; the answer itself does not matter. The second
    /// question is for a broker that died since the last: another one may be there. A cluster that is too busy to
    /// answer questions but acknowledges records answers too.
    pub fn probe(&self, topic: &TopicName) -> Result<(), String> {
        let acknowledged = self.parts.observed.acknowledged();
        let ask = |timeout| fetch(&self.prober, topic, timeout);
        match ask(FIRST_PROBE_TIMEOUT).or_else(|_| ask(SECOND_PROBE_TIMEOUT)) {
            Ok(metadata) => {
                let brokers: Vec<_> = metadata.brokers().iter().map(MetadataBroker::id).collect();
                self.brokers.learn(metadata.orig_broker_id(), &brokers);
                self.parts.observed.forget_error();
                Ok(())
            }
            Err(_) if self.parts.observed.acknowledged() > acknowledged => Ok(()),
            Err(error) => Err(self.parts.observed.last_error().unwrap_or_else(|| no_answer(&error))),
        }
    }

    /// Waits until every record has its delivery report, and returns false where some have none after the time-out.
    /// Blocks.
    pub fn flush(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut is_flushed = true;
        for sender in self.senders() {
            is_flushed &= sender.flush(end.saturating_duration_since(Instant::now()));
        }
        is_flushed
    }

    /// Of each topic what the first broker that answers says of it, of up to `most`, in the order of the names.
    fn describe(
        &self,
        client: &PolledProducer,
        names: &[TopicName],
        most: usize,
    ) -> Vec<Result<Asked, Error>> {
        if names.is_empty() {
            return Vec::new();
        }
        let mut reason = "no broker answers".to_owned();
        for broker in self.brokers.first(most) {
            match describe_topics(client.client(), broker, names, ASK_TIMEOUT) {
                Ok(topics) => {
                    let mut topics = topics.into_iter().peekable();
                    // in the order of the names; a broker may leave some out
                    let topic_of = |name: &TopicName| {
                        let topic = topics.next_if(|topic| topic.name == name.as_str());
                        topic.map_or(Err(Code::UnknownTopic), |topic| topic.described)
                    };
                    let described: Vec<_> = names.iter().map(topic_of).collect();
                    return names.iter().zip(described).map(|(name, topic)| asked(name, topic)).collect();
                }
                Err(error) => {
                    self.brokers.is_silent(broker);
                    reason = format!("broker {broker} does not describe topics: {error}");
                }
            }
        }
        vec![Err(Error::BrokerUnavailable { reason }); names.len()]
    }

    /// As [`Self::describe`], by the shared client. It may not know a broker that answers: it keeps the list of its last
    /// question for minutes, and a cluster that starts lists none. A question about one of the topics brings a new list.
    fn describe_shared(&self, names: &[TopicName]) -> Vec<Result<Asked, Error>> {
        self.shared.with_client(|client| {
            let answers = self.describe(client, names, 1);
            match names.first() {
                Some(name) if answers.iter().all(is_silence) && fetch(client, name, ASK_TIMEOUT).is_ok() => {
                    self.describe(client, names, 1)
                }
                _ => answers,
            }
        })
    }
}

/// Whether it says nothing of the topic.
fn is_silence(answer: &Result<Asked, Error>) -> bool {
    matches!(answer, Err(Error::BrokerUnavailable { .. }))
}

fn fetch(producer: &PolledProducer, topic: &TopicName, timeout: Duration) -> Result<Metadata, KafkaError> {
    producer.client().fetch_metadata(Some(topic.as_str()), timeout)
}

fn no_answer(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(Code::OperationTimedOut | Code::BrokerTransportFailure) => "no broker answers".into(),
        _ => error.to_string(),
    }
}

impl AskCluster for Arc<Cluster> {
    /// By DescribeTopics, since librdkafka keeps each name that `rd_kafka_metadata` is asked for as a topic of the client
    /// for ever. It keeps the answers, too, and forgets none before those that came earlier
    /// (`rd_kafka_metadata_cache_evict`): so the prober, which forgets all of them soon, is asked whether there are such
    /// topics. The shared client, whose topics are brought up to date by the answer, is asked for those that exist only.
    /// Its question stands behind what it produces on the same connection: where that takes too long, what the prober was
    /// told is good enough for a topic that is not written to yet.
    fn ask(&self, names: &[TopicName]) -> Vec<Result<Asked, Error>> {
        let new: Vec<_> = names.iter().filter(|name| !self.shared.has_sent_to(name)).cloned().collect();
        let told = self.describe(&self.prober, &new, MAX_ASKED);
        let mut answers: HashMap<_, _> = new.into_iter().zip(told).collect();
        let exists = |name: &&TopicName| answers.get(*name).is_none_or(Result::is_ok);
        let exist: Vec<_> = names.iter().filter(exists).cloned().collect();
        for (name, described) in exist.iter().zip(self.describe_shared(&exist)) {
            if !is_silence(&described) || !answers.contains_key(name) {
                answers.insert(name.clone(), described);
            }
        }
        let silence = |name| Err(undescribed(name, Code::UnknownTopic));
        names.iter().map(|name| answers.remove(name).unwrap_or_else(|| silence(name))).collect()
    }

    fn ask_or_make(&self, name: &TopicName) -> Result<Asked, Error> {
        self.shared.with_client(|client| ask_or_make(client, name))
    }
}

/// What the description of a topic says of it.
fn asked(name: &TopicName, described: Result<Described, Code>) -> Result<Asked, Error> {
    let Described { partitions, id, leaderless, operations, .. } =
        described.map_err(|code| undescribed(name, code))?;
    if operations.is_some_and(|operations| !operations.iter().any(|operation| operation == WRITE)) {
        return Err(Error::Unauthorized(name.clone()));
    }
    if partitions == 0 {
        let reason = format!("topic '{name}': it has no partitions yet");
        return Err(Error::BrokerUnavailable { reason });
    }
    Ok(Asked { partitions: i32::try_from(partitions).unwrap_or(i32::MAX), leaderless, id })
}

/// Why a broker says nothing of a topic.
fn undescribed(name: &TopicName, code: Code) -> Error {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => {
            Error::UnknownTopic(name.clone())
        }
        Code::TopicAuthorizationFailed => Error::Unauthorized(name.clone()),
        code => Error::BrokerUnavailable { reason: format!("topic '{name}': {code}") },
    }
}

/// By a question about metadata, which has a broker make the topic where it and this client may.
fn ask_or_make(client: &PolledProducer, name: &TopicName) -> Result<Asked, Error> {
    let metadata = fetch(client, name, ASK_TIMEOUT)
        .map_err(|error| Error::BrokerUnavailable { reason: no_answer(&error) })?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name.as_str()) else {
        return Err(Error::UnknownTopic(name.clone()));
    };
    match topic.error().map(Code::from) {
        Some(code) if topic.partitions().is_empty() => Err(undescribed(name, code)),
        // its rights and its id are told when it is asked about again
        _ => {
            let leaderless = topic.partitions().iter().filter(|partition| partition.leader() < 0);
            let leaderless = leaderless.map(MetadataPartition::id).collect();
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
            asked(
                name,
                Ok(Described {
                    partitions: topic.partitions().len(),
                    replicas: replicas.min().unwrap_or(0),
                    id: None,
                    leaderless,
                    operations: None,
                }),
            )
        }
    }
}
