//! One way to librdkafka: a client, the lanes of the partitions that it writes to, and the client that takes its place.
//! There are two, for records that share batches and for those that go alone.

use super::{
    client,
    context::{BrokerKind, Context, Event, Observed, Standing},
    error,
    flusher::Flusher,
    lane::{Lane, Rules},
    lanes::Lanes,
    metadata::Topics,
    partitioner::Chooser,
    polled::{PolledProducer, StartError},
    reports::OfPartition,
    retire::retire,
    sync::{lock, read, write},
};
use crate::{
    lifecycle::supervisor::Alarm,
    produce::{Error, Found, Outgoing, Record, Topic, TopicName, Turn},
};
use arc_swap::ArcSwap;
use rdkafka::{ClientConfig, producer::Producer as _, types::RDKafkaErrorCode as Code};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock, RwLock, Weak,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::mpsc};

/// librdkafka asks for a producer id half a second after the start of a client (`rd_kafka_idemp_pid_timer_restart`).
const PRODUCER_ID: Duration = Duration::from_millis(700);
/// How often a flush looks whether records wait for others.
const FLUSH_LOOK: Duration = Duration::from_millis(20);
/// Pause before a partition is chosen anew, and for how long that is tried.
const CHOOSE_PAUSE: Duration = Duration::from_millis(100);
const CHOOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a sender works with.
#[derive(Clone)]
pub struct Parts {
    pub runtime: Handle,
    pub events: mpsc::Sender<Event>,
    pub observed: Arc<Observed>,
    pub alarm: Alarm,
    pub broker: BrokerKind,
    pub topics: Arc<Topics>,
    pub chooser: Arc<Chooser>,
    /// Told of records that were handed over later than they came.
    pub flusher: Arc<Flusher>,
    /// How long a record may wait to be handed over; None for ever.
    pub patience: Option<Duration>,
    /// Changes when records are lost with their client, and what came after them is given back.
    pub generation: Arc<AtomicU64>,
}

/// Hands records to the current client, each when its lane lets it.
pub struct Sender {
    parts: Parts,
    config: ClientConfig,
    introduces: bool,
    batch_size: usize,
    /// For the contexts of its clients.
    this: Arc<OnceLock<Weak<Self>>>,
    client: ArcSwap<Client>,
    lanes: RwLock<HashMap<TopicName, Lanes>>,
    /// Records that wait in lanes.
    waiting: AtomicUsize,
    stuck: RwLock<HashSet<(TopicName, i32)>>,
    is_any_stuck: AtomicBool,
    /// Replaced clients that still have records.
    retiring: Arc<AtomicUsize>,
}

struct Client {
    number: u64,
    producer: Arc<PolledProducer>,
}

impl Sender {
    /// Never waits for a broker. `batch_size` is from where on a topic's own limit of batches does not matter.
    pub fn start(config: ClientConfig, batch_size: usize, parts: Parts) -> Result<Arc<Self>, StartError> {
        let this = Arc::new(OnceLock::new());
        let producer = start_client(&config, &parts, &this)?;
        let sender = Arc::new(Self {
            introduces: client::is_idempotent(&config),
            config,
            batch_size,
            this,
            client: ArcSwap::from_pointee(Client { number: 1, producer }),
            lanes: RwLock::default(),
            waiting: AtomicUsize::new(0),
            stuck: RwLock::default(),
            is_any_stuck: AtomicBool::new(false),
            retiring: Arc::default(),
            parts,
        });
        // the only one who sets it
        let _ = sender.this.set(Arc::downgrade(&sender));
        Ok(sender)
    }

    /// The client that sends now.
    pub fn with_client<T>(&self, visit: impl FnOnce(&PolledProducer) -> T) -> T {
        visit(&self.client.load().producer)
    }

    /// Whether the topic was written to, an hour ago at most.
    pub fn has_sent_to(&self, topic: &TopicName) -> bool {
        read(&self.lanes).contains_key(topic)
    }

    /// Sends the records, in order for each partition, and returns how many were handed over at once. Each is reported
    /// on: here where librdkafka does not take it, else by the client.
    pub fn send(&self, records: impl Iterator<Item = Outgoing>) -> usize {
        let now = Instant::now();
        let mut handed = 0;
        let mut records = records.peekable();
        while let Some(first) = records.peek() {
            let topic = match first.found() {
                Ok(found) => Arc::clone(&found.topic),
                Err(error) => {
                    let unfound = records.next();
                    unfound.into_iter().for_each(|outgoing| outgoing.report(Err(error.clone()), now));
                    continue;
                }
            };
            let is_of_topic =
                |next: &Outgoing| next.found().is_ok_and(|found| found.topic.name == topic.name);
            self.with_lanes(&topic, |lanes| {
                while let Some(outgoing) = records.next_if(is_of_topic) {
                    handed += self.offer(&topic.name, lanes, outgoing, now);
                }
            });
        }
        handed
    }

    fn with_lanes(&self, topic: &Topic, visit: impl FnOnce(&Lanes)) {
        let partitions = usize::try_from(topic.partitions).unwrap_or(0);
        if let Some(lanes) = read(&self.lanes).get(&topic.name)
            && lanes.partitions() >= partitions
        {
            return visit(lanes);
        }
        write(&self.lanes).entry(topic.name.clone()).or_default().grow(partitions);
        if let Some(lanes) = read(&self.lanes).get(&topic.name) {
            visit(lanes);
        }
    }

    fn offer(&self, topic: &TopicName, lanes: &Lanes, outgoing: Outgoing, now: Instant) -> usize {
        let Some(lane) = lanes.of(outgoing.partition(), now) else {
            let partition = outgoing.partition();
            outgoing.report(Err(Error::Internal(format!("no lane for {topic}[{partition}]"))), now);
            return 0;
        };
        let mut lane = lock(lane);
        let before = lane.waiting();
        lane.wait(outgoing);
        let handed = self.hand_over(topic, lanes, &mut lane, now);
        self.count_waiting(before, &lane);
        handed
    }

    /// Hands over what may leave the lane now.
    fn hand_over(&self, topic: &TopicName, lanes: &Lanes, lane: &mut Lane, now: Instant) -> usize {
        // under the lane's lock: who comes later must not see an earlier client
        let client = self.client.load();
        let can_send = !client.producer.context().epoch().is_refused();
        let rules = Rules {
            client: can_send.then_some(client.number),
            introduces: self.introduces,
            batch_size: self.batch_size,
            learned_limit: lanes.learned_limit(now),
        };
        let mut handed = 0;
        while let Some((place, outgoing)) = lane.leave(rules, now) {
            let waited = now.saturating_duration_since(outgoing.enqueued());
            if self.parts.patience.is_some_and(|patience| waited >= patience) {
                lane.stays();
                outgoing.report(Err(waited_too_long()), now);
                continue;
            }
            let Some(native) = lanes.native(client.number, &client.producer, topic) else {
                lane.stays();
                outgoing.report(Err(Error::UnknownTopic(topic.clone())), now);
                continue;
            };
            match native.1.send(outgoing, place) {
                Ok(()) => handed += 1,
                Err((code, outgoing)) => {
                    lane.stays();
                    self.not_taken(code, outgoing, topic, lanes, now);
                }
            }
        }
        handed
    }

    fn not_taken(&self, code: Code, outgoing: Outgoing, topic: &TopicName, lanes: &Lanes, now: Instant) {
        if error::doubts_topic(code) {
            self.parts.topics.forget(topic);
            lanes.forget_native();
        }
        if code == Code::UnknownPartition && outgoing.record().partition.is_none() {
            return self.choose_anew(outgoing);
        }
        let error = error::of_enqueue(code, topic, outgoing.partition());
        self.parts.topics.is_refused(topic, &error);
        outgoing.report(Err(error), now);
    }

    /// Sends a record to another partition than the one that was chosen for it, which does not exist any more.
    pub fn choose_anew(&self, outgoing: Outgoing) {
        let Some(sender) = self.this.get().and_then(Weak::upgrade) else {
            return outgoing.report(Err(partitions_changed()), Instant::now());
        };
        self.waiting.fetch_add(1, AcqRel);
        self.parts.runtime.spawn(async move {
            tokio::time::sleep(CHOOSE_PAUSE).await;
            sender.choose_anew_now(outgoing).await;
            sender.waiting.fetch_sub(1, AcqRel);
        });
    }

    async fn choose_anew_now(&self, outgoing: Outgoing) {
        let is_late = outgoing.enqueued().elapsed() >= CHOOSE_TIMEOUT;
        let found = match outgoing.found() {
            Ok(found) if !is_late => found.clone(),
            _ => return outgoing.report(Err(partitions_changed()), Instant::now()),
        };
        match self.parts.topics.look_up(&found.topic.name, Turn::First).await {
            Ok(topic) => {
                let record = outgoing.record().clone();
                let partition = self.partition(&record, &topic, Instant::now());
                let found = Found { topic, ..found };
                let again = Outgoing::again(record, found, partition, outgoing.into_ack());
                let handed = self.send(std::iter::once(again));
                self.parts.flusher.enqueued(handed);
            }
            Err(error) => outgoing.report(Err(error), Instant::now()),
        }
    }

    /// The partition that a record goes to; see [`crate::produce::Producer::partition`].
    pub fn partition(&self, record: &Record, topic: &Topic, now: Instant) -> i32 {
        self.parts.chooser.partition(record, topic, now, |partition| {
            self.is_any_stuck.load(Acquire) && read(&self.stuck).contains(&(topic.name.clone(), partition))
        })
    }

    /// A record is lost with its client. To be called before anybody hears of it.
    pub fn breaks(&self) {
        self.parts.generation.fetch_add(1, AcqRel);
    }

    /// Takes note of reports on records of one partition, and sends what has waited for them.
    pub fn landed(&self, landed: OfPartition<'_>, now: Instant) {
        let all = read(&self.lanes);
        let Some((topic, lanes)) = all.get_key_value(landed.topic) else { return };
        let Some(lane) = lanes.of(landed.partition, now) else { return };
        if landed.too_large > 0 {
            // the limit is lower than when it was read, or not known yet
            self.parts.topics.doubt_settings(topic);
            if landed.landing.count > 1 {
                lanes.learn_limit(landed.too_large / 2, now);
            }
        }
        let mut lane = lock(lane);
        let before = lane.waiting();
        let overtaking = lane.land(landed.landing, now);
        let refused = if landed.topic_error.is_some() { lane.give_up() } else { Vec::new() };
        let handed = self.hand_over(topic, lanes, &mut lane, now);
        self.count_waiting(before, &lane);
        drop(lane);
        self.parts.flusher.enqueued(handed);
        for outgoing in overtaking {
            let reason = "a record before it was lost with its producer".into();
            outgoing.report(Err(Error::BrokerUnavailable { reason }), now);
        }
        if let Some(error) = &landed.topic_error {
            self.parts.topics.is_refused(topic, error);
            refused.into_iter().for_each(|outgoing| outgoing.report(Err(error.clone()), now));
        }
    }

    fn count_waiting(&self, before: usize, lane: &Lane) {
        let waiting = lane.waiting();
        if waiting > before {
            self.waiting.fetch_add(waiting - before, AcqRel);
        } else if waiting < before {
            self.waiting.fetch_sub(before - waiting, AcqRel);
        }
    }

    /// Sees to what time alone brings about: records that waited for too long, partitions that take nothing. To be called
    /// a few times a second.
    pub fn look(&self, now: Instant) {
        let mut stuck = HashSet::new();
        let mut late = Vec::new();
        self.for_each_lane(|topic, partition, _, lane| {
            if lane.is_stuck(now) {
                stuck.insert((topic.clone(), partition));
            }
            if let Some(patience) = self.parts.patience {
                let before = lane.waiting();
                late.append(&mut lane.expire(patience, now));
                self.count_waiting(before, lane);
            }
        });
        if !stuck.is_empty() || self.is_any_stuck.load(Relaxed) {
            self.is_any_stuck.store(!stuck.is_empty(), Release);
            *write(&self.stuck) = stuck;
        }
        for outgoing in late {
            outgoing.report(Err(waited_too_long()), now);
        }
    }

    /// Forgets lanes that rest: there are as many as partitions were written to within an hour.
    pub fn forget_resting(&self, now: Instant) {
        write(&self.lanes).retain(|_, lanes| lanes.forget_resting(now));
    }

    fn for_each_lane(&self, mut visit: impl FnMut(&TopicName, i32, &Lanes, &mut Lane)) {
        for (topic, lanes) in &*read(&self.lanes) {
            for (partition, lane) in lanes.used() {
                visit(topic, partition, lanes, &mut lock(lane));
            }
        }
    }

    /// Why the client can never send again, if so.
    pub fn fatal_error(&self) -> Option<String> {
        let (code, reason) = self.client.load().producer.client().fatal_error()?;
        let advice = match code {
            Code::ClusterAuthorizationFailed => {
                "; the cluster denies an idempotent producer: grant IDEMPOTENT_WRITE on it, or set KAFKA_IDEMPOTENCE=false"
            }
            _ => "",
        };
        Some(format!("fatal producer error {code:?}: {reason}{advice}"))
    }

    /// How far the client's epoch is, where another client is to take its place; and whether a broker refuses it already.
    pub fn spent_epoch(&self) -> Option<(u32, bool)> {
        if !self.introduces {
            return None;
        }
        let client = self.client.load();
        let epoch = client.producer.context().epoch();
        epoch.spent().map(|spent| (spent, epoch.is_refused()))
    }

    /// Puts a new client in the place of the current one, which is lost, or has only used its epoch up. In the latter case
    /// what it has not sent comes back and goes to the new one.
    /// The current one goes on while it can, until the new one has had time to get its producer id. Blocks for as long.
    pub fn replace(&self, is_lost: bool) -> Result<(), StartError> {
        let producer = start_client(&self.config, &self.parts, &self.this)?;
        let can_send = !is_lost && !self.with_client(|client| client.context().epoch().is_refused());
        if can_send {
            thread::sleep(PRODUCER_ID);
        }
        let number = self.client.load().number + 1;
        let old = self.client.swap(Arc::new(Client { number, producer }));
        old.producer.context().set_standing(if is_lost { Standing::Lost } else { Standing::Replaced });
        let now = Instant::now();
        let mut handed = 0;
        self.for_each_lane(|topic, _, lanes, lane| {
            let before = lane.waiting();
            handed += self.hand_over(topic, lanes, lane, now);
            self.count_waiting(before, lane);
        });
        self.parts.flusher.enqueued(handed);
        // each lane was locked since the swap, so that nobody hands anything to the old client any more
        read(&self.lanes).values().for_each(|lanes| lanes.forget_natives_before(number));
        retire(Arc::clone(&old.producer), is_lost, Arc::clone(&self.retiring));
        Ok(())
    }

    /// Waits until no record is left, and returns false where some are after the time-out. Blocks.
    pub fn flush(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        loop {
            self.with_client(|client| client.flush(FLUSH_LOOK.min(timeout)));
            let left = self.waiting.load(Acquire) + self.retiring.load(Acquire);
            if left == 0 && self.with_client(|client| client.in_flight_count()) == 0 {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            // a flush returns at once where the client has nothing
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn start_client(
    config: &ClientConfig,
    parts: &Parts,
    sender: &Arc<OnceLock<Weak<Sender>>>,
) -> Result<Arc<PolledProducer>, StartError> {
    let observed = Arc::clone(&parts.observed);
    let context = Context::new(parts.events.clone(), observed, parts.broker, Arc::clone(sender));
    PolledProducer::start(config, context, &parts.alarm, &parts.runtime).map(Arc::new)
}

fn waited_too_long() -> Error {
    let reason = "others before it in its partition took too long".into();
    Error::BrokerUnavailable { reason }
}

fn partitions_changed() -> Error {
    Error::BrokerUnavailable { reason: "the topic's partitions have changed".into() }
}
