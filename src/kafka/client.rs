//! The only file that spells librdkafka's configuration keys.

use crate::config::{Kafka, Limits, REPORT_MARGIN, Sasl, Tls};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};
use std::{path::Path, time::Duration};

/// Bytes above the largest body, so that librdkafka is never the one that refuses a size.
const SIZE_MARGIN: usize = 1 << 20;

/// librdkafka's upper bound of `message.max.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_000_000_000;

/// librdkafka's upper bound of `queue.buffering.max.kbytes`.
const QUEUE_MAX_KBYTES: usize = 2_147_483_647;

/// librdkafka's default of `batch.size`.
const BATCH_SIZE: usize = 1_000_000;

/// Why librdkafka would not work with the settings, in its own words, which name the property.
#[derive(Debug, thiserror::Error)]
#[error("librdkafka refuses the settings: {0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub fn of(error: &KafkaError) -> Self {
        Self(error_text(error))
    }

    /// The same with the variables that librdkafka's reason is about.
    pub fn explained(self, kafka: &Kafka) -> Self {
        Self(explain(&self.0, kafka))
    }
}

/// The configuration of the admin client: the producer's connection, with the operator's own properties.
pub fn admin(kafka: &Kafka) -> ClientConfig {
    let mut client = asking(kafka);
    // it asks the controller, and learns in no other way that this is another broker by now
    learn_often(&mut client);
    client
}

/// A client that produces nothing.
fn asking(kafka: &Kafka) -> ClientConfig {
    let mut client = connection(kafka);
    set_properties(&mut client, kafka);
    client
}

/// The configuration of the client that asks whether Kafka answers, and for names that may have no topic. It gives up on
/// a broker that does not answer within a second and asks another one, which the producer must not: its requests may take
/// longer. What it is told of a name it forgets soon. The one topic that it has, for the probes, is asked for more often.
pub fn prober(kafka: &Kafka) -> ClientConfig {
    let mut client = asking(kafka);
    client
        // the producer logs the same brokers' faults
        .set_log_level(RDKafkaLogLevel::Emerg)
        .set("socket.timeout.ms", "1000")
        .set("metadata.max.age.ms", "2000")
        .set("allow.auto.create.topics", "false");
    client
}

/// What every client of the cluster shares: where it is and how to prove who we are.
fn connection(kafka: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    client
        .set("bootstrap.servers", kafka.brokers.join(","))
        .set("client.id", &kafka.client_id)
        .set("socket.connection.setup.timeout.ms", millis(kafka.connection_timeout))
        .set("socket.timeout.ms", millis(kafka.delivery_timeout.min(Duration::from_secs(60))))
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "100")
        // with librdkafka's jitter of up to a half more, shorter than one probe of the link
        .set("reconnect.backoff.max.ms", "1000")
        .set("security.protocol", security_protocol(kafka));
    if let Some(tls) = &kafka.tls {
        set_tls(&mut client, tls);
    }
    if let Some(sasl) = &kafka.sasl {
        set_sasl(&mut client, sasl);
    }
    client
}

/// The configuration of the shared producer, checked by librdkafka itself.
pub fn producer(kafka: &Kafka, limits: &Limits) -> Result<ClientConfig, ConfigError> {
    let mut client = connection(kafka);
    let message_max_bytes =
        (limits.max_body_bytes.max(limits.max_record_bytes) + SIZE_MARGIN).min(MESSAGE_MAX_BYTES);
    // above what the admission budget lets in, so that a full queue is never the first signal
    let queue_kbytes = (2 * limits.max_in_flight_bytes / 1024 + 1024).min(QUEUE_MAX_KBYTES);
    client
        .set("acks", "all")
        .set("enable.idempotence", kafka.idempotence.to_string())
        .set("max.in.flight.requests.per.connection", if kafka.idempotence { "5" } else { "1" })
        .set("message.timeout.ms", message_timeout(kafka))
        .set("linger.ms", kafka.linger_ms.to_string())
        .set("compression.type", kafka.compression.as_str())
        .set("allow.auto.create.topics", kafka.allow_auto_create_topics.to_string())
        .set("message.max.bytes", message_max_bytes.to_string())
        .set("queue.buffering.max.kbytes", queue_kbytes.to_string())
        .set("queue.buffering.max.messages", "0")
        .set("statistics.interval.ms", "5000");
    set_properties(&mut client, kafka);
    client.create_native_config().map_err(|error| ConfigError::of(&error).explained(kafka))?;
    Ok(client)
}

/// 0 is for ever.
fn message_timeout(kafka: &Kafka) -> String {
    if kafka.never_gives_up {
        return "0".into();
    }
    millis(kafka.delivery_timeout.saturating_sub(REPORT_MARGIN))
}

/// The same producer, but with every record in a batch of its own.
pub fn alone(producer: &ClientConfig) -> ClientConfig {
    let mut client = producer.clone();
    client.set("batch.num.messages", "1").set("linger.ms", "0").set("statistics.interval.ms", "0");
    // look-ups bring the shared client's topics up to date, and not those that this one has: few, of refused batches
    learn_often(&mut client);
    client
}

/// Has the client ask every few seconds for its brokers and for the topics that it has, in place of every five minutes.
fn learn_often(client: &mut ClientConfig) {
    for (name, value) in [("topic.metadata.refresh.interval.ms", "5000"), ("metadata.max.age.ms", "900000")] {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    }
}

/// Whether requests of the producer carry sequences.
pub fn is_idempotent(producer: &ClientConfig) -> bool {
    producer.get("enable.idempotence") == Some("true")
}

/// Bytes of a record batch, from which on the producer begins another one.
pub fn batch_size(producer: &ClientConfig) -> usize {
    producer.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_SIZE)
}

/// Sets the operator's own properties.
fn set_properties(client: &mut ClientConfig, kafka: &Kafka) {
    for (property, value) in &kafka.properties {
        client.set(property, value);
    }
}

/// Why librdkafka would refuse the property, in its own words.
pub fn check_property(property: &str, value: &str) -> Result<(), String> {
    let mut alone = ClientConfig::new();
    alone.set(property, value);
    match alone.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, ..)) => Err(reason),
        Err(other) => Err(other.to_string()),
    }
}

/// librdkafka's reason for making no client, with the variables that set what it names.
fn explain(reason: &str, kafka: &Kafka) -> String {
    const VARIABLES: [(&str, &str); 3] = [
        ("ssl.ca.location", "KAFKA_SSL_CA_LOCATION"),
        ("ssl.certificate.location", "KAFKA_SSL_CERTIFICATE_LOCATION"),
        ("ssl.key.location", "KAFKA_SSL_KEY_LOCATION or KAFKA_SSL_KEY_PASSWORD"),
    ];
    let own = VARIABLES.map(|(property, variable)| (property, variable.to_owned()));
    let operators = kafka.properties.keys().map(|property| (property.as_str(), variable_of(property)));
    let named: Vec<_> = own
        .into_iter()
        .chain(operators)
        .filter(|(property, _)| reason.contains(property))
        .map(|(_, variable)| variable)
        .collect();
    if named.is_empty() { reason.to_owned() } else { format!("{}: {reason}; correct it", named.join(", ")) }
}

/// librdkafka's text, without the value of a property that it refuses, which may be a password.
pub fn error_text(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, property, _value) => format!("{property}: {reason}"),
        other => other.to_string(),
    }
}

fn variable_of(property: &str) -> String {
    format!("KAFKA_PROPERTY_{}", property.to_uppercase().replace('.', "_"))
}

fn security_protocol(kafka: &Kafka) -> &'static str {
    match (&kafka.tls, &kafka.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    }
}

fn set_tls(client: &mut ClientConfig, tls: &Tls) {
    // librdkafka with a static OpenSSL finds the system's certificates only when told to look for them
    client.set("ssl.ca.location", tls.ca_location.as_deref().map_or("probe".into(), path));
    let locations =
        [("ssl.certificate.location", &tls.certificate_location), ("ssl.key.location", &tls.key_location)];
    for (property, location) in locations {
        if let Some(location) = location {
            client.set(property, path(location));
        }
    }
    if let Some(password) = &tls.key_password {
        client.set("ssl.key.password", password.expose());
    }
}

fn set_sasl(client: &mut ClientConfig, sasl: &Sasl) {
    client
        .set("sasl.mechanisms", sasl.mechanism.as_str())
        .set("sasl.username", &sasl.username)
        .set("sasl.password", sasl.password.expose());
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// The version of the library that is linked in.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SaslMechanism, Secret};

    fn kafka() -> Kafka {
        Kafka::default()
    }

    #[test]
    fn the_defaults_carry_the_guarantees() {
        let client = producer(&kafka(), &Limits::default()).unwrap();
        let expected = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "8000"),
            ("allow.auto.create.topics", "false"),
            ("security.protocol", "plaintext"),
        ];
        for (property, value) in expected {
            assert_eq!(client.get(property), Some(value), "{property}");
        }
    }

    #[test]
    fn clients_whose_topics_no_look_up_brings_up_to_date_ask_often_unless_a_property_says_otherwise() {
        const REFRESH: &str = "topic.metadata.refresh.interval.ms";
        let shared = producer(&kafka(), &Limits::default()).unwrap();
        assert_eq!(shared.get(REFRESH), None);
        for client in [alone(&shared), admin(&kafka())] {
            assert_eq!(client.get(REFRESH), Some("5000"));
            // or librdkafka makes it three times the interval
            assert_eq!(client.get("metadata.max.age.ms"), Some("900000"));
        }
        let own = Kafka { properties: [(REFRESH.to_owned(), "60000".to_owned())].into(), ..kafka() };
        assert_eq!(admin(&own).get(REFRESH), Some("60000"));
    }

    #[test]
    fn in_durable_mode_no_record_is_given_up() {
        let client = producer(&Kafka { never_gives_up: true, ..kafka() }, &Limits::default()).unwrap();
        assert_eq!(client.get("message.timeout.ms"), Some("0"));
    }

    #[test]
    fn without_idempotence_one_request_is_in_flight() {
        let client = producer(&Kafka { idempotence: false, ..kafka() }, &Limits::default()).unwrap();
        assert_eq!(client.get("max.in.flight.requests.per.connection"), Some("1"));
    }

    #[test]
    fn tls_without_a_ca_takes_the_systems_certificates_and_verifies() {
        let client = producer(&Kafka { tls: Some(Tls::default()), ..kafka() }, &Limits::default()).unwrap();
        assert_eq!(client.get("ssl.ca.location"), Some("probe"));
        assert_eq!(client.get("enable.ssl.certificate.verification"), None);
    }

    #[test]
    fn sasl_and_tls_name_the_protocol_together() {
        let sasl =
            Sasl { mechanism: SaslMechanism::ScramSha512, username: "u".into(), password: Secret::new("p") };
        let both = Kafka { tls: Some(Tls::default()), sasl: Some(sasl), ..kafka() };
        let client = producer(&both, &Limits::default()).unwrap();
        assert_eq!(client.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(client.get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_named_with_its_variable() {
        let properties = [("no.such.thing".to_owned(), "1".to_owned())].into();
        let error = producer(&Kafka { properties, ..kafka() }, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("KAFKA_PROPERTY_NO_SUCH_THING"), "{error}");
    }

    #[test]
    fn an_error_does_not_show_the_value_of_a_property() {
        let error = ClientConfig::new().set("no.such.property", "hunter2").create_native_config().err();
        let text = error_text(&error.unwrap());
        assert!(text.contains("no.such.property") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn other_properties_pass_through() {
        let properties = [("batch.size".to_owned(), "500000".to_owned())].into();
        let client = producer(&Kafka { properties, ..kafka() }, &Limits::default()).unwrap();
        assert_eq!(client.get("batch.size"), Some("500000"));
    }

    #[test]
    fn the_admin_client_connects_with_the_same_properties() {
        let properties = [("broker.address.family".to_owned(), "v4".to_owned())].into();
        let client = admin(&Kafka { properties, ..kafka() });
        assert_eq!(client.get("broker.address.family"), Some("v4"));
    }

    #[test]
    fn the_largest_settings_are_within_librdkafkas_bounds() {
        let limits = Limits {
            max_body_bytes: 1 << 30,
            max_record_bytes: 999_000_000,
            max_in_flight_bytes: 1 << 40,
            ..Limits::default()
        };
        assert!(producer(&kafka(), &limits).is_ok());
    }
}
