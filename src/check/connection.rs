//! What the answers and faults of the connection say about TLS, authentication and metadata.

use super::{
    Line, Verdict,
    client::{Fault, is_authentication, is_tls},
};
use crate::config;
use rdkafka::error::RDKafkaErrorCode;

/// How far the bootstrap got.
pub(super) enum Answer {
    /// With so many brokers.
    Metadata(usize),
    /// The bootstrap address told the brokers' addresses, and none of them took a request.
    AddressesOnly,
    None(RDKafkaErrorCode),
}

/// The lines on TLS, authentication and metadata.
pub(super) fn connection_lines(kafka: &config::Kafka, answer: &Answer, faults: &[Fault]) -> Vec<Line> {
    // a retry mended what was before the metadata
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
            // that all brokers are down follows from the fault of each and says less
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
}
