//! librdkafka's log lines and statistics, understood away from where they come in.

use super::{context::Event, statistics::Statistics};
use crate::telemetry::{metrics::Metrics, silence::Silences};
use rdkafka::config::RDKafkaLogLevel;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::spawn_blocking};

/// For one kind of librdkafka's lines, which come with every attempt, of every client.
const SILENCE: Duration = Duration::from_secs(10);

/// Runs until every client that sends events is gone.
pub async fn consume(mut events: mpsc::Receiver<Event>, metrics: Arc<Metrics>) {
    let mut lines = Silences::of(SILENCE);
    while let Some(event) = events.recv().await {
        match event {
            Event::Log { level, facility, text } => {
                if let Some(others) = lines.breaks(kind(&facility, &text), Instant::now()) {
                    log(level, &facility, &text, others);
                }
            }
            // not on the runtime's thread, which has requests to see to
            Event::Statistics(json, epoch) => match spawn_blocking(move || Statistics::parse(&json)).await {
                Ok(Ok(statistics)) => {
                    metrics.set_producer_statistics(&statistics.summary());
                    statistics.producer_epoch().inspect(|&now| epoch.is_now(now));
                }
                // librdkafka cuts its statistics off at times (librdkafka#5390); the next ones will do
                Ok(Err(error)) => tracing::debug!(%error, "librdkafka's statistics are not readable"),
                Err(error) => tracing::error!(%error, "librdkafka's statistics were not read"),
            },
        }
    }
}

/// What a line has in common with its repetitions: its thread, which has the broker's name, and its text but for the
/// numbers, which change.
fn kind(facility: &str, text: &str) -> String {
    let (thread, text) = text.split_once("]: ").unwrap_or(("", text));
    let text = text.chars().filter(|character| !character.is_ascii_digit());
    format!("{facility} {thread} ").chars().chain(text).collect()
}

/// At librdkafka's level, which is syslog's. A line stands for so many `others`.
fn log(level: RDKafkaLogLevel, facility: &str, text: &str, others: usize) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, others, "{text}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, others, "{text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, others, "{text}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, others, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_one_broker_that_differ_in_numbers_are_of_one_kind() {
        let line = |port: u32, time: u32, state: &str| {
            let broker = format!("127.0.0.1:{port}/1");
            let fault = format!("Connect failed: Connection refused (after {time}ms in state {state})");
            kind("FAIL", &format!("[thrd:{broker}]: {broker}: {fault}"))
        };
        assert_eq!(line(9092, 0, "CONNECT"), line(9092, 117, "CONNECT"));
        assert_ne!(line(9092, 0, "CONNECT"), line(9093, 0, "CONNECT"), "another broker");
        assert_ne!(line(9092, 0, "CONNECT"), line(9092, 0, "UP"), "another fault");
        assert_ne!(kind("FAIL", "the same"), kind("REQTMOUT", "the same"));
    }
}
