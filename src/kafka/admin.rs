//! What is asked of Kafka's admin API: make topics, read their settings.

use super::client;
use crate::produce::{TopicConfig, TopicName};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{
        AdminClient, AdminOptions, ConfigEntry, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
        TopicReplication,
    },
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{collections::HashMap, thread, time::Duration};
use tokio::sync::OnceCell;

/// For one request, the look-up of the controller and the brokers' own work included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Kafka's name of the setting of a topic.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A client of the admin API, connected on first use. Its calls end within 5 s.
pub struct Admin {
    config: ClientConfig,
    client: OnceCell<AdminClient<AdminContext>>,
}

/// How a topic came to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    Existed,
}

/// Why the admin API gave no answer at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("Kafka's admin API did not answer: {0}")]
pub struct AdminError(String);

struct AdminContext;

impl ClientContext for AdminContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl Admin {
    /// Neither connects nor waits.
    pub fn new(config: &ClientConfig) -> Self {
        let mut config = config.clone();
        // rdkafka's AdminClient never polls the queue that librdkafka logs to, so that every line would stay
        // in memory for ever. The producer logs the same brokers' faults.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        Self { config, client: OnceCell::new() }
    }

    /// Makes the topics that do not exist yet and says of each, in order, how it came to be or why it does
    /// not exist. Without `min_insync_replicas` they have the broker's.
    pub async fn create_topics(
        &self,
        topics: &[TopicName],
        partitions: i32,
        replication_factor: i32,
        min_insync_replicas: Option<i32>,
    ) -> Result<Vec<(TopicName, Result<Created, String>)>, AdminError> {
        let min_insync_replicas = min_insync_replicas.map(|least| least.to_string());
        let new_topics: Vec<NewTopic> = topics
            .iter()
            .map(|topic| {
                let replication = TopicReplication::Fixed(replication_factor);
                let new = NewTopic::new(topic.as_str(), partitions, replication);
                min_insync_replicas.iter().fold(new, |new, least| new.set(MIN_INSYNC_REPLICAS, least))
            })
            .collect();
        // without the operation time-out the answer comes before the topics can be written to
        let options = request_options().operation_timeout(Some(REQUEST_TIMEOUT));
        let results = self.client().await?.create_topics(&new_topics, &options).await.map_err(describe)?;
        let results = results.into_iter().map(|result| match result {
            Ok(_) => Ok(Created::New),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(Created::Existed),
            Err((_, code)) => Err(code.to_string()),
        });
        Ok(topics.iter().cloned().zip(results).collect())
    }

    /// The settings of those topics whose settings the service may read (DESCRIBE_CONFIGS); none where no answer came.
    pub async fn describe_topic_configs(&self, topics: &[TopicName]) -> Vec<(TopicName, TopicConfig)> {
        self.read_configs(topics, |entries| topic_config(|name| entries.get(name)?.value.as_deref())).await
    }

    /// As [`Admin::describe_topic_configs`], for how many replicas must have a record before it is acknowledged.
    pub async fn min_insync_replicas(&self, topics: &[TopicName]) -> Vec<(TopicName, usize)> {
        self.read_configs(topics, |entries| entries.get(MIN_INSYNC_REPLICAS)?.value.as_ref()?.parse().ok())
            .await
    }

    async fn read_configs<T>(
        &self,
        topics: &[TopicName],
        read: impl Fn(&HashMap<&str, &ConfigEntry>) -> Option<T>,
    ) -> Vec<(TopicName, T)> {
        let Ok(client) = self.client().await else { return Vec::new() };
        let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
        let Ok(answers) = client.describe_configs(&resources, &request_options()).await else {
            return Vec::new();
        };
        let configs = answers.into_iter().flatten().filter_map(|described| {
            let OwnedResourceSpecifier::Topic(name) = &described.specifier else { return None };
            let name = topics.iter().find(|topic| topic.as_str() == name)?.clone();
            Some((name, read(&described.entry_map())?))
        });
        configs.collect()
    }

    async fn client(&self) -> Result<&AdminClient<AdminContext>, AdminError> {
        self.client
            .get_or_try_init(|| async {
                let config = self.config.clone();
                // making a client reads certificates from disk
                tokio::task::spawn_blocking(move || config.create_with_context(AdminContext))
                    .await
                    .map_err(|error| AdminError(error.to_string()))?
                    .map_err(describe)
            })
            .await
    }
}

impl Drop for Admin {
    /// Dropping an AdminClient waits for its thread and its connections, which may be on an async thread
    /// here: another thread does it.
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // if no thread can be had the closure, and the client with it, is dropped here
            let _ = thread::Builder::new().name("admin-close".into()).spawn(move || drop(client));
        }
    }
}

fn request_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT))
}

fn describe(error: KafkaError) -> AdminError {
    AdminError(client::error_text(&error))
}

/// Reads the settings by Kafka's names. None where the size limit is not among them.
fn topic_config<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<TopicConfig> {
    let milliseconds = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let log_append_time = value("message.timestamp.type") == Some("LogAppendTime");
    // brokers before KIP-937 (3.6) have one bound for both directions; those up to 3.9 still heed it where
    // the newer ones are not set, which reads as their largest value
    let both = milliseconds("message.timestamp.difference.max.ms").unwrap_or(i64::MAX);
    let bound = |name: &str| match milliseconds(name) {
        _ if log_append_time => i64::MAX,
        None | Some(i64::MAX) => both,
        Some(bound) => bound,
    };
    Some(TopicConfig {
        max_message_bytes: value("max.message.bytes")?.parse().ok()?,
        compacted: value("cleanup.policy")
            .is_some_and(|policies| policies.split(',').any(|policy| policy.trim() == "compact")),
        timestamp_before_max_ms: bound("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: bound("message.timestamp.after.max.ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &'static str)]) -> Option<TopicConfig> {
        topic_config(|name| entries.iter().find(|entry| entry.0 == name).map(|entry| entry.1))
    }

    #[test]
    fn the_settings_of_a_current_broker_are_read() {
        let config = read(&[
            ("max.message.bytes", "2048"),
            ("cleanup.policy", "delete,compact"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "1000"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        let expected = TopicConfig {
            max_message_bytes: 2048,
            compacted: true,
            timestamp_before_max_ms: 1000,
            timestamp_after_max_ms: 3_600_000,
        };
        assert_eq!(config, Some(expected));
    }

    #[test]
    fn an_older_brokers_one_bound_counts_in_both_directions() {
        let config =
            read(&[("max.message.bytes", "1"), ("message.timestamp.difference.max.ms", "5000")]).unwrap();
        assert_eq!((config.timestamp_before_max_ms, config.timestamp_after_max_ms), (5000, 5000));
    }

    #[test]
    fn a_bound_that_is_set_wins_over_the_older_one() {
        let config = read(&[
            ("max.message.bytes", "1"),
            ("message.timestamp.difference.max.ms", "5000"),
            ("message.timestamp.before.max.ms", "7000"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ])
        .unwrap();
        assert_eq!((config.timestamp_before_max_ms, config.timestamp_after_max_ms), (7000, 5000));
    }

    #[test]
    fn log_append_time_bounds_no_timestamp() {
        let config = read(&[
            ("max.message.bytes", "1"),
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.before.max.ms", "1000"),
        ])
        .unwrap();
        assert_eq!((config.timestamp_before_max_ms, config.timestamp_after_max_ms), (i64::MAX, i64::MAX));
    }

    #[test]
    fn without_a_size_limit_nothing_is_known() {
        assert_eq!(read(&[("cleanup.policy", "compact")]), None);
    }
}
