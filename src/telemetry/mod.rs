//! Logs and metrics.

pub mod metrics;
pub mod tracing;
