//! TLS, authentication and metadata, by the same library and settings that the service uses.

use super::{Line, Verdict};
use crate::{
    config::{self, Config},
    kafka::client::client_config,
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
struct Fault {
    code: RDKafkaErrorCode,
    reason: String,
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

/// How far the bootstrap got.
enum Answer {
    /// With so many brokers.
    Metadata(usize),
    /// The bootstrap address told the brokers' addresses, and none of them took a request.
    AddressesOnly,
    None(RDKafkaErrorCode),
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
        let client = client_config(&config.kafka, &config.limits).map_err(|error| fail(error.to_string()))?;
        let producer = client.create_with_context(Events::default()).map_err(|error| {
            fail(match error {
                // Its own text holds the value, which may be a password.
                KafkaError::ClientConfig(_, description, key, _) => format!("{key}: {description}"),
                other => other.to_string(),
            })
        })?;
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
            // A poll of no length would read a single event.
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

fn is_tls(fault: &Fault) -> bool {
    fault.code == RDKafkaErrorCode::SSL
}

fn is_authentication(fault: &Fault) -> bool {
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

/// The lines on TLS, authentication and metadata.
fn connection_lines(kafka: &config::Kafka, answer: &Answer, faults: &[Fault]) -> Vec<Line> {
    // A retry mended what was before the metadata.
    let unmended = if matches!(answer, Answer::Metadata(_)) { &[] } else { faults };
    let connected = !matches!(answer, Answer::None(_));
    let tls = unmended.iter().find(|fault| is_tls(fault));
    let authentication = unmended.iter().find(|fault| is_authentication(fault));
    vec![
        tls_line(kafka, tls, connected || authentication.is_some()),
        authentication_line(kafka, authentication, connected),
        metadata_line(answer, faults, tls.is_some() || authentication.is_some()),
    ]
}

fn metadata_line(answer: &Answer, faults: &[Fault], refused: bool) -> Line {
    const SUBJECT: &str = "metadata";
    match answer {
        Answer::Metadata(brokers) => {
            Line::new(Verdict::Ok, SUBJECT, format!("the cluster has {brokers} broker(s)"))
        }
        Answer::AddressesOnly => {
            let finding =
                "the bootstrap address answers, but the brokers do not at the addresses it gives; see below";
            Line::new(Verdict::Fail, SUBJECT, finding)
        }
        Answer::None(_) if refused => {
            Line::new(Verdict::Skipped, SUBJECT, "not to be had without a connection")
        }
        Answer::None(code) => {
            // That all brokers are down follows from the fault of each and says less.
            let telling = faults.iter().find(|fault| fault.code != RDKafkaErrorCode::AllBrokersDown);
            let reason = telling.map_or_else(|| code.to_string(), |fault| fault.reason.clone());
            let advice = "if the port belongs to Kafka, its listener may want TLS (KAFKA_SSL) or SASL \
                          (KAFKA_SASL_MECHANISM), or these settings use one that it does not have";
            Line::new(Verdict::Fail, SUBJECT, format!("{reason}; {advice}"))
        }
    }
}

fn tls_line(kafka: &config::Kafka, fault: Option<&Fault>, passed: bool) -> Line {
    match (fault, &kafka.tls) {
        (Some(fault), _) => {
            let advice = "check that the port is a TLS listener, that KAFKA_SSL_CA_LOCATION holds the authority \
                          that signed the broker's certificate, and that the certificate names the host";
            Line::new(Verdict::Fail, "TLS", format!("{}; {advice}", fault.reason))
        }
        (None, None) => Line::new(Verdict::Ok, "TLS", "off (KAFKA_SSL), the connection is not encrypted"),
        (None, Some(_)) if passed => {
            Line::new(Verdict::Ok, "TLS", "handshake done, the broker's certificate is trusted")
        }
        (None, Some(_)) => Line::new(Verdict::Skipped, "TLS", "the connection ended without a verdict on it"),
    }
}

fn authentication_line(kafka: &config::Kafka, fault: Option<&Fault>, passed: bool) -> Line {
    const SUBJECT: &str = "authentication";
    match (fault, &kafka.sasl) {
        (Some(fault), Some(sasl)) => {
            let finding = format!(
                "{} as user '{}': {}; check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and that the broker offers \
                 the mechanism",
                sasl.mechanism.as_str(),
                sasl.username,
                fault.reason
            );
            Line::new(Verdict::Fail, SUBJECT, finding)
        }
        (Some(fault), None) => {
            let finding = format!("{}; the broker wants SASL: set KAFKA_SASL_MECHANISM", fault.reason);
            Line::new(Verdict::Fail, SUBJECT, finding)
        }
        (None, None) => Line::new(Verdict::Ok, SUBJECT, "SASL is off (KAFKA_SASL_MECHANISM)"),
        (None, Some(sasl)) if passed => {
            let finding = format!("{} as user '{}'", sasl.mechanism.as_str(), sasl.username);
            Line::new(Verdict::Ok, SUBJECT, finding)
        }
        (None, Some(_)) => Line::new(Verdict::Skipped, SUBJECT, "the connection ended before it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kafka, Sasl, SaslMechanism, Secret, Tls};

    const TIMED_OUT: Answer = Answer::None(RDKafkaErrorCode::OperationTimedOut);

    fn fault(code: RDKafkaErrorCode, reason: &str) -> Fault {
        Fault { code, reason: reason.into() }
    }

    fn secured() -> Kafka {
        let sasl = Sasl {
            mechanism: SaslMechanism::ScramSha512,
            username: "alice".into(),
            password: Secret::new("hunter2"),
        };
        Kafka { tls: Some(Tls::default()), sasl: Some(sasl), ..Kafka::default() }
    }

    fn verdicts(lines: &[Line]) -> Vec<Verdict> {
        lines.iter().map(|line| line.verdict).collect()
    }

    #[test]
    fn what_is_off_is_said_to_be_off() {
        let lines = connection_lines(&Kafka::default(), &Answer::Metadata(3), &[]);
        assert_eq!(verdicts(&lines), [Verdict::Ok; 3]);
        assert!(lines[0].finding.contains("off (KAFKA_SSL)"), "{}", lines[0]);
        assert!(lines[1].finding.contains("off (KAFKA_SASL_MECHANISM)"), "{}", lines[1]);
    }

    #[test]
    fn an_untrusted_certificate_fails_tls_alone() {
        let faults = [fault(RDKafkaErrorCode::SSL, "certificate verify failed")];
        let lines = connection_lines(&secured(), &TIMED_OUT, &faults);
        assert_eq!(verdicts(&lines), [Verdict::Fail, Verdict::Skipped, Verdict::Skipped]);
        assert!(lines[0].finding.contains("KAFKA_SSL_CA_LOCATION"), "{}", lines[0]);
    }

    #[test]
    fn a_wrong_password_fails_authentication_after_tls() {
        let faults = [fault(RDKafkaErrorCode::Authentication, "Invalid username or password")];
        let lines = connection_lines(&secured(), &TIMED_OUT, &faults);
        assert_eq!(verdicts(&lines), [Verdict::Ok, Verdict::Fail, Verdict::Skipped]);
        assert!(lines[1].finding.contains("user 'alice'"), "{}", lines[1]);
        assert!(lines.iter().all(|line| !line.to_string().contains("hunter2")));
    }

    #[test]
    fn a_listener_that_hangs_up_fails_metadata_with_librdkafkas_reason() {
        let faults = [fault(RDKafkaErrorCode::BrokerTransportFailure, "disconnected")];
        let lines = connection_lines(&Kafka::default(), &TIMED_OUT, &faults);
        assert_eq!(verdicts(&lines), [Verdict::Ok, Verdict::Ok, Verdict::Fail]);
        assert!(lines[2].finding.starts_with("disconnected"), "{}", lines[2]);
    }

    #[test]
    fn a_fault_of_one_broker_is_told_rather_than_that_all_are_down() {
        let faults = [
            fault(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down"),
            fault(RDKafkaErrorCode::BrokerTransportFailure, "kafka:9092/bootstrap: Disconnected"),
        ];
        let lines = connection_lines(&Kafka::default(), &TIMED_OUT, &faults);
        assert!(lines[2].finding.starts_with("kafka:9092/bootstrap: Disconnected"), "{}", lines[2]);
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
