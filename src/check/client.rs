//! TLS, authentication and metadata, by the same library and settings that the service uses.

use super::{Line, Verdict};
use crate::{
    config::{self, Config},
    kafka::client,
};
use rdkafka::{
    ClientContext, Message,
    client::Client,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long librdkafka's events may wait to be read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

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

impl ClientContext for Events {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let fault = Fault { code, reason: reason.to_owned() };
            self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
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
        let producer = settings.create_with_context(Events::default()).map_err(|error| {
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

    /// Connects and authenticates; the metadata is that of the whole cluster, None where it was not to be had.
    pub(super) fn connect(&self, kafka: &config::Kafka) -> (Vec<Line>, Option<Metadata>) {
        let answer = self.fetch_metadata();
        let faults = self.producer.context().faults.lock().unwrap_or_else(PoisonError::into_inner);
        let found = answer.as_ref().map(|metadata| metadata.brokers().len()).map_err(|&code| code);
        (connection_lines(kafka, found, &faults), answer.ok())
    }

    /// In short waits, so that a refusal that no retry can mend ends them.
    fn fetch_metadata(&self) -> Result<Metadata, RDKafkaErrorCode> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let answer = self.producer.client().fetch_metadata(None, POLL_INTERVAL);
            self.producer.poll(Duration::ZERO);
            let code = match answer {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            };
            let faults = self.producer.context().faults.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The lines on TLS, authentication and metadata. `found` is the count of brokers, or why there is none.
fn connection_lines(
    kafka: &config::Kafka,
    found: Result<usize, RDKafkaErrorCode>,
    faults: &[Fault],
) -> Vec<Line> {
    let tls = faults.iter().find(|fault| is_tls(fault)).filter(|_| found.is_err());
    let authentication = faults.iter().find(|fault| is_authentication(fault)).filter(|_| found.is_err());
    let mut lines = vec![tls_line(kafka, tls, found.is_ok() || authentication.is_some())];
    lines.push(authentication_line(kafka, authentication, found.is_ok()));
    lines.push(match found {
        Ok(brokers) => Line::new(Verdict::Ok, "metadata", format!("the cluster has {brokers} broker(s)")),
        Err(_) if tls.is_some() || authentication.is_some() => {
            Line::new(Verdict::Skipped, "metadata", "not to be had without a connection")
        }
        Err(code) => {
            let reason = faults.last().map_or_else(|| code.to_string(), |fault| fault.reason.clone());
            let advice = "if the port belongs to Kafka, its listener may want TLS (KAFKA_SSL) or SASL \
                          (KAFKA_SASL_MECHANISM), or these settings use one that it does not have";
            Line::new(Verdict::Fail, "metadata", format!("{reason}; {advice}"))
        }
    });
    lines
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
        let lines = connection_lines(&Kafka::default(), Ok(3), &[]);
        assert_eq!(verdicts(&lines), [Verdict::Ok; 3]);
        assert!(lines[0].finding.contains("off (KAFKA_SSL)"), "{}", lines[0]);
        assert!(lines[1].finding.contains("off (KAFKA_SASL_MECHANISM)"), "{}", lines[1]);
    }

    #[test]
    fn an_untrusted_certificate_fails_tls_alone() {
        let faults = [fault(RDKafkaErrorCode::SSL, "certificate verify failed")];
        let lines = connection_lines(&secured(), Err(RDKafkaErrorCode::OperationTimedOut), &faults);
        assert_eq!(verdicts(&lines), [Verdict::Fail, Verdict::Skipped, Verdict::Skipped]);
        assert!(lines[0].finding.contains("KAFKA_SSL_CA_LOCATION"), "{}", lines[0]);
    }

    #[test]
    fn a_wrong_password_fails_authentication_after_tls() {
        let faults = [fault(RDKafkaErrorCode::Authentication, "Invalid username or password")];
        let lines = connection_lines(&secured(), Err(RDKafkaErrorCode::OperationTimedOut), &faults);
        assert_eq!(verdicts(&lines), [Verdict::Ok, Verdict::Fail, Verdict::Skipped]);
        assert!(lines[1].finding.contains("user 'alice'"), "{}", lines[1]);
        assert!(lines.iter().all(|line| !line.to_string().contains("hunter2")));
    }

    #[test]
    fn a_listener_that_hangs_up_fails_metadata_with_librdkafkas_reason() {
        let faults = [fault(RDKafkaErrorCode::BrokerTransportFailure, "disconnected")];
        let lines = connection_lines(&Kafka::default(), Err(RDKafkaErrorCode::OperationTimedOut), &faults);
        assert_eq!(verdicts(&lines), [Verdict::Ok, Verdict::Ok, Verdict::Fail]);
        assert!(lines[2].finding.starts_with("disconnected"), "{}", lines[2]);
    }
}
