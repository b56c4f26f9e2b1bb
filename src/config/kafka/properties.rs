//! `KAFKA_PROPERTY_<NAME>`: librdkafka's other properties.

use crate::config::{CheckProperty, Faults, Warning, variables::Variables};
use std::collections::BTreeMap;

pub(in crate::config) const PREFIX: &str = "KAFKA_PROPERTY_";

const MAX_IN_FLIGHT: &str = "max.in.flight.requests.per.connection";

/// librdkafka's properties out of `KAFKA_PROPERTY_<NAME>`, whose name in lower case with dots for underscores
/// is librdkafka's. `check` says whether librdkafka knows the property and takes its value.
pub(in crate::config) fn parse(
    variables: &Variables,
    idempotence: bool,
    check: CheckProperty,
    faults: &mut Faults,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let name = name.to_lowercase().replace('_', ".");
        let value = value.trim();
        if let Some(reason) = refusal(&name).or_else(|| refused_in_flight(&name, value, idempotence)) {
            faults.add(variable, reason);
            continue;
        }
        if let Err(reason) = check(&name, value) {
            faults.add(variable, format!("librdkafka refuses it: {reason}"));
            continue;
        }
        if turns_verification_off(&name, value) {
            warnings.push(Warning::new(format!(
                "{variable} lets anybody who can redirect the connection pose as Kafka and read every record"
            )));
        }
        properties.insert(canonical(name), value.to_owned());
    }
    properties
}

/// Why a property cannot be set this way: it carries a guarantee, has a variable of its own, or holds a
/// secret, which only a variable of its own keeps out of the log.
fn refusal(property: &str) -> Option<String> {
    let use_instead = |variable: &str| Some(format!("{property} has a variable of its own; use {variable}"));
    let fixed = |why: &str| Some(format!("{property} cannot be set: {why}; unset it"));
    match property {
        "" => Some("the name of a librdkafka property must follow, KAFKA_PROPERTY_SOCKET_KEEPALIVE_ENABLE for example".into()),
        "acks" | "request.required.acks" => fixed("a 2xx means that all in-sync replicas have the record"),
        "enable.idempotence" => use_instead("KAFKA_IDEMPOTENCE"),
        "message.timeout.ms" | "delivery.timeout.ms" => use_instead("KAFKA_DELIVERY_TIMEOUT_MS"),
        "partitioner" => use_instead("PARTITIONER"),
        "sticky.partitioning.linger.ms" => fixed("the service chooses the partitions itself"),
        "bootstrap.servers" | "metadata.broker.list" => use_instead("KAFKA_BROKERS"),
        "client.id" => use_instead("KAFKA_CLIENT_ID"),
        "linger.ms" | "queue.buffering.max.ms" => use_instead("KAFKA_LINGER_MS"),
        "compression.codec" | "compression.type" => use_instead("KAFKA_COMPRESSION"),
        "security.protocol" => use_instead("KAFKA_SSL and KAFKA_SASL_MECHANISM"),
        "socket.connection.setup.timeout.ms" => use_instead("KAFKA_CONNECTION_TIMEOUT_MS"),
        "allow.auto.create.topics" => use_instead("KAFKA_ALLOW_AUTO_CREATE_TOPICS"),
        "message.max.bytes" => use_instead("MAX_RECORD_BYTES"),
        "queue.buffering.max.messages" | "queue.buffering.max.kbytes" => use_instead("MAX_IN_FLIGHT_BYTES"),
        "ssl.ca.location" | "ssl.ca.pem" => use_instead("KAFKA_SSL_CA_LOCATION"),
        "ssl.certificate.location" | "ssl.certificate.pem" => use_instead("KAFKA_SSL_CERTIFICATE_LOCATION"),
        "ssl.key.password" => use_instead("KAFKA_SSL_KEY_PASSWORD"),
        "statistics.interval.ms" => fixed("the metrics and /ready depend on it"),
        "log.queue" => fixed("librdkafka's log goes through the service's own"),
        "delivery.report.only.error" => fixed("every answer waits for its delivery report"),
        "queuing.strategy" => fixed("records keep the order in which they were accepted"),
        "enable.gapless.guarantee" => fixed("one failed record would stop the whole producer"),
        "transactional.id" | "transaction.timeout.ms" => fixed("the producer is not transactional"),
        _ if property.starts_with("test.mock.") => use_instead("KAFKA_BROKERS=embedded"),
        _ if property.starts_with("sasl.") => {
            use_instead("KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        }
        _ if property.starts_with("ssl.key") => {
            use_instead("KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION")
        }
        _ if ["password", "passphrase", "secret", "token"].iter().any(|word| property.contains(word)) => {
            fixed("a secret would be printed with the other properties")
        }
        _ => None,
    }
}

/// The idempotent producer keeps the order of at most five requests in flight; without it, of one.
fn refused_in_flight(property: &str, value: &str, idempotence: bool) -> Option<String> {
    if !matches!(property, "max.in.flight" | MAX_IN_FLIGHT) {
        return None;
    }
    let (most, with) =
        if idempotence { (5, "KAFKA_IDEMPOTENCE=true") } else { (1, "KAFKA_IDEMPOTENCE=false") };
    match value.parse() {
        Ok(1..=5) if most == 5 => None,
        Ok(1) => None,
        _ => Some(format!(
            "{value:?}: it must be a whole number from 1 to {most} with {with}, or records may change their order"
        )),
    }
}

/// One name for the only property with an alias that the service sets too: the two would override one another.
fn canonical(property: String) -> String {
    if property == "max.in.flight" { MAX_IN_FLIGHT.to_owned() } else { property }
}

fn turns_verification_off(property: &str, value: &str) -> bool {
    match property {
        "enable.ssl.certificate.verification" => value.eq_ignore_ascii_case("false"),
        "ssl.endpoint.identification.algorithm" => value.eq_ignore_ascii_case("none"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, value: &str) -> (BTreeMap<String, String>, String, usize) {
        let variables = [(format!("{PREFIX}{name}"), value.to_owned())].into();
        let (mut faults, mut warnings) = (Faults::default(), Vec::new());
        let properties = parse(&variables, true, |_, _| Ok(()), &mut faults, &mut warnings);
        (properties, faults.to_string(), warnings.len())
    }

    #[test]
    fn the_name_becomes_librdkafkas() {
        let (properties, faults, warnings) = parsed("SOCKET_KEEPALIVE_ENABLE", " true ");
        assert_eq!(properties, [("socket.keepalive.enable".into(), "true".into())].into());
        assert_eq!((faults.as_str(), warnings), ("", 0));
    }

    #[test]
    fn a_property_with_a_variable_of_its_own_is_told_which() {
        let (properties, faults, _) = parsed("LINGER_MS", "5");
        assert!(properties.is_empty());
        assert_eq!(
            faults,
            "KAFKA_PROPERTY_LINGER_MS: linger.ms has a variable of its own; use KAFKA_LINGER_MS"
        );
    }

    #[test]
    fn guarantees_and_secrets_are_refused_without_showing_the_value() {
        for name in [
            "ACKS",
            "REQUEST_REQUIRED_ACKS",
            "ENABLE_IDEMPOTENCE",
            "MESSAGE_TIMEOUT_MS",
            "DELIVERY_TIMEOUT_MS",
            "PARTITIONER",
            "TRANSACTIONAL_ID",
            "DELIVERY_REPORT_ONLY_ERROR",
            "QUEUING_STRATEGY",
            "SASL_PASSWORD",
            "SASL_OAUTHBEARER_CLIENT_SECRET",
            "SSL_KEY_PEM",
            "SSL_KEYSTORE_PASSWORD",
            "TEST_MOCK_NUM_BROKERS",
            "",
            "SOME_TOKEN",
        ] {
            let (properties, faults, _) = parsed(name, "hunter2");
            assert!(properties.is_empty(), "{name}");
            assert!(faults.starts_with(&format!("{PREFIX}{name}: ")), "{name}: {faults}");
            assert!(!faults.contains("hunter2"), "{faults}");
        }
    }

    #[test]
    fn at_most_five_requests_are_in_flight() {
        for name in ["MAX_IN_FLIGHT", "MAX_IN_FLIGHT_REQUESTS_PER_CONNECTION"] {
            let (properties, faults, _) = parsed(name, "5");
            assert_eq!((properties, faults.as_str()), ([(MAX_IN_FLIGHT.into(), "5".into())].into(), ""));
            assert_ne!(parsed(name, "6").1, "");
            assert_ne!(parsed(name, "many").1, "");
        }
        assert!(refused_in_flight("max.in.flight", "2", false).is_some());
        assert!(refused_in_flight("max.in.flight", "1", false).is_none());
    }

    #[test]
    fn verification_goes_off_only_explicitly_and_with_a_warning() {
        let (properties, faults, warnings) = parsed("ENABLE_SSL_CERTIFICATE_VERIFICATION", "false");
        assert_eq!((properties.len(), faults.as_str(), warnings), (1, "", 1));
        assert_eq!(parsed("ENABLE_SSL_CERTIFICATE_VERIFICATION", "true").2, 0);
    }
}
