//! Logs and metrics.

pub mod metrics;
pub mod spool_metrics;
pub mod tracing;
