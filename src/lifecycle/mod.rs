//! How the process lives: supervision of long-lived work, readiness, shutdown.

pub mod readiness;
pub mod shutdown;
pub mod supervisor;
