//! The handlers, one file a resource.

pub mod batch;
pub mod docs;
pub mod fixed;
pub mod health;
pub mod index;
pub mod metrics;
pub mod produce;
pub mod ready;
pub mod receipts;
pub mod unmatched;
