//! Logs, metrics, and the limiter of repeated log lines.

pub mod metrics;
pub mod silence;
pub mod spool_metrics;
pub mod tracing;
