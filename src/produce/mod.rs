//! The core: what a record is, what may become of it, and the pipeline that takes records to their receipts.
//! Nothing here knows HTTP, librdkafka or the environment.

mod admission;
mod check;
mod dead_letter;
mod delivery;
mod duration;
mod error;
#[cfg(test)]
pub mod fake;
mod pipeline;
mod producer;
mod receipt;
mod record;
mod shares;
mod size;
mod spool;
mod submission;
mod timestamp;
mod topic;

pub use admission::{Budget, Permit};
pub use check::{RecordLimits, check_record};
pub use dead_letter::{DeadLetterTopic, InvalidDeadLetterTopic};
pub use delivery::{Ack, Admitted, Delivery, Listener, Outgoing, Report, Written};
pub use duration::{InvalidDuration, duration_text, parse_duration};
pub use error::{Error, Outcome};
pub use pipeline::{Accepted, Arrival, Pipeline, Settings, Verdict};
pub use producer::{Batching, Producer, TopicLookup, Turn};
pub use receipt::{InstanceId, InvalidInstanceId, Receipt, ReceiptId, Sequence};
pub use record::{AutomaticHeaders, Header, Record, RecordReceipt, TraceId};
pub use size::{BATCH_OVERHEAD, batch_size, record_size};
pub use spool::{Attempted, DeadLetter, Failure, ReceiptState, Spool, SpoolFuture, Stored};
pub use submission::{Found, Records, Submission, distinct_topics};
pub use timestamp::{RFC3339_LENGTH, write_rfc3339};
pub use topic::{InvalidTopicName, Topic, TopicConfig, TopicId, TopicName};
