//! librdkafka's log lines and statistics, understood away from where they come in.

use super::context::Event;
use crate::telemetry::{
    metrics::{BrokerStatistics, Metrics, ProducerStatistics},
    silence::Silences,
};
use rdkafka::{Statistics, config::RDKafkaLogLevel};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

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
            Event::Statistics(json, epoch) => match serde_json::from_slice::<Statistics>(&json) {
                Ok(statistics) => {
                    metrics.set_producer_statistics(&summary(&statistics));
                    statistics.eos.inspect(|eos| epoch.is_now(eos.producer_epoch));
                }
                // librdkafka cuts its statistics off at times (librdkafka#5390); the next ones will do
                Err(error) => tracing::debug!(%error, "librdkafka's statistics are not readable"),
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

fn summary(statistics: &Statistics) -> ProducerStatistics {
    let to_gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    ProducerStatistics {
        queue_messages: to_gauge(statistics.msg_cnt),
        queue_bytes: to_gauge(statistics.msg_size),
        // librdkafka keeps internal brokers (":0/internal") that are no hosts
        brokers: statistics
            .brokers
            .values()
            .filter(|broker| broker.source != "internal")
            .map(|broker| BrokerStatistics {
                broker: if broker.nodeid >= 0 { broker.nodeid.to_string() } else { broker.nodename.clone() },
                up: broker.state == "UP",
                round_trip_seconds: broker
                    .rtt
                    .as_ref()
                    .filter(|rtt| rtt.cnt > 0)
                    .map(|rtt| rtt.avg as f64 / 1e6),
            })
            .collect(),
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

    #[test]
    fn statistics_become_queue_and_broker_figures() {
        let mut statistics = Statistics { msg_cnt: 3, msg_size: 99, ..Default::default() };
        let broker = |nodeid, source: &str, state: &str| rdkafka::statistics::Broker {
            nodeid,
            nodename: "host:9092".into(),
            source: source.into(),
            state: state.into(),
            ..Default::default()
        };
        statistics.brokers.insert("a".into(), broker(1, "learned", "UP"));
        statistics.brokers.insert("b".into(), broker(-1, "configured", "TRY_CONNECT"));
        statistics.brokers.insert("c".into(), broker(-1, "internal", "INIT"));
        let mut summary = summary(&statistics);
        summary.brokers.sort_by(|a, b| a.broker.cmp(&b.broker));
        let brokers: Vec<_> = summary.brokers.iter().map(|b| (b.broker.as_str(), b.up)).collect();
        assert_eq!((summary.queue_messages, summary.queue_bytes), (3, 99));
        assert_eq!(brokers, [("1", true), ("host:9092", false)]);
    }
}
