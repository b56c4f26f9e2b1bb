//! The adapter to Kafka: librdkafka behind [`crate::produce::Producer`]. It reports what is so and decides
//! no policy.

pub mod client;
mod cluster;
mod context;
mod error;
mod events;
mod link;
mod metadata;
mod partitioner;
mod polled;
mod producer;
mod report;

pub use producer::{Fault, KafkaProducer};
