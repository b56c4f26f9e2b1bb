//! The clients of this process: the two senders, and the prober that asks whether Kafka answers.

use super::{
    client,
    context::{BrokerKind, Context, Event, Observed},
    flusher::Flusher,
    metadata::{AskCluster, Asked, Topics},
    native::describe::describe_topics,
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
    ClientConfig, error::KafkaError, metadata::Metadata, producer::Producer, types::RDKafkaErrorCode as Code,
};
use std::{
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
/// For what a topic's rights and id are: without an answer, what a record's refusal says is enough.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The name of the right to write, as librdkafka spells it (`rd_kafka_AclOperation_name`).
const WRITE: &str = "WRITE";

pub struct Cluster {
    config: ClientConfig,
    parts: sender::Parts,
    prober: PolledProducer,
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
        Ok(Arc::new(Self { config, parts, prober, shared, alone: Mutex::default() }))
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
            Ok(_) => {
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
    fn ask(&self, name: &TopicName) -> Result<Asked, Error> {
        self.shared.with_client(|client| ask(client, name))
    }
}

fn ask(client: &PolledProducer, name: &TopicName) -> Result<Asked, Error> {
    let metadata = fetch(client, name, ASK_TIMEOUT)
        .map_err(|error| Error::BrokerUnavailable { reason: no_answer(&error) })?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name.as_str()) else {
        return Err(Error::UnknownTopic(name.clone()));
    };
    let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
    match topic.error().map(Code::from) {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => {
            return Err(Error::UnknownTopic(name.clone()));
        }
        Some(Code::TopicAuthorizationFailed) => return Err(Error::Unauthorized(name.clone())),
        // a topic that is being made, or whose leader moves: it exists
        _ if partitions > 0 => {}
        code => {
            let reason = code.map_or_else(|| "it has no partitions yet".to_owned(), |code| code.to_string());
            return Err(Error::BrokerUnavailable { reason: format!("topic '{name}': {reason}") });
        }
    }
    let leaderless = topic.partitions().iter().filter(|partition| partition.leader() < 0);
    let leaderless = leaderless.map(rdkafka::metadata::MetadataPartition::id).collect();
    // of the broker that has just answered; one that does not describe topics, or not in time, leaves this unknown
    let broker = metadata.orig_broker_id();
    let described = describe_topics(client.client(), broker, std::slice::from_ref(name), DESCRIBE_TIMEOUT);
    let described = described.ok().and_then(|mut topics| topics.pop()?.described.ok());
    let operations = described.as_ref().and_then(|described| described.operations.as_ref());
    if operations.is_some_and(|operations| !operations.iter().any(|operation| operation == WRITE)) {
        return Err(Error::Unauthorized(name.clone()));
    }
    Ok(Asked { partitions, leaderless, id: described.and_then(|described| described.id) })
}
