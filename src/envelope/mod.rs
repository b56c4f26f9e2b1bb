//! The native JSON bodies, turned into records. Pure: bytes in, records or named faults out.
//!
//! An envelope is read without building a tree: each member is found as the slice of the body that holds it,
//! so that the sender's value reaches Kafka with the sender's own bytes.

mod batch;
mod enrichment;
mod error;
mod fields;
mod headers;
mod json;
mod members;
mod record;
mod splice;
#[cfg(test)]
mod tests;

pub use batch::{BatchFormat, parse_batch};
pub use error::{BatchError, Error, Faults, Kind};
pub use record::parse_record;

use crate::produce::{AutomaticHeaders, TopicName};
use std::sync::Arc;

/// Where the records of a request go.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The route's topic. The body's `topic` and `partition` are ignored.
    Fixed(&'a TopicName),
    /// The body names its topic.
    Named,
}

/// What the records of one request share.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// Milliseconds since the Unix epoch: the timestamp of records whose sender gave none.
    pub now_ms: i64,
    pub automatic: Arc<AutomaticHeaders>,
    /// The `source` of enriched messages; None turns the enrichment off.
    pub source: Option<&'a str>,
    /// Records that one batch may hold.
    pub max_records: usize,
}
