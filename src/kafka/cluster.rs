//! The clients of this process: the shared producer, the one that sends records alone, their replacement after a
//! fatal error, and the prober that asks whether Kafka answers.

use super::{
    client,
    context::{BrokerKind, Context, Event, Observed},
    metadata::AskCluster,
    polled::{PolledProducer, StartError},
};
use crate::{
    config::{Kafka, Limits},
    lifecycle::supervisor::Alarm,
    produce::{Error, TopicName},
};
use arc_swap::ArcSwap;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    metadata::Metadata,
    producer::{Producer, PurgeConfig},
    types::RDKafkaErrorCode as Code,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire},
        },
    },
    thread,
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
/// How long a replaced producer may take to report on what it held.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may hold a replaced producer; an enqueue takes microseconds.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Cluster {
    runtime: Handle,
    config: ClientConfig,
    events: mpsc::Sender<Event>,
    observed: Arc<Observed>,
    alarm: Alarm,
    broker: BrokerKind,
    prober: PolledProducer,
    shared: ArcSwap<PolledProducer>,
    /// Shared producers so far.
    generation: AtomicU64,
    /// Made when a record must first be sent alone.
    alone: Mutex<Option<Arc<PolledProducer>>>,
}

impl Cluster {
    /// Never waits for a broker.
    pub fn start(
        kafka: &Kafka,
        limits: &Limits,
        events: mpsc::Sender<Event>,
        alarm: Alarm,
    ) -> Result<Arc<Self>, StartError> {
        let config = client::producer(kafka, limits)?;
        let broker = if kafka.embedded { BrokerKind::Mock } else { BrokerKind::Kafka };
        let observed = Arc::new(Observed::default());
        let start = |config| {
            let context = Context::new(events.clone(), Arc::clone(&observed), broker);
            PolledProducer::start(config, context, &alarm, &Handle::current()).map_err(|error| match error {
                StartError::Settings(error) => StartError::Settings(error.explained(kafka)),
                StartError::Thread(error) => StartError::Thread(error),
            })
        };
        let shared = ArcSwap::from_pointee(start(&config)?);
        let prober = start(&client::prober(kafka))?;
        let alone = Mutex::default();
        let runtime = Handle::current();
        let generation = AtomicU64::new(1);
        Ok(Arc::new(Self {
            runtime,
            config,
            events,
            observed,
            alarm,
            broker,
            prober,
            shared,
            generation,
            alone,
        }))
    }

    pub fn shared(&self) -> arc_swap::Guard<Arc<PolledProducer>> {
        self.shared.load()
    }

    /// Changes when the shared producer is replaced.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The producer whose record batches hold one record each; a new one where it had a fatal error of its own.
    pub fn alone(&self) -> Result<Arc<PolledProducer>, StartError> {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*alone
            && producer.client().fatal_error().is_none()
        {
            return Ok(Arc::clone(producer));
        }
        let fresh = Arc::new(self.start_producer(&client::alone(&self.config))?);
        if let Some(lost) = alone.replace(Arc::clone(&fresh)) {
            retire(lost);
        }
        Ok(fresh)
    }

    fn start_producer(&self, config: &ClientConfig) -> Result<PolledProducer, StartError> {
        let context = Context::new(self.events.clone(), Arc::clone(&self.observed), self.broker);
        PolledProducer::start(config, context, &self.alarm, &self.runtime)
    }

    /// Whether Kafka answers, by a real question about `topic`; the answer itself does not matter. The second
    /// question is for a broker that died since the last: another one may be there. A cluster that is too busy to
    /// answer questions but acknowledges records answers too.
    pub fn probe(&self, topic: &TopicName) -> Result<(), String> {
        let acknowledged = self.observed.acknowledged();
        let ask = |timeout| fetch(&self.prober, topic, timeout);
        match ask(FIRST_PROBE_TIMEOUT).or_else(|_| ask(SECOND_PROBE_TIMEOUT)) {
            Ok(_) => {
                self.observed.forget_error();
                Ok(())
            }
            Err(_) if self.observed.acknowledged() > acknowledged => Ok(()),
            Err(error) => Err(self.observed.last_error().unwrap_or_else(|| no_answer(&error))),
        }
    }

    /// Why the shared producer can never send again, if so.
    pub fn fatal_error(&self) -> Option<String> {
        let (code, reason) = self.shared().client().fatal_error()?;
        Some(format!("fatal producer error {code:?}: {reason}"))
    }

    /// Puts a new producer in the place of one that had a fatal error. The old one's records get the outcome
    /// that librdkafka knows of each.
    pub fn rebuild(&self) -> Result<(), StartError> {
        let fresh = Arc::new(self.start_producer(&self.config)?);
        // before the swap: who sees the old number must not send to the new producer
        self.generation.fetch_add(1, AcqRel);
        retire(self.shared.swap(fresh));
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        alone.into_iter().for_each(retire);
        Ok(())
    }

    /// Has the shared producer send what it gathers, and for `time`, or until all of it is delivered, what comes.
    pub fn send_gathered(&self, time: Duration) {
        self.shared.load().flush_without_polling(time);
    }

    /// Waits until every record has its delivery report. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.load_full().flush(timeout)?;
        match alone {
            Some(alone) => alone.flush(deadline.saturating_duration_since(Instant::now())),
            None => Ok(()),
        }
    }
}

fn fetch(producer: &PolledProducer, topic: &TopicName, timeout: Duration) -> Result<Metadata, KafkaError> {
    producer.client().fetch_metadata(Some(topic.as_str()), timeout)
}

/// Purges and drops a producer on a thread of its own, since both block.
fn retire(producer: Arc<PolledProducer>) {
    let retired = thread::Builder::new().name("kafka-retire".into()).spawn(move || {
        producer.purge(PurgeConfig::default().queue().inflight());
        if let Err(error) = producer.flush(PURGE_TIMEOUT) {
            tracing::warn!(%error, "the replaced producer has not reported on all of its records");
        }
        // requests may hold it for the moment of an enqueue; theirs must not be the last reference
        let release = Instant::now() + RELEASE_TIMEOUT;
        while Arc::strong_count(&producer) > 1 && Instant::now() < release {
            thread::sleep(Duration::from_millis(10));
        }
    });
    if let Err(error) = retired {
        tracing::error!(%error, "no thread to purge the replaced producer on; it is purged in place");
    }
}

fn no_answer(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(Code::OperationTimedOut | Code::BrokerTransportFailure) => "no broker answers".into(),
        _ => error.to_string(),
    }
}

impl AskCluster for Arc<Cluster> {
    fn ask(&self, name: &TopicName) -> Result<i32, Error> {
        let metadata = fetch(&self.shared.load_full(), name, ASK_TIMEOUT)
            .map_err(|error| Error::BrokerUnavailable { reason: no_answer(&error) })?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name.as_str()) else {
            return Err(Error::UnknownTopic(name.clone()));
        };
        let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        match topic.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => {
                Err(Error::UnknownTopic(name.clone()))
            }
            Some(Code::TopicAuthorizationFailed) => Err(Error::Unauthorized(name.clone())),
            // a topic that is being made, or whose leader moves: it exists
            _ if partitions > 0 => Ok(partitions),
            code => {
                let reason =
                    code.map_or_else(|| "it has no partitions yet".to_owned(), |code| code.to_string());
                Err(Error::BrokerUnavailable { reason: format!("topic '{name}': {reason}") })
            }
        }
    }
}
