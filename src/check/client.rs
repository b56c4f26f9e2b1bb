//! TLS, authentication and metadata, by the same library and settings that the service uses.

use super::{
    Line, Verdict,
    connection::{Answer, connection_lines},
};
use crate::{
    config::{self, Config},
    kafka::client,
};
use rdkafka::{
    ClientContext, Message,
    client::Client,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::MetadataBroker,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// For one request for metadata, the connection's set-up included; others follow.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to read librdkafka's events after each attempt.
const EVENT_WAIT: Duration = Duration::from_millis(50);

/// What became of the one record: partition and offset, or the error.
pub(super) type Delivered = Result<(i32, i64), KafkaError>;

/// A client of its own, with which nothing of the service runs.
pub(super) struct CheckClient {
    producer: BaseProducer<Events>,
    pub(super) timeout: Duration,
}

/// What librdkafka reports on its own.
#[derive(Default)]
struct Events {
    faults: Mutex<Vec<Fault>>,
    delivered: Mutex<Option<Delivered>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: RDKafkaErrorCode,
    pub(super) reason: String,
}

/// A broker as the cluster advertises it to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) host: String,
    pub(super) port: i32,
}

impl From<&MetadataBroker> for Broker {
    fn from(broker: &MetadataBroker) -> Self {
        Self { id: broker.id(), host: broker.host().to_owned(), port: broker.port() }
    }
}

impl Events {
    fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Events {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let fault = Fault { code, reason: reason.to_owned() };
            self.faults().push(fault);
        }
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivered = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        *self.delivered.lock().unwrap_or_else(PoisonError::into_inner) = Some(delivered);
    }
}

impl CheckClient {
    /// Fails with a line where the settings do not make a client: certificates that cannot be read, say.
    pub(super) fn new(config: &Config) -> Result<Self, Line> {
        let fail = |reason: String| {
            Line::new(Verdict::Fail, "settings", format!("{reason}; correct the KAFKA_* variable it names"))
        };
        let settings = client::producer(&config.kafka, &config.limits);
        let settings = settings.map_err(|error| fail(error.to_string()))?;
        let producer = settings.create_with_context(Events::default());
        let producer = producer.map_err(|error| fail(client::error_text(&error)))?;
        Ok(Self { producer, timeout: config.kafka.connection_timeout })
    }

    pub(super) fn client(&self) -> &Client<impl ClientContext + use<>> {
        self.producer.client()
    }

    /// Connects and authenticates. The brokers are those of the metadata, or, where it was not to be had, those
    /// that librdkafka has heard of.
    pub(super) fn connect(&self, kafka: &config::Kafka) -> (Vec<Line>, Vec<Broker>) {
        let answer = self.fetch_metadata();
        let faults = self.producer.context().faults();
        let learned = advertised_brokers(&faults);
        let answered = match &answer {
            Ok(brokers) => Answer::Metadata(brokers.len()),
            Err(_) if !learned.is_empty() => Answer::AddressesOnly,
            Err(code) => Answer::None(*code),
        };
        (connection_lines(kafka, &answered, &faults), answer.unwrap_or(learned))
    }

    /// In short waits, so that a refusal that no retry can mend ends them.
    fn fetch_metadata(&self) -> Result<Vec<Broker>, RDKafkaErrorCode> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let answer = self.producer.client().fetch_metadata(None, ATTEMPT_TIMEOUT);
            // a poll of no length would read a single event
            self.producer.poll(EVENT_WAIT);
            let code = match answer {
                Ok(metadata) => return Ok(metadata.brokers().iter().map(Broker::from).collect()),
                Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            };
            let faults = self.producer.context().faults();
            let refused = faults.iter().any(|fault| is_tls(fault) || is_authentication(fault));
            if refused || Instant::now() >= deadline {
                return Err(code);
            }
        }
    }

    /// None where no report came in time: the record may or may not have been written.
    pub(super) fn send(&self, record: BaseRecord<'_, (), str>, timeout: Duration) -> Option<Delivered> {
        if let Err((error, _)) = self.producer.send(record) {
            return Some(Err(error));
        }
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            self.producer.poll(Duration::from_millis(50));
            let delivered =
                self.producer.context().delivered.lock().unwrap_or_else(PoisonError::into_inner).take();
            if delivered.is_some() {
                return delivered;
            }
        }
        None
    }
}

pub(super) fn is_tls(fault: &Fault) -> bool {
    fault.code == RDKafkaErrorCode::SSL
}

pub(super) fn is_authentication(fault: &Fault) -> bool {
    matches!(fault.code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)
}

/// The brokers that the faults name. librdkafka leaves the bootstrap addresses as soon as the cluster has told
/// the brokers' own (since 2.10), so that out of reach of these there is mostly no metadata, only faults like
/// `ssl://kafka-1:9092/1: Failed to resolve …`. The node id after the slash is `bootstrap` for the rest.
fn advertised_brokers(faults: &[Fault]) -> Vec<Broker> {
    let mut brokers: Vec<Broker> = Vec::new();
    for broker in faults.iter().filter_map(|fault| advertised_broker(&fault.reason)) {
        if !brokers.contains(&broker) {
            brokers.push(broker);
        }
    }
    brokers
}

fn advertised_broker(reason: &str) -> Option<Broker> {
    let (name, _) = reason.split_once(": ")?;
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    let (address, id) = name.rsplit_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Broker { id: id.parse().ok()?, host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: RDKafkaErrorCode, reason: &str) -> Fault {
        Fault { code, reason: reason.into() }
    }

    #[test]
    fn faults_tell_the_advertised_addresses_but_not_the_bootstrap_ones() {
        let faults = [
            fault(
                RDKafkaErrorCode::Resolve,
                "ssl://kafka-1.invalid:9092/1: Failed to resolve 'kafka-1.invalid:9092'",
            ),
            fault(
                RDKafkaErrorCode::Resolve,
                "kafka-1.invalid:9092/1: Failed to resolve 'kafka-1.invalid:9092'",
            ),
            fault(RDKafkaErrorCode::BrokerTransportFailure, "127.0.0.1:9092/bootstrap: Disconnected"),
            fault(RDKafkaErrorCode::AllBrokersDown, "2/2 brokers are down"),
        ];
        let expected = Broker { id: 1, host: "kafka-1.invalid".into(), port: 9092 };
        assert_eq!(advertised_brokers(&faults), [expected]);
    }
}
