//! kafka-inlet: HTTP in, Kafka out.
//!
//! Data flows one way: HTTP request → records → delivery → receipts → HTTP response.
//!
//! | module | holds | may import |
//! |---|---|---|
//! | [`app`] | the composition root | everything |
//! | [`check`] | the `check` subcommand: what works between here and Kafka | config, kafka, produce |
//! | [`cli`] | flags and subcommands | config, produce |
//! | [`config`] | settings; the only reader of the environment | produce's topic names |
//! | [`envelope`] | the native JSON bodies, turned into records; pure | produce |
//! | [`health`] | the `health` subcommand: asks a running service | config |
//! | [`http`] | routes, extractors, middleware, the listener | envelope, produce, lifecycle, config, telemetry |
//! | [`kafka`] | the librdkafka adapter behind [`produce::Producer`] | produce, lifecycle, config, telemetry |
//! | [`lifecycle`] | supervision, readiness, shutdown | config |
//! | [`produce`] | the core: record, delivery, receipt, error, pipeline | telemetry |
//! | [`telemetry`] | logs and metrics | config |
//!
//! The test `arrows` at the end of this file reads every `use crate::` line and holds that table.

pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod envelope;
pub mod health;
pub mod http;
pub mod kafka;
pub mod lifecycle;
pub mod produce;
pub mod telemetry;
