//! Settings, from the environment to plain data. The only module that reads the environment.

mod http;
mod kafka;
mod limits;
mod log;
mod records;
mod secret;
mod topics;

pub use http::Http;
pub use kafka::{Compression, Kafka, Partitioner, Sasl, SaslMechanism, Tls};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use records::{RecordHeaders, Records};
pub use secret::Secret;
pub use topics::Topics;

/// Every setting of the service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub http: Http,
    pub kafka: Kafka,
    pub limits: Limits,
    pub log: Log,
    pub records: Records,
    pub topics: Topics,
}
