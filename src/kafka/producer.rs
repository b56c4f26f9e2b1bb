//! [`crate::produce::Producer`] on librdkafka.

use super::{
    admin::{Admin, Created},
    client,
    cluster::Cluster,
    error, events,
    flusher::Flusher,
    link::{CreateTopics, Link, LinkHandle, LinkSettings},
    metadata::Topics,
    native::topic::NativeTopic,
    partitioner,
    polled::{PolledProducer, StartError},
    topic_config,
};
use crate::{
    config::{Config, Partitioner},
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{Batching, Error, Producer, Record, Sending, Topic, TopicLookup, TopicName},
    telemetry::metrics::Metrics,
};
use std::{
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Log lines and statistics that may wait to be understood.
const EVENT_QUEUE: usize = 1000;
/// Pause between two questions about a topic that the broker is making.
const AUTO_CREATE_POLL: Duration = Duration::from_millis(250);
/// How long a broker may take to make a topic; one that never does is set up not to.
const AUTO_CREATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The one producer of the service, with all that keeps it connected.
pub struct KafkaProducer {
    pub(super) cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    flusher: Arc<Flusher>,
    readiness: Arc<Readiness>,
    partitioner: Partitioner,
    auto_create_topics: bool,
    _link: LinkHandle,
}

impl KafkaProducer {
    /// Starts to connect in the background and returns at once. Runs on the runtime that it is called on, whose workers
    /// are to tell the `flusher` when they park.
    pub fn start(
        config: &Config,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        flusher: Arc<Flusher>,
        supervisor: &mut Supervisor,
    ) -> Result<Arc<Self>, StartError> {
        let (events, received) = mpsc::channel(EVENT_QUEUE);
        supervisor.spawn("librdkafka's events", events::consume(received, Arc::clone(&metrics)));
        let cluster = Cluster::start(&config.kafka, &config.limits, events, supervisor.alarm())?;
        let linger = Duration::from_secs_f64(config.kafka.linger_ms / 1000.0);
        flusher.start(Arc::downgrade(&cluster), linger, &supervisor.alarm())?;
        let (confirmed, to_describe) = mpsc::channel(EVENT_QUEUE);
        let topics = Topics::start(Arc::clone(&cluster), &supervisor.alarm(), confirmed)?;
        let admin = Arc::new(Admin::new(&client::admin(&config.kafka)));
        let read_configs = topic_config::read(Arc::clone(&admin), Arc::clone(&topics), to_describe);
        supervisor.spawn("the reading of topic configurations", read_configs);
        let link = Link {
            cluster: Arc::clone(&cluster),
            topics: Arc::clone(&topics),
            readiness: Arc::clone(&readiness),
            metrics,
            alarm: supervisor.alarm(),
            settings: LinkSettings {
                topics: config.topics.distinct(),
                create_topics: config.kafka.create_topics.then(|| create_topics(config, admin)),
                base_delay: config.kafka.connect_base_delay,
                retries: config.kafka.connect_retries,
            },
        };
        Ok(Arc::new(Self {
            cluster,
            topics,
            flusher,
            readiness,
            partitioner: config.kafka.partitioner,
            auto_create_topics: config.kafka.allow_auto_create_topics,
            _link: link.start()?,
        }))
    }

    /// Waits until every record has its delivery report. Blocks for up to `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), rdkafka::error::KafkaError> {
        self.cluster.flush(timeout)
    }

    fn partition(&self, topic: &Topic, record: &Record) -> Option<i32> {
        record.partition.or_else(|| match self.partitioner {
            Partitioner::Java => None,
            Partitioner::Tenant => partitioner::tenant(record, topic.partitions),
        })
    }
}

/// For the link's thread: makes the configured topics and says in the log what came of it.
fn create_topics(config: &Config, admin: Arc<Admin>) -> CreateTopics {
    let topics = config.topics.distinct();
    let (partitions, replication_factor) =
        (config.kafka.topic_partitions, config.kafka.topic_replication_factor);
    let runtime = tokio::runtime::Handle::current();
    let mut last_fault = None;
    Box::new(move || {
        let created = runtime.block_on(admin.create_topics(&topics, partitions, replication_factor));
        let (mut made, mut faults) = (false, Vec::new());
        match created {
            Ok(created) => {
                for (topic, created) in created {
                    match created {
                        Ok(Created::New) => {
                            made = true;
                            tracing::info!(%topic, partitions, replication_factor, "topic created");
                        }
                        Ok(Created::Existed) => tracing::debug!(%topic, "topic exists already"),
                        Err(reason) => faults.push(format!("{topic}: {reason}")),
                    }
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
        let fault = (!faults.is_empty()).then(|| faults.join("; "));
        // tried again for as long as topics are missing, told of once
        if fault.is_some() && fault != last_fault {
            tracing::error!(reason = fault, "configured topics cannot be created");
        }
        last_fault = fault;
        made
    })
}

impl Producer for KafkaProducer {
    fn unavailable(&self) -> Option<Error> {
        self.readiness.link_fault().map(|reason| Error::NotReady { reason: reason.to_string() })
    }

    fn known_topic(&self, name: &TopicName) -> Option<Result<Arc<Topic>, Error>> {
        let known = self.topics.known(name);
        // the first question may have made the broker begin to make the topic: so ask again
        known.filter(|known| !(self.auto_create_topics && matches!(known, Err(Error::UnknownTopic(_)))))
    }

    fn look_up_topic<'a>(&'a self, name: &'a TopicName) -> TopicLookup<'a> {
        Box::pin(async move {
            let give_up = Instant::now() + AUTO_CREATE_TIMEOUT;
            loop {
                match self.topics.look_up(name).await {
                    // the question itself has made the broker begin
                    Err(Error::UnknownTopic(_) | Error::BrokerUnavailable { .. })
                        if self.auto_create_topics && Instant::now() < give_up =>
                    {
                        tokio::time::sleep(AUTO_CREATE_POLL).await;
                    }
                    answer => return answer,
                }
            }
        })
    }

    fn enqueue<'a>(&self, records: &mut dyn Iterator<Item = Sending<'a>>, batching: Batching) {
        let guard;
        let alone;
        let producer: &PolledProducer = match batching {
            Batching::Shared => {
                guard = self.cluster.shared();
                &guard
            }
            Batching::Alone => match self.cluster.alone() {
                Ok(producer) => {
                    alone = producer;
                    &alone
                }
                Err(error) => {
                    let refused = || Error::BrokerUnavailable { reason: error.to_string() };
                    return records.for_each(|sending| sending.ack.report(Err(refused()), Instant::now()));
                }
            },
        };
        let mut last: Option<(&Topic, Arc<NativeTopic>)> = None;
        let mut count = 0;
        for Sending { topic, record, ack } in records {
            count += 1;
            let native = match &last {
                Some((of, native)) if ptr::eq(*of, topic) => native,
                _ => match producer.topic(&topic.name) {
                    Some(native) => &last.insert((topic, native)).1,
                    None => {
                        ack.report(Err(Error::UnknownTopic(topic.name.clone())), Instant::now());
                        continue;
                    }
                },
            };
            let partition = self.partition(topic, record);
            if let Err((code, ack)) = native.send(record, partition, Box::new(ack)) {
                ack.report(Err(error::of_enqueue(code, &topic.name, partition)), Instant::now());
                if error::doubts_topic(code) {
                    self.topics.forget(&topic.name);
                    producer.forget_topic(&topic.name);
                }
            }
        }
        self.flusher.enqueued(count);
    }
}
