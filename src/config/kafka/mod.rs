//! The group of the connection to Kafka, the largest: a file each for what is more than one value.

mod brokers;
mod properties;
mod security;
mod variables;

pub(super) use properties::{PREFIX as PROPERTY_PREFIX, parse as parse_properties};
pub(super) use variables::KafkaVariables;

use super::Secret;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// The connection to Kafka and the producer on it.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, at least one; empty where `embedded` is set.
    pub brokers: Vec<String>,
    /// Run librdkafka's mock cluster in this process instead of connecting to a real one.
    pub embedded: bool,
    pub client_id: String,
    /// Attempts at the first connection; None for ever.
    pub connect_retries: Option<u32>,
    pub connect_base_delay: Duration,
    /// For the set-up of one connection, TLS and SASL included.
    pub connection_timeout: Duration,
    /// From the end of a request's body to its answer.
    pub delivery_timeout: Duration,
    /// In durable mode: the producer gives no record up, however long Kafka is away, since whoever waited for it has
    /// stored it meanwhile. That keeps the order of the records that it has.
    pub never_gives_up: bool,
    /// Milliseconds; fractions are allowed.
    pub linger_ms: f64,
    pub compression: Compression,
    pub idempotence: bool,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    pub allow_auto_create_topics: bool,
    pub create_topics: bool,
    pub topic_partitions: i32,
    pub topic_replication_factor: i32,
    /// `min.insync.replicas` of the topics that the service makes; None for the broker's.
    pub topic_min_insync_replicas: Option<i32>,
    pub partitioner: Partitioner,
    /// librdkafka properties that have no variable of their own, by librdkafka's name.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    /// The variables whose secrets or names end with a line break, as files have it that are mounted.
    pub(in crate::config) fn with_line_breaks(&self) -> impl Iterator<Item = &'static str> {
        let sasl = self.sasl.as_ref();
        [
            ("KAFKA_SASL_USERNAME", sasl.map(|sasl| sasl.username.as_str())),
            ("KAFKA_SASL_PASSWORD", sasl.map(|sasl| sasl.password.expose())),
            (
                "KAFKA_SSL_KEY_PASSWORD",
                self.tls.as_ref().and_then(|tls| Some(tls.key_password.as_ref()?.expose())),
            ),
        ]
        .into_iter()
        .filter(|(_, text)| text.is_some_and(|text| text.ends_with(['\n', '\r'])))
        .map(|(variable, _)| variable)
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".into()],
            embedded: false,
            client_id: "kafka-inlet".into(),
            connect_retries: None,
            connect_base_delay: Duration::from_millis(500),
            connection_timeout: Duration::from_secs(10),
            delivery_timeout: Duration::from_secs(10),
            never_gives_up: false,
            linger_ms: 1.0,
            compression: Compression::Lz4,
            idempotence: true,
            tls: None,
            sasl: None,
            allow_auto_create_topics: false,
            create_topics: false,
            topic_partitions: 3,
            topic_replication_factor: 1,
            topic_min_insync_replicas: None,
            partitioner: Partitioner::Java,
            properties: BTreeMap::new(),
        }
    }
}

/// Paths of PEM files; None takes librdkafka's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// None probes the system's certificates.
    pub ca_location: Option<PathBuf>,
    pub certificate_location: Option<PathBuf>,
    pub key_location: Option<PathBuf>,
    pub key_password: Option<Secret>,
}

/// Who the service is to the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

/// How the service proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    /// Kafka's own name of the mechanism.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The codec of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// Kafka's own name of the codec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Who chooses the partition of a record whose sender has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// Keys land where Kafka's Java client puts them.
    Java,
    /// The `tenant-id` header decides, else the key, else chance.
    Tenant,
}
