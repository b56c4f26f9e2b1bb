//! librdkafka's callbacks. They run where events are read, so they only read and hand on.

use super::{
    error::{self, Refusal},
    native::report::{DeliveryReport, Persistence},
};
use crate::produce::{Ack, TopicName, Written};
use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext, types::RDKafkaErrorCode,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::mpsc;

/// What is handed on raw, to be understood elsewhere.
#[derive(Debug)]
pub enum Event {
    Log { level: RDKafkaLogLevel, facility: String, text: String },
    Statistics(Vec<u8>),
}

/// The callbacks of one librdkafka client.
pub struct Context {
    events: mpsc::Sender<Event>,
    observed: Arc<Observed>,
    broker: BrokerKind,
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
}

impl Context {
    pub fn new(events: mpsc::Sender<Event>, observed: Arc<Observed>, broker: BrokerKind) -> Self {
        Self { events, observed, broker }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // a full channel means a flood of lines, of which losing some is right
        let _ = self.events.try_send(Event::Log { level, facility: facility.into(), text: text.into() });
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // the next ones will do
        let _ = self.events.try_send(Event::Statistics(statistics.to_vec()));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // "all brokers down" follows the errors that say why, and says nothing itself
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.observed.set_error(describe(&error, reason));
        }
    }
}

/// What failed first, then librdkafka's text: an operator looks for the word TLS or authentication.
fn describe(error: &KafkaError, reason: &str) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::SSL) => format!("TLS failed: {reason}"),
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            format!("authentication failed: {reason}")
        }
        Some(RDKafkaErrorCode::Resolve) => format!("name resolution failed: {reason}"),
        _ => reason.to_owned(),
    }
}

impl Context {
    /// One report; `now` is when it came.
    pub fn delivered(&self, report: DeliveryReport<'_>, ack: Ack, now: Instant) {
        let timestamp = report.timestamp();
        let is_append_time = timestamp.is_append_time && self.broker == BrokerKind::Kafka;
        let written = Written {
            partition: report.partition(),
            offset: report.offset(),
            append_time: is_append_time.then_some(timestamp.millis),
        };
        let persistence = report.persistence();
        let verdict = match report.failure() {
            None => {
                self.observed.acknowledged.fetch_add(1, Relaxed);
                Ok(written)
            }
            // confirmed although the acknowledgement was not plain: only its offset is lost
            Some(_) if persistence == Persistence::Certain => Ok(Written { offset: None, ..written }),
            Some(code) => Err(error::of_report(Refusal {
                code,
                persistence,
                topic: report.topic().and_then(|topic| TopicName::parse(&topic).ok()),
                partition: report.partition(),
                timestamp: timestamp.millis,
                reason: report.broker_reason().unwrap_or_else(|| code.to_string()),
            })),
        };
        ack.report(verdict, now);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ack>;

    /// For reports that come while rdkafka flushes or ends a producer.
    fn delivery(&self, result: &DeliveryResult<'_>, ack: Box<Ack>) {
        let (Ok(message) | Err((_, message))) = result;
        if let Some(report) = DeliveryReport::of(message) {
            self.delivered(report, *ack, Instant::now());
        }
    }
}
