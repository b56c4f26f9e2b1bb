//! The variables that begin with `KAFKA_`, and what they become.

use super::{Compression, Kafka, brokers, security};
use crate::config::{Faults, units, variables::Group};
use serde::Deserialize;

#[derive(Deserialize)]
pub(in crate::config) struct KafkaVariables {
    pub(super) brokers: Option<String>,
    pub(super) bootstrap_servers: Option<String>,
    pub(super) broker: Option<String>,
    client_id: Option<String>,
    connect_retries: Option<String>,
    connect_base_delay_ms: Option<String>,
    connection_timeout_ms: Option<String>,
    delivery_timeout_ms: Option<String>,
    linger_ms: Option<String>,
    compression: Option<String>,
    idempotence: Option<String>,
    pub(super) ssl: Option<String>,
    pub(super) ssl_ca_location: Option<String>,
    pub(super) ssl_certificate_location: Option<String>,
    pub(super) ssl_key_location: Option<String>,
    pub(super) ssl_key_password: Option<String>,
    pub(super) sasl_mechanism: Option<String>,
    pub(super) sasl_username: Option<String>,
    pub(super) sasl_password: Option<String>,
    allow_auto_create_topics: Option<String>,
    create_topics: Option<String>,
    topic_partitions: Option<String>,
    topic_replication_factor: Option<String>,
    topic_min_insync_replicas: Option<String>,
}

impl Group for KafkaVariables {
    const PREFIX: &str = "KAFKA_";
}

const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

impl KafkaVariables {
    /// All but `partitioner` and `properties`, which other variables hold.
    pub(in crate::config) fn parse(&self, embedded_flag: bool, faults: &mut Faults) -> Kafka {
        let default = Kafka::default();
        let brokers = brokers::parse(self, embedded_flag, faults);
        let embedded = brokers.is_none();
        let tls = security::tls(self, faults);
        let sasl = security::sasl(self, faults);
        if embedded && tls.is_some() {
            faults.add("KAFKA_SSL", "the embedded Kafka speaks no TLS; unset it, or name real brokers");
        }
        if embedded && sasl.is_some() {
            faults.add(
                "KAFKA_SASL_MECHANISM",
                "the embedded Kafka asks for no credentials; unset it, or name real brokers",
            );
        }
        let mut switch = |variable, given: &Option<String>, default| {
            faults.read(variable, given.as_deref(), units::boolean).unwrap_or(default)
        };
        let idempotence = switch("KAFKA_IDEMPOTENCE", &self.idempotence, default.idempotence);
        let allow_auto_create_topics = switch(
            "KAFKA_ALLOW_AUTO_CREATE_TOPICS",
            &self.allow_auto_create_topics,
            default.allow_auto_create_topics,
        );
        let create_topics = switch("KAFKA_CREATE_TOPICS", &self.create_topics, default.create_topics);
        let mut time = |variable, given: &Option<String>, range, default| {
            faults.read(variable, given.as_deref(), units::milliseconds(range)).unwrap_or(default)
        };
        // the backoff that begins with this delay never exceeds two seconds
        let connect_base_delay = time(
            "KAFKA_CONNECT_BASE_DELAY_MS",
            &self.connect_base_delay_ms,
            1..=2_000,
            default.connect_base_delay,
        );
        // librdkafka's own range of socket.connection.setup.timeout.ms begins at a second
        let connection_timeout = time(
            "KAFKA_CONNECTION_TIMEOUT_MS",
            &self.connection_timeout_ms,
            1_000..=600_000,
            default.connection_timeout,
        );
        // two seconds of it are for librdkafka's late reports, so less than three leaves too little
        let delivery_timeout = time(
            "KAFKA_DELIVERY_TIMEOUT_MS",
            &self.delivery_timeout_ms,
            3_000..=600_000,
            default.delivery_timeout,
        );
        Kafka {
            never_gives_up: default.never_gives_up,
            brokers: brokers.unwrap_or_default(),
            embedded,
            client_id: faults
                .read("KAFKA_CLIENT_ID", self.client_id.as_deref(), client_id)
                .unwrap_or(default.client_id),
            connect_retries: faults.read(
                "KAFKA_CONNECT_RETRIES",
                self.connect_retries.as_deref(),
                units::whole(1..=u32::MAX),
            ),
            connect_base_delay,
            connection_timeout,
            delivery_timeout,
            linger_ms: faults
                .read(
                    "KAFKA_LINGER_MS",
                    self.linger_ms.as_deref(),
                    units::fractional_milliseconds(0.0..=60_000.0),
                )
                .unwrap_or(default.linger_ms),
            compression: faults
                .read("KAFKA_COMPRESSION", self.compression.as_deref(), units::one_of(&COMPRESSIONS))
                .unwrap_or(default.compression),
            idempotence,
            tls,
            sasl,
            allow_auto_create_topics,
            create_topics,
            topic_partitions: faults
                .read("KAFKA_TOPIC_PARTITIONS", self.topic_partitions.as_deref(), units::whole(1..=100_000))
                .unwrap_or(default.topic_partitions),
            topic_replication_factor: faults
                .read(
                    "KAFKA_TOPIC_REPLICATION_FACTOR",
                    self.topic_replication_factor.as_deref(),
                    replication_factor,
                )
                .unwrap_or(default.topic_replication_factor),
            topic_min_insync_replicas: faults.read(
                "KAFKA_TOPIC_MIN_INSYNC_REPLICAS",
                self.topic_min_insync_replicas.as_deref(),
                units::whole(1..=i16::MAX.into()),
            ),
            partitioner: default.partitioner,
            properties: default.properties,
        }
    }
}

fn client_id(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("it must not hold control characters".into());
    }
    Ok(text.to_owned())
}

/// Kafka's protocol has 16 bits for it, and −1 for the broker's `default.replication.factor` (KIP-464).
fn replication_factor(text: &str) -> Result<i32, String> {
    match text.parse::<i16>() {
        Ok(factor) if factor == -1 || factor >= 1 => Ok(factor.into()),
        _ => Err("it must be a whole number from 1 to 32767, or -1 for the broker's default".into()),
    }
}
