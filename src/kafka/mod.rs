//! The librdkafka adapter.

pub mod admin;
pub mod client;
pub mod describe;
pub mod embedded;
