//! [`crate::produce::Producer`] on librdkafka.

use super::{
    admin::Admin,
    client,
    cluster::{self, Cluster},
    configured_topics::{ConfiguredTopics, create_topics},
    events,
    flusher::Flusher,
    link::{Link, LinkHandle, LinkSettings},
    metadata::Topics,
    polled::StartError,
    topic_config,
};
use crate::{
    config::Config,
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{Batching, Error, Outgoing, Producer, Record, Topic, TopicLookup, TopicName, Turn},
    telemetry::metrics::Metrics,
};
use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Log lines and statistics that may wait to be understood.
const EVENT_QUEUE: usize = 1000;
/// Pause between two questions about a topic that the broker is making.
const AUTO_CREATE_POLL: Duration = Duration::from_millis(250);
/// How long a broker may take to make a topic; one that never does is set up not to.
const AUTO_CREATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often lanes are looked at, and how often those are forgotten that rest.
const LANES_LOOK: Duration = Duration::from_millis(250);
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Pause between two looks at whether records wait for the end of a flush.
const FLUSHER_POLL: Duration = Duration::from_millis(1);

/// The one producer of the service, with all that keeps it connected.
pub struct KafkaProducer {
    pub(super) cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    flusher: Arc<Flusher>,
    readiness: Arc<Readiness>,
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
        let (to_read, names_to_read) = topic_config::queues();
        let topics = Topics::new(to_read);
        let parts = cluster::Parts {
            events,
            alarm: supervisor.alarm(),
            topics: Arc::clone(&topics),
            flusher: Arc::clone(&flusher),
        };
        let cluster = Cluster::start(&config.kafka, &config.limits, parts)?;
        topics.start(Arc::clone(&cluster), &supervisor.alarm())?;
        supervisor.spawn("the look after lanes", look_after_lanes(Arc::downgrade(&cluster)));
        let admin = Arc::new(Admin::new(&client::admin(&config.kafka)));
        let read_configs = topic_config::read(Arc::clone(&admin), Arc::clone(&topics), names_to_read);
        supervisor.spawn("the reading of topic configurations", read_configs);
        let configured = ConfiguredTopics {
            names: config.topics.distinct(),
            topics: Arc::clone(&topics),
            cluster: Arc::clone(&cluster),
            readiness: Arc::clone(&readiness),
            create: config.kafka.create_topics.then(|| create_topics(config, admin)),
        };
        let link = Link {
            cluster: Arc::clone(&cluster),
            looks: configured.start(&supervisor.alarm())?,
            readiness: Arc::clone(&readiness),
            metrics,
            alarm: supervisor.alarm(),
            settings: LinkSettings {
                topics: config.topics.distinct(),
                base_delay: config.kafka.connect_base_delay,
                retries: config.kafka.connect_retries,
            },
        };
        let linger = Duration::from_secs_f64(config.kafka.linger_ms / 1000.0);
        flusher.start(Arc::downgrade(cluster.shared()), linger, &supervisor.alarm())?;
        Ok(Arc::new(Self {
            cluster,
            topics,
            flusher,
            readiness,
            auto_create_topics: config.kafka.allow_auto_create_topics,
            _link: link.start()?,
        }))
    }

    /// Waits until every record has its delivery report, and returns false where some have none after the time-out.
    /// Blocks.
    pub fn flush(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        while self.flusher.is_flushing() && Instant::now() < end {
            thread::sleep(FLUSHER_POLL);
        }
        self.cluster.flush(end.saturating_duration_since(Instant::now()))
    }
}

/// Sees to records that wait in lanes, and to lanes that rest.
async fn look_after_lanes(cluster: Weak<Cluster>) {
    let mut forgotten = Instant::now();
    loop {
        tokio::time::sleep(LANES_LOOK).await;
        let Some(cluster) = cluster.upgrade() else { return };
        let now = Instant::now();
        let forgets = now.saturating_duration_since(forgotten) >= FORGET_EVERY;
        for sender in cluster.senders() {
            sender.look(now);
            if forgets {
                sender.forget_resting(now);
            }
        }
        if forgets {
            forgotten = now;
        }
    }
}

impl Producer for KafkaProducer {
    fn unavailable(&self) -> Option<Error> {
        self.readiness.link_fault().map(|reason| Error::NotReady { reason: reason.to_string() })
    }

    fn generation(&self) -> u64 {
        self.cluster.generation()
    }

    fn known_topic(&self, name: &TopicName) -> Option<Result<Arc<Topic>, Error>> {
        let known = self.topics.known(name);
        // the first question may have made the broker begin to make the topic: so ask again
        known.filter(|known| !(self.auto_create_topics && matches!(known, Err(Error::UnknownTopic(_)))))
    }

    fn look_up_topic<'a>(&'a self, name: &'a TopicName, turn: Turn) -> TopicLookup<'a> {
        Box::pin(async move {
            let give_up = Instant::now() + AUTO_CREATE_TIMEOUT;
            loop {
                let answer = match self.topics.look_up(name, turn).await {
                    Err(Error::UnknownTopic(_)) if self.auto_create_topics => {
                        self.topics.look_up_or_make(name).await
                    }
                    answer => answer,
                };
                match answer {
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

    fn partition(&self, record: &Record, topic: &Topic, now: Instant) -> i32 {
        self.cluster.shared().partition(record, topic, now)
    }

    fn enqueue(&self, records: &mut dyn Iterator<Item = Outgoing>, batching: Batching) {
        match batching {
            Batching::Shared => {
                let deferred = self.flusher.defer(records);
                let send = || self.cluster.shared().send(records);
                self.flusher.enqueued(deferred.unwrap_or_else(send));
            }
            Batching::Alone => match self.cluster.alone() {
                Ok(sender) => drop(sender.send(records)),
                Err(error) => records.for_each(|outgoing| {
                    let reason = error.to_string();
                    outgoing.report(Err(Error::BrokerUnavailable { reason }), Instant::now());
                }),
            },
        }
    }
}
