//! Every metric: name, labels, help, buckets. Labels come from closed or bounded sets only. Those of durable delivery
//! are in [`super::spool_metrics`].
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `kafka_producer_connected` | gauge, 0 or 1 | |
//! | `kafka_messages_sent_total` | counter | `topic`, `status`: success, error (not written), unknown |
//! | `kafka_send_duration_seconds` | histogram, from enqueue to delivery report | `topic` |
//! | `kafka_producer_queue_messages`, `kafka_producer_queue_bytes` | gauge, librdkafka's own queue | |
//! | `kafka_broker_up` | gauge, 0 or 1 | `broker`: node id or `bootstrap` address |
//! | `kafka_broker_round_trip_seconds` | gauge, average of the last interval | `broker` |
//! | `http_requests_total` | counter | `method`, `route` (matched, or `unmatched`), `status` |
//! | `http_request_duration_seconds` | histogram | `method`, `route` |
//! | `http_connections` | gauge | |
//! | `http_connections_closed_total` | counter | `reason`: idle, head, body, full, head_timeout, idle_timeout, unread, write_timeout |
//! | `inlet_in_flight_bytes`, `inlet_in_flight_bytes_limit`, `inlet_in_flight_records` | gauge | |
//! | `inlet_build_info` | gauge, always 1 | `version`, `librdkafka` |
//! | `process_*` | CPU, memory, descriptors, start time of the process | |

use super::spool_metrics::SpoolMetrics;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
    core::{AtomicF64, GenericGaugeVec},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

/// The `topic` label of every topic beyond `METRICS_MAX_TOPICS`.
pub const OTHER_TOPICS: &str = "_other";

/// Seconds. Doubling steps where HTTP and Kafka on one network answer, wider ones up to the delivery time-out.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0];

/// All metrics of the service, and the registry that renders them.
pub struct Metrics {
    registry: Registry,
    connected: IntGauge,
    messages_sent: IntCounterVec,
    send_duration: HistogramVec,
    queue_messages: IntGauge,
    queue_bytes: IntGauge,
    broker_up: IntGaugeVec,
    broker_round_trip: GenericGaugeVec<AtomicF64>,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    http_connections: IntGauge,
    http_connections_closed: IntCounterVec,
    in_flight_bytes: IntGauge,
    in_flight_records: IntGauge,
    max_topics: usize,
    topics: RwLock<HashMap<String, Arc<TopicMetrics>>>,
    /// The values of the `broker` label.
    brokers: Mutex<HashSet<String>>,
}

/// One topic's share, resolved once and then free of look-ups.
pub struct TopicMetrics {
    success: IntCounter,
    error: IntCounter,
    unknown: IntCounter,
    duration: Histogram,
}

/// The share of one method on one route, resolved once.
pub struct RequestMetrics {
    method: &'static str,
    route: &'static str,
    /// The answers that matter for speed: free of look-ups.
    accepted: OnceLock<IntCounter>,
    requests: IntCounterVec,
    duration: Histogram,
}

/// The `status` of a sent record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    Success,
    /// Certainly not written.
    Error,
    /// Perhaps written.
    Unknown,
}

/// What is reserved of `MAX_IN_FLIGHT_BYTES` at the moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    pub bytes: usize,
    pub records: usize,
}

/// What librdkafka's statistics say, in the adapter's own words.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ProducerStatistics {
    pub queue_messages: i64,
    pub queue_bytes: i64,
    pub brokers: Vec<BrokerStatistics>,
}

/// One broker, as the last statistics had it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct BrokerStatistics {
    /// The node id, or `bootstrap` address before it is known.
    pub broker: String,
    pub up: bool,
    pub round_trip_seconds: Option<f64>,
}

impl Metrics {
    /// `longest_send` is the delivery time-out, the last bucket. `librdkafka` is the version of the library.
    pub fn new(
        max_topics: usize,
        longest_send: Duration,
        in_flight_limit: usize,
        librdkafka: &str,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let mut send_buckets = DURATION_BUCKETS.to_vec();
        send_buckets.retain(|&bucket| bucket < longest_send.as_secs_f64());
        send_buckets.push(longest_send.as_secs_f64());
        let mut http_buckets = send_buckets.clone();
        http_buckets.push(longest_send.as_secs_f64() + 1.0);

        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let connected = gauge("kafka_producer_connected", "1 while Kafka answers this service's producer.")?;
        let queue_messages = gauge(
            "kafka_producer_queue_messages",
            "Records in librdkafka's queue, in flight ones included.",
        )?;
        let queue_bytes = gauge("kafka_producer_queue_bytes", "Bytes of records in librdkafka's queue.")?;
        let http_connections = gauge("http_connections", "Open client connections.")?;
        let in_flight_bytes = gauge(
            "inlet_in_flight_bytes",
            "Bytes of request bodies being read and of records that wait for Kafka, against MAX_IN_FLIGHT_BYTES.",
        )?;
        let in_flight_records = gauge("inlet_in_flight_records", "Records that wait for Kafka.")?;
        gauge("inlet_in_flight_bytes_limit", "MAX_IN_FLIGHT_BYTES.")?.set(to_gauge(in_flight_limit));

        let messages_sent = IntCounterVec::new(
            Opts::new(
                "kafka_messages_sent_total",
                "Delivery reports, by topic and outcome; a record that is sent again alone has two.",
            ),
            &["topic", "status"],
        )?;
        let send_duration = HistogramVec::new(
            HistogramOpts::new(
                "kafka_send_duration_seconds",
                "From handing a record to librdkafka to its delivery report.",
            )
            .buckets(send_buckets),
            &["topic"],
        )?;
        let broker_up = IntGaugeVec::new(
            Opts::new("kafka_broker_up", "1 while the connection to the broker is up."),
            &["broker"],
        )?;
        let broker_round_trip = GenericGaugeVec::<AtomicF64>::new(
            Opts::new(
                "kafka_broker_round_trip_seconds",
                "Average round-trip time of requests to the broker.",
            ),
            &["broker"],
        )?;
        let http_requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Answered HTTP requests."),
            &["method", "route", "status"],
        )?;
        let http_connections_closed = IntCounterVec::new(
            Opts::new(
                "http_connections_closed_total",
                "Connections that had to make room or did not read, by reason.",
            ),
            &["reason"],
        )?;
        let http_duration = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "From the request's head to its answer.")
                .buckets(http_buckets),
            &["method", "route"],
        )?;
        let build_info = IntGaugeVec::new(
            Opts::new("inlet_build_info", "Always 1; the labels say what runs."),
            &["version", "librdkafka"],
        )?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), librdkafka]).set(1);

        registry.register(Box::new(messages_sent.clone()))?;
        registry.register(Box::new(send_duration.clone()))?;
        registry.register(Box::new(broker_up.clone()))?;
        registry.register(Box::new(broker_round_trip.clone()))?;
        registry.register(Box::new(http_requests.clone()))?;
        registry.register(Box::new(http_duration.clone()))?;
        registry.register(Box::new(http_connections_closed.clone()))?;
        registry.register(Box::new(build_info))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            registry,
            connected,
            messages_sent,
            send_duration,
            queue_messages,
            queue_bytes,
            broker_up,
            broker_round_trip,
            http_requests,
            http_duration,
            http_connections,
            http_connections_closed,
            in_flight_bytes,
            in_flight_records,
            max_topics,
            topics: RwLock::new(HashMap::new()),
            brokers: Mutex::default(),
        })
    }

    /// Adds the metrics of durable delivery; `limit_bytes` is `SPOOL_MAX_BYTES`. An error at the second call.
    pub fn spool(&self, limit_bytes: u64) -> Result<Arc<SpoolMetrics>, prometheus::Error> {
        SpoolMetrics::register(&self.registry, limit_bytes).map(Arc::new)
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self::new(2, Duration::from_secs(10), 1 << 20, "test").unwrap()
    }

    /// The topic's metrics. Call it for topics that exist only: each of the first ones becomes a label.
    pub fn topic(&self, name: &str) -> Arc<TopicMetrics> {
        {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            let other = || topics.get(OTHER_TOPICS).filter(|_| topics.len() > self.max_topics);
            if let Some(known) = topics.get(name).or_else(other) {
                return Arc::clone(known);
            }
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let label =
            if topics.contains_key(name) || topics.len() < self.max_topics { name } else { OTHER_TOPICS };
        Arc::clone(topics.entry(label.to_owned()).or_insert_with(|| Arc::new(self.topic_metrics(label))))
    }

    fn topic_metrics(&self, label: &str) -> TopicMetrics {
        let sent = |status| self.messages_sent.with_label_values(&[label, status]);
        TopicMetrics {
            success: sent("success"),
            error: sent("error"),
            unknown: sent("unknown"),
            duration: self.send_duration.with_label_values(&[label]),
        }
    }

    /// Whether Kafka answers.
    pub fn set_connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// Replaces what the last statistics said; brokers that are gone leave the metrics.
    pub fn set_producer_statistics(&self, statistics: &ProducerStatistics) {
        self.queue_messages.set(statistics.queue_messages);
        self.queue_bytes.set(statistics.queue_bytes);
        let present: HashSet<&str> = statistics.brokers.iter().map(|broker| broker.broker.as_str()).collect();
        let mut known = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.extract_if(|broker| !present.contains(broker.as_str())) {
            // an error means that it had no such label
            let _ = self.broker_up.remove_label_values(&[&gone]);
            let _ = self.broker_round_trip.remove_label_values(&[&gone]);
        }
        for broker in &statistics.brokers {
            known.insert(broker.broker.clone());
            self.broker_up.with_label_values(&[&broker.broker]).set(broker.up.into());
            if let Some(seconds) = broker.round_trip_seconds {
                self.broker_round_trip.with_label_values(&[&broker.broker]).set(seconds);
            }
        }
    }

    /// The share of one method on one route. `route` is the matched route, never the path as sent.
    pub fn request(&self, method: &'static str, route: &'static str) -> RequestMetrics {
        RequestMetrics {
            method,
            route,
            accepted: OnceLock::new(),
            requests: self.http_requests.clone(),
            duration: self.http_duration.with_label_values(&[method, route]),
        }
    }

    /// Counts an open connection until the guard is dropped.
    pub fn connection(&self) -> ConnectionGuard {
        self.http_connections.inc();
        ConnectionGuard(self.http_connections.clone())
    }

    /// Counts a connection that had to make room, timed out, or did not read. `reason` is one of a closed set.
    pub fn connection_closed(&self, reason: &'static str) {
        self.http_connections_closed.with_label_values(&[reason]).inc();
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self, in_flight: InFlight) -> Result<Vec<u8>, prometheus::Error> {
        self.in_flight_bytes.set(to_gauge(in_flight.bytes));
        self.in_flight_records.set(to_gauge(in_flight.records));
        let mut text = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl RequestMetrics {
    /// One answer, `duration` after the request's head.
    pub fn observe(&self, status: &str, duration: Duration) {
        let requests = || self.requests.with_label_values(&[self.method, self.route, status]);
        if status == "202" {
            self.accepted.get_or_init(requests).inc();
        } else {
            requests().inc();
        }
        self.duration.observe(duration.as_secs_f64());
    }
}

impl TopicMetrics {
    /// One delivery report, `duration` after the record was handed to librdkafka.
    pub fn observe(&self, status: SendStatus, duration: Duration) {
        match status {
            SendStatus::Success => self.success.inc(),
            SendStatus::Error => self.error.inc(),
            SendStatus::Unknown => self.unknown.inc(),
        }
        self.duration.observe(duration.as_secs_f64());
    }
}

/// One open connection in `http_connections`.
pub struct ConnectionGuard(IntGauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn to_gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(InFlight::default()).unwrap()).unwrap()
    }

    #[test]
    fn topics_beyond_the_limit_share_one_label() {
        let metrics = Metrics::for_tests();
        for topic in ["a", "b", "c", "d", "a"] {
            metrics.topic(topic).observe(SendStatus::Success, Duration::from_millis(1));
        }
        let text = text(&metrics);
        assert!(text.contains(r#"kafka_messages_sent_total{status="success",topic="a"} 2"#), "{text}");
        assert!(text.contains(r#"kafka_messages_sent_total{status="success",topic="_other"} 2"#), "{text}");
        assert!(!text.contains(r#"topic="c""#));
    }

    #[test]
    fn a_broker_that_is_gone_leaves_the_metrics() {
        let metrics = Metrics::for_tests();
        let broker =
            |broker: &str| BrokerStatistics { broker: broker.into(), up: true, round_trip_seconds: None };
        metrics.set_producer_statistics(&ProducerStatistics {
            brokers: vec![broker("1")],
            ..Default::default()
        });
        metrics.set_producer_statistics(&ProducerStatistics {
            brokers: vec![broker("2")],
            ..Default::default()
        });
        let text = text(&metrics);
        assert!(text.contains(r#"kafka_broker_up{broker="2"} 1"#), "{text}");
        assert!(!text.contains(r#"broker="1""#), "{text}");
    }

    #[test]
    fn the_buckets_end_at_the_delivery_time_out() {
        let metrics = Metrics::for_tests();
        metrics.topic("a").observe(SendStatus::Success, Duration::from_millis(1));
        assert!(text(&metrics).contains(r#"kafka_send_duration_seconds_bucket{topic="a",le="10"} 1"#));
    }

    #[test]
    fn an_open_connection_counts_until_it_is_dropped() {
        let metrics = Metrics::for_tests();
        let guard = metrics.connection();
        assert!(text(&metrics).contains("http_connections 1"));
        drop(guard);
        assert!(text(&metrics).contains("http_connections 0"));
    }
}
