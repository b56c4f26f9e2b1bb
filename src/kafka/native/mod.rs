//! The calls into librdkafka that rdkafka does not wrap, or wraps at a price. All of the adapter's unsafe code is
//! here; each file says what it relies on.

pub mod describe;
pub mod event_queue;
pub mod report;
pub mod topic;
