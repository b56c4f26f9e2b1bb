//! librdkafka's callbacks. They run where events are read, so they only read and hand on.

use super::{
    error::{self, Refusal},
    lane::Landing,
    native::{
        report::{DeliveryReport, Persistence},
        topic::InFlight,
    },
    sender::Sender,
};
use crate::produce::{Error, Outcome, Outgoing, Report, TopicName, Written};
use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext, types::RDKafkaErrorCode as Code,
};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread::Thread,
    time::Instant,
};
use tokio::sync::mpsc;

/// What is handed on raw, to be understood elsewhere.
#[derive(Debug)]
pub enum Event {
    Log {
        level: RDKafkaLogLevel,
        facility: String,
        text: String,
    },
    /// Of the client whose epoch this is.
    Statistics(Vec<u8>, Arc<Epoch>),
}

/// The callbacks of one librdkafka client.
pub struct Context {
    events: mpsc::Sender<Event>,
    observed: Arc<Observed>,
    broker: BrokerKind,
    /// Whose records the client sends; never set for one that sends none.
    sender: Arc<OnceLock<Weak<Sender>>>,
    epoch: Arc<Epoch>,
    standing: AtomicU8,
}

/// What is to become of the records of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It sends.
    Current,
    /// Another one has taken its place: what was certainly not written goes there.
    Replaced,
    /// It had a fatal error: its records are reported as they are.
    Lost,
}

/// How much of the producer's epoch is used up. librdkafka raises it with each batch that is refused or timed out and
/// goes on at 0 after 32,767 (`rd_kafka_pid_bump`), which brokers refuse (INVALID_PRODUCER_EPOCH) for ever.
#[derive(Debug, Default)]
pub struct Epoch {
    failed_batches: AtomicU32,
    /// As librdkafka's statistics have it.
    told: AtomicU32,
}

impl Epoch {
    /// Half of all: one that is used up within a minute has half a minute left.
    const SPENT: u32 = 1 << 14;

    /// librdkafka told it.
    pub fn is_now(&self, epoch: i64) {
        self.told.fetch_max(u32::try_from(epoch).unwrap_or(0), Relaxed);
    }

    fn batch_failed(&self) {
        self.failed_batches.fetch_add(1, Relaxed);
    }

    /// A broker refuses it. True where that is news.
    fn is_refused_now(&self) -> bool {
        self.told.swap(u32::MAX, AcqRel) != u32::MAX
    }

    /// Whether a broker has refused it.
    pub fn is_refused(&self) -> bool {
        self.told.load(Acquire) == u32::MAX
    }

    /// How far it is, where another producer is to take over.
    pub fn spent(&self) -> Option<u32> {
        let epoch = self.told.load(Acquire).max(self.failed_batches.load(Relaxed));
        (epoch >= Self::SPENT).then_some(epoch)
    }
}

/// Which kind of broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    Kafka,
    /// librdkafka's mock, whose append time is made up (`rdkafka_mock_handlers.c`).
    Mock,
}

/// What the callbacks have seen of the connection, for whoever judges it.
#[derive(Debug, Default)]
pub struct Observed {
    last_error: Mutex<Option<String>>,
    acknowledged: AtomicU64,
    /// Looks at once when it is woken.
    link: OnceLock<Thread>,
}

impl Observed {
    fn set_error(&self, reason: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// The newest reason that librdkafka gave for not reaching Kafka.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget_error(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Records that brokers have acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Who sees to what cannot wait for the next probe.
    pub fn set_link(&self, link: Thread) {
        // there is one
        let _ = self.link.set(link);
    }

    fn wake_link(&self) {
        if let Some(link) = self.link.get() {
            link.unpark();
        }
    }
}

impl Context {
    pub fn new(
        events: mpsc::Sender<Event>,
        observed: Arc<Observed>,
        broker: BrokerKind,
        sender: Arc<OnceLock<Weak<Sender>>>,
    ) -> Self {
        let standing = AtomicU8::new(Standing::Current as u8);
        Self { events, observed, broker, sender, epoch: Arc::default(), standing }
    }

    /// How much of its epoch is used up.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Another client is to take its place.
    pub fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Release);
    }

    fn standing(&self) -> Standing {
        match self.standing.load(Acquire) {
            0 => Standing::Current,
            1 => Standing::Replaced,
            _ => Standing::Lost,
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // a full channel means a flood of lines, of which losing some is right
        let _ = self.events.try_send(Event::Log { level, facility: facility.into(), text: text.into() });
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // the next ones will do
        let _ = self.events.try_send(Event::Statistics(statistics.to_vec(), Arc::clone(&self.epoch)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // "all brokers down" follows the errors that say why, and says nothing itself
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            self.observed.set_error(describe(&error, reason));
        }
    }
}

/// What failed first, then librdkafka's text: an operator looks for the word TLS or authentication.
fn describe(error: &KafkaError, reason: &str) -> String {
    match error.rdkafka_error_code() {
        Some(Code::SSL) => format!("TLS failed: {reason}"),
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
            format!("authentication failed: {reason}")
        }
        Some(Code::Resolve) => format!("name resolution failed: {reason}"),
        _ => reason.to_owned(),
    }
}

/// What a report means for its record.
enum Fate {
    Told(Report),
    /// Certainly not written, for no fault of its own: it goes to the client that has taken this one's place.
    Returns,
    /// The partition that was chosen for it does not exist: another one is to be chosen.
    Elsewhere,
}

impl Context {
    /// The reports of one event, each with what its record was sent with; `now` is when they came.
    pub fn delivered<'a>(&self, reports: impl Iterator<Item = (DeliveryReport<'a>, InFlight)>, now: Instant) {
        let sender = self.sender.get().and_then(Weak::upgrade);
        let mut of_partition: Option<OfPartition<'a>> = None;
        let mut is_duplicate = None;
        for (report, in_flight) in reports {
            let is_duplicate = *is_duplicate.get_or_insert_with(|| report.begins_duplicate());
            if of_partition.as_ref().is_none_or(|before| before.partition != report.partition()) {
                let next = OfPartition::new(report.topic().unwrap_or_default(), report.partition());
                self.land(sender.as_deref(), of_partition.replace(next), now);
            }
            let Some(of_partition) = &mut of_partition else { continue };
            of_partition.landing.count += 1;
            match self.fate(&report, &in_flight, is_duplicate) {
                Fate::Told(told) => {
                    of_partition.hears(&told, &report, self.standing());
                    in_flight.ack.report(told, now);
                }
                Fate::Returns => match again(&report, in_flight) {
                    Ok(returned) => of_partition.landing.returned.push(returned),
                    Err((error, in_flight)) => in_flight.ack.report(Err(error), now),
                },
                Fate::Elsewhere => match (again(&report, in_flight), &sender) {
                    (Ok((_, outgoing)), Some(sender)) => sender.choose_anew(outgoing),
                    (Ok((_, outgoing)), None) => outgoing.report(Err(closed()), now),
                    (Err((error, in_flight)), _) => in_flight.ack.report(Err(error), now),
                },
            }
        }
        self.land(sender.as_deref(), of_partition, now);
    }

    fn land(&self, sender: Option<&Sender>, of_partition: Option<OfPartition<'_>>, now: Instant) {
        let (Some(sender), Some(landed)) = (sender, of_partition) else { return };
        if landed.landing.has_failure {
            self.epoch.batch_failed();
        }
        sender.landed(landed, now);
    }

    fn fate(&self, report: &DeliveryReport<'_>, in_flight: &InFlight, is_duplicate: bool) -> Fate {
        let timestamp = report.timestamp();
        let is_append_time = timestamp.is_append_time && self.broker == BrokerKind::Kafka;
        let written = |offset| Written {
            partition: report.partition(),
            offset,
            append_time: is_append_time.then_some(timestamp.millis),
        };
        let persistence = report.persistence();
        let Some(code) = report.failure() else {
            if report.is_implied() {
                let reason = "only later records of the partition were acknowledged".into();
                return Fate::Told(Err(Error::AcknowledgementLost { reason }));
            }
            self.observed.acknowledged.fetch_add(1, Relaxed);
            return Fate::Told(Ok(written((!is_duplicate).then(|| report.offset()))));
        };
        match (persistence, code, self.standing()) {
            // confirmed although the acknowledgement was not plain: only its offset is lost
            (Persistence::Certain, ..) => return Fate::Told(Ok(written(None))),
            (Persistence::Not, Code::InvalidProducerEpoch, Standing::Current) => {
                if self.epoch.is_refused_now() {
                    self.observed.wake_link();
                }
                return Fate::Returns;
            }
            (Persistence::Not, Code::InvalidProducerEpoch | Code::PurgeQueue, Standing::Replaced) => {
                return Fate::Returns;
            }
            (Persistence::Not, Code::UnknownPartition, _) if !in_flight.is_partition_named => {
                return Fate::Elsewhere;
            }
            _ => {}
        }
        Fate::Told(Err(error::of_report(Refusal {
            code,
            persistence,
            topic: report.topic().and_then(|topic| TopicName::parse(topic).ok()),
            partition: report.partition(),
            timestamp: in_flight.timestamp,
            reason: report.broker_reason().unwrap_or_else(|| code.to_string()),
        })))
    }
}

/// What the reports of an event say of one partition.
pub struct OfPartition<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub landing: Landing,
    /// Why the topic cannot be written to.
    pub topic_error: Option<Error>,
    /// Bytes of keys and values in a batch of several records that was refused as too large.
    pub too_large: usize,
}

impl<'a> OfPartition<'a> {
    fn new(topic: &'a str, partition: i32) -> Self {
        Self { topic, partition, landing: Landing::default(), topic_error: None, too_large: 0 }
    }

    fn hears(&mut self, told: &Report, report: &DeliveryReport<'_>, standing: Standing) {
        let Err(error) = told else { return };
        self.landing.has_failure = true;
        self.landing.breaks |= match standing {
            Standing::Current => false,
            Standing::Replaced => error.outcome() == Outcome::Unknown,
            Standing::Lost => true,
        };
        match error {
            Error::UnknownTopic(_) | Error::Unauthorized(_) => self.topic_error = Some(error.clone()),
            Error::BatchRefusedAsTooLarge => self.too_large += report.length(),
            _ => {}
        }
    }
}

/// The record of the report, to be sent again, with its place in the order.
fn again(report: &DeliveryReport<'_>, in_flight: InFlight) -> Result<(u32, Outgoing), (Error, InFlight)> {
    let found = match in_flight.ack.found() {
        Ok(found) => found.clone(),
        Err(error) => return Err((error, in_flight)),
    };
    let mut record = report.record(found.topic.name.clone(), in_flight.timestamp);
    record.partition = in_flight.is_partition_named.then(|| report.partition());
    Ok((in_flight.place, Outgoing::again(record, found, report.partition(), in_flight.ack)))
}

fn closed() -> Error {
    Error::BrokerUnavailable { reason: "the producer was closed".into() }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<InFlight>;

    /// For reports that come while rdkafka ends a producer. They come one by one, so that a duplicate batch does not show.
    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        let (Ok(message) | Err((_, message))) = result;
        if let Some(report) = DeliveryReport::of(message) {
            let told = match self.fate(&report, &in_flight, true) {
                Fate::Told(told) => told,
                Fate::Returns | Fate::Elsewhere => Err(closed()),
            };
            in_flight.ack.report(told, Instant::now());
        }
    }
}
