//! librdkafka's callbacks. They run where events are read, so they only read and hand on.

use super::{
    epoch::Epoch,
    native::{report::DeliveryReport, topic::InFlight},
    sender::Sender,
};
use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext, types::RDKafkaErrorCode as Code,
};
use std::{
    iter,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
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
    pub(super) observed: Arc<Observed>,
    pub(super) broker: BrokerKind,
    /// Whose records the client sends; never set for one that sends none.
    pub(super) sender: Arc<OnceLock<Weak<Sender>>>,
    pub(super) epoch: Arc<Epoch>,
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

    /// A broker has acknowledged a record.
    pub fn acknowledges(&self) {
        self.acknowledged.fetch_add(1, Relaxed);
    }

    /// Has the link look at once.
    pub fn wake_link(&self) {
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

    /// What is to become of its records.
    pub fn standing(&self) -> Standing {
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
    let reason = cause(reason);
    match error.rdkafka_error_code() {
        Some(Code::SSL) => format!("TLS failed: {reason}"),
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
            format!("authentication failed: {reason}")
        }
        Some(Code::Resolve) => format!("name resolution failed: {reason}"),
        _ => reason.to_owned(),
    }
}

/// librdkafka's text without the name of its thread's broker, which is often said twice, and without what it adds about
/// itself: "(after 0ms in state CONNECT, 1 identical error(s) suppressed)".
fn cause(reason: &str) -> &str {
    let reason = reason.find(" (after ").map_or(reason, |end| &reason[..end]);
    match reason.split_once(": ") {
        Some((broker, rest)) if broker.contains('/') && !broker.contains(' ') => rest,
        _ => reason,
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<InFlight>;

    /// For reports that come while rdkafka ends a producer. They come one by one, so that a duplicate batch does not show.
    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        let (Ok(message) | Err((_, message))) = result;
        if let Some(report) = DeliveryReport::of(message) {
            self.delivered(iter::once((report, *in_flight)), Some(true), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_adds_about_itself_is_left_out() {
        for (text, expected) in [
            (
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT, \
                 1 identical error(s) suppressed)",
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
            ),
            ("sasl_ssl://a:9093/bootstrap: SASL failed (after 5ms in state AUTH_REQ)", "SASL failed"),
            ("no broker answers", "no broker answers"),
        ] {
            assert_eq!(cause(text), expected);
        }
    }
}
