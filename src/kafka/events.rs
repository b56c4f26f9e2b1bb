//! librdkafka's log lines and statistics, understood away from where they come in.

use super::context::Event;
use crate::telemetry::metrics::{BrokerStatistics, Metrics, ProducerStatistics};
use rdkafka::{Statistics, config::RDKafkaLogLevel};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs until every client that sends events is gone.
pub async fn consume(mut events: mpsc::Receiver<Event>, metrics: Arc<Metrics>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Log { level, facility, text } => log(level, &facility, &text),
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

/// librdkafka's levels, all but the gravest lowered: nearly every line is about a connection, of which the link
/// says once what is wrong, and librdkafka with every attempt.
fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", facility, "{text}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{text}");
        }
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
