//! librdkafka's statistics, of which little is needed: most of the text is about topics and partitions, and is skipped.

use crate::telemetry::metrics::{BrokerStatistics, ProducerStatistics};
use serde::Deserialize;
use std::collections::HashMap;

/// What is read (librdkafka's STATISTICS.md).
#[derive(Debug, Default, Deserialize)]
pub struct Statistics {
    msg_cnt: i64,
    msg_size: i64,
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    eos: Option<Eos>,
}

#[derive(Debug, Default, Deserialize)]
struct Broker {
    nodeid: i64,
    nodename: String,
    source: String,
    state: String,
    rtt: Option<Window>,
}

/// Round trips, in microseconds.
#[derive(Debug, Default, Deserialize)]
struct Window {
    avg: i64,
    cnt: i64,
}

#[derive(Debug, Default, Deserialize)]
struct Eos {
    producer_epoch: i64,
}

impl Statistics {
    /// Takes time with the length of the text, which grows with the number of topics.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// None where the producer is not idempotent.
    pub fn producer_epoch(&self) -> Option<i64> {
        self.eos.as_ref().map(|eos| eos.producer_epoch)
    }

    pub fn summary(&self) -> ProducerStatistics {
        ProducerStatistics {
            queue_messages: self.msg_cnt,
            queue_bytes: self.msg_size,
            // librdkafka keeps internal brokers (":0/internal") that are no hosts
            brokers: self.brokers.values().filter(|broker| broker.source != "internal").map(broker).collect(),
        }
    }
}

fn broker(broker: &Broker) -> BrokerStatistics {
    let rtt = broker.rtt.as_ref().filter(|rtt| rtt.cnt > 0);
    BrokerStatistics {
        broker: if broker.nodeid >= 0 { broker.nodeid.to_string() } else { broker.nodename.clone() },
        up: broker.state == "UP",
        round_trip_seconds: rtt.map(|rtt| rtt.avg as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As librdkafka writes it, shortened.
    const TEXT: &str = r#"{
        "name": "rdkafka#producer-1", "msg_cnt": 3, "msg_size": 99,
        "brokers": {
            "a:1/1": {"name": "a:1/1", "nodeid": 1, "nodename": "a:1", "source": "learned", "state": "UP",
                "rtt": {"min": 1, "avg": 1500, "cnt": 4}, "toppars": {"t-0": {"topic": "t", "partition": 0}}},
            "b:1/bootstrap": {"nodeid": -1, "nodename": "b:1", "source": "configured", "state": "TRY_CONNECT",
                "rtt": {"avg": 0, "cnt": 0}},
            ":0/internal": {"nodeid": -1, "nodename": "", "source": "internal", "state": "INIT"}
        },
        "topics": {"t": {"topic": "t", "partitions": {"0": {"partition": 0, "msgq_cnt": 0}}}},
        "eos": {"idemp_state": "Assigned", "producer_id": 4, "producer_epoch": 7}
    }"#;

    #[test]
    fn they_become_queue_and_broker_figures_and_the_epoch() {
        let statistics = Statistics::parse(TEXT.as_bytes()).unwrap();
        let mut summary = statistics.summary();
        summary.brokers.sort_by(|a, b| a.broker.cmp(&b.broker));
        let brokers: Vec<_> =
            summary.brokers.iter().map(|b| (b.broker.as_str(), b.up, b.round_trip_seconds)).collect();
        assert_eq!((summary.queue_messages, summary.queue_bytes), (3, 99));
        assert_eq!(brokers, [("1", true, Some(0.0015)), ("b:1", false, None)]);
        assert_eq!(statistics.producer_epoch(), Some(7));
    }

    #[test]
    fn a_producer_that_is_not_idempotent_has_no_epoch() {
        let statistics = Statistics::parse(br#"{"msg_cnt":0,"msg_size":0,"brokers":{}}"#).unwrap();
        assert_eq!(statistics.producer_epoch(), None);
    }

    #[test]
    fn a_text_that_is_cut_off_is_not_read() {
        assert!(Statistics::parse(&TEXT.as_bytes()[..TEXT.len() / 2]).is_err());
    }
}
