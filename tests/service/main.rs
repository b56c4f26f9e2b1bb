//! What the service promises, proven over HTTP against a real Apache Kafka and librdkafka's mock cluster.
//! One file a promise; `support` is what they stand on.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, its helpers too"
)]

mod support;

mod acknowledgement;
mod bad_input;
mod batch;
mod batch_limits;
mod check;
mod delivery;
mod durable;
mod embedded;
mod endpoints;
mod epoch;
mod fault_matrix;
mod harness;
mod load;
mod logs;
mod look_ups;
mod lost_answers;
mod metrics;
mod neighbours_http;
mod outage;
mod partitioner;
mod readme;
mod receipts;
mod records;
mod renamed;
mod replaced_producer;
mod rolling;
mod security;
mod settings;
mod shares;
mod shutdown;
mod spool_backlog;
mod spool_cli;
mod spool_dir;
mod spool_limits;
mod stuck;
mod topics;
