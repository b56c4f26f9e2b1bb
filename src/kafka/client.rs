//! librdkafka's configuration.

use crate::config;
use rdkafka::ClientConfig;

/// Settings that contradict each other or cannot be handed to librdkafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// What every client of the service has in common.
pub fn client_config(kafka: &config::Kafka, _limits: &config::Limits) -> Result<ClientConfig, ConfigError> {
    if kafka.brokers.is_empty() {
        return Err(ConfigError("no brokers are named; set KAFKA_BROKERS".into()));
    }
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.brokers.join(","));
    client.set("client.id", &kafka.client_id);
    let protocol = match (kafka.tls.is_some(), kafka.sasl.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(tls) = &kafka.tls {
        let ca = tls.ca_location.as_ref().map_or("probe".into(), |path| path.display().to_string());
        client.set("ssl.ca.location", ca);
    }
    if let Some(sasl) = &kafka.sasl {
        client.set("sasl.mechanisms", sasl.mechanism.as_str());
        client.set("sasl.username", &sasl.username);
        client.set("sasl.password", sasl.password.expose());
    }
    for (key, value) in &kafka.properties {
        client.set(key, value);
    }
    Ok(client)
}
