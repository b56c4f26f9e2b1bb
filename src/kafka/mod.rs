//! The adapter to Kafka: librdkafka behind [`crate::produce::Producer`]. It reports what is so and decides
//! no policy.

pub mod admin;
mod brokers;
pub mod client;
mod cluster;
mod configured_topics;
mod context;
mod embedded;
mod epoch;
mod error;
mod events;
mod flusher;
mod lane;
mod lanes;
mod link;
mod look_ups;
mod metadata;
pub mod native;
// reached by the micro-benchmarks
pub mod partitioner;
mod polled;
mod producer;
mod reports;
mod retire;
mod sender;
mod statistics;
mod sync;
#[cfg(test)]
mod tests;
mod topic_config;

pub use embedded::{EmbeddedCluster, EmbeddedClusterError};
pub use flusher::Flusher;
pub use polled::StartError;
pub use producer::KafkaProducer;
