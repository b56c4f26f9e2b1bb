//! The metrics of durable delivery, there with `DELIVERY=durable` only. Handles without labels to look up.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `inlet_spool_records`, `inlet_spool_bytes`, `inlet_spool_bytes_limit` | gauge, what is stored | |
//! | `inlet_spool_oldest_seconds` | gauge, age of the oldest record still to be sent, at the scrape | |
//! | `inlet_spool_failed_records` | gauge, records that Kafka refused for ever and that are kept | |
//! | `inlet_spool_held_records` | gauge, stored records that librdkafka still holds | |
//! | `inlet_receipts_bytes` | gauge | |
//! | `inlet_spool_stored_total` | counter, records | |
//! | `inlet_spool_refused_total` | counter, records refused because the spool is full | |
//! | `inlet_spool_replayed_total` | counter, attempts | `status`: success, failed, dead_lettered, retried |
//! | `inlet_spool_commit_seconds` | histogram, one fsync of a group | |
//! | `inlet_spool_commit_records` | histogram, records of a group | |

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Seconds: from a disk with a cache that survives a power cut to one that is overloaded.
const COMMIT_SECONDS: [f64; 15] = [
    0.000_125, 0.000_25, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5,
];
/// Records: 1, 2, 4, … 8192.
const COMMIT_RECORDS_BUCKETS: usize = 14;
/// No record waits.
const NONE: i64 = i64::MAX;

/// What the spool tells of itself.
pub struct SpoolMetrics {
    records: IntGauge,
    bytes: IntGauge,
    /// When the oldest record was taken, or [`NONE`].
    oldest: Arc<AtomicI64>,
    failed_records: IntGauge,
    held_records: IntGauge,
    receipts_bytes: IntGauge,
    stored: IntCounter,
    refused: IntCounter,
    replayed: ReplayCounters,
    commit_seconds: Histogram,
    commit_records: Histogram,
}

/// What became of one attempt to send a stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayStatus {
    /// It is in Kafka.
    Success,
    /// Kafka refused it for ever, and it is kept as failed.
    Failed,
    /// Kafka refused it for ever, and it is in the topic of dead letters.
    DeadLettered,
    /// It will be tried again.
    Retried,
}

struct ReplayCounters {
    success: IntCounter,
    failed: IntCounter,
    dead_lettered: IntCounter,
    retried: IntCounter,
}

impl SpoolMetrics {
    /// An error where the registry has them already. The limit is `SPOOL_MAX_BYTES`.
    pub(super) fn register(registry: &Registry, limit_bytes: u64) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str, buckets| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        gauge("inlet_spool_bytes_limit", "SPOOL_MAX_BYTES.")?.set(to_gauge(limit_bytes));
        let oldest = Arc::new(AtomicI64::new(NONE));
        registry.register(Box::new(OldestAge::new(Arc::clone(&oldest))?))?;
        Ok(Self {
            records: gauge("inlet_spool_records", "Records on disk that are still to be sent.")?,
            bytes: gauge("inlet_spool_bytes", "What the spool takes on disk, against SPOOL_MAX_BYTES.")?,
            oldest,
            failed_records: gauge(
                "inlet_spool_failed_records",
                "Records that Kafka refused for ever; they stay on disk until an operator retries or drops them.",
            )?,
            held_records: gauge(
                "inlet_spool_held_records",
                "Records on disk that librdkafka still holds; they are sent again only after its report.",
            )?,
            receipts_bytes: gauge(
                "inlet_receipts_bytes",
                "What receipts take on disk, against RECEIPT_MAX_BYTES.",
            )?,
            stored: counter("inlet_spool_stored_total", "Records stored on disk, fsynced.")?,
            refused: counter(
                "inlet_spool_refused_total",
                "Records refused because the spool is full, or its oldest record too old.",
            )?,
            replayed: ReplayCounters::register(registry)?,
            commit_seconds: histogram(
                "inlet_spool_commit_seconds",
                "One fsync, which a group of requests shares.",
                COMMIT_SECONDS.to_vec(),
            )?,
            commit_records: histogram(
                "inlet_spool_commit_records",
                "Records that share one fsync.",
                prometheus::exponential_buckets(1.0, 2.0, COMMIT_RECORDS_BUCKETS)?,
            )?,
        })
    }

    /// So many records were stored and are fsynced.
    pub fn stored(&self, records: u64) {
        self.stored.inc_by(records);
    }

    /// So many records were refused for want of room.
    pub fn refused(&self, records: u64) {
        self.refused.inc_by(records);
    }

    /// A group was fsynced, which took `duration`.
    pub fn committed(&self, records: u64, duration: Duration) {
        self.commit_seconds.observe(duration.as_secs_f64());
        self.commit_records.observe(records as f64);
    }

    /// So many attempts to send stored records ended in this way.
    pub fn replayed(&self, status: ReplayStatus, records: u64) {
        match status {
            ReplayStatus::Success => &self.replayed.success,
            ReplayStatus::Failed => &self.replayed.failed,
            ReplayStatus::DeadLettered => &self.replayed.dead_lettered,
            ReplayStatus::Retried => &self.replayed.retried,
        }
        .inc_by(records);
    }

    /// What is on disk: records still to be sent, and all bytes.
    pub fn set_size(&self, records: u64, bytes: u64) {
        self.records.set(to_gauge(records));
        self.bytes.set(to_gauge(bytes));
    }

    /// When the oldest record still to be sent was taken, in milliseconds since the Unix epoch; None where none is.
    /// Its age is worked out at each scrape, so this needs a call only when the oldest changes.
    pub fn set_oldest(&self, taken: Option<i64>) {
        self.oldest.store(taken.unwrap_or(NONE), Relaxed);
    }

    /// Records that are kept as failed.
    pub fn set_failed(&self, records: u64) {
        self.failed_records.set(to_gauge(records));
    }

    /// Stored records that librdkafka still holds.
    pub fn set_held(&self, records: u64) {
        self.held_records.set(to_gauge(records));
    }

    /// What receipts take on disk.
    pub fn set_receipts_bytes(&self, bytes: u64) {
        self.receipts_bytes.set(to_gauge(bytes));
    }
}

impl ReplayCounters {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let replayed = IntCounterVec::new(
            Opts::new("inlet_spool_replayed_total", "Attempts to send stored records, by their end."),
            &["status"],
        )?;
        registry.register(Box::new(replayed.clone()))?;
        let with = |status| replayed.with_label_values(&[status]);
        Ok(Self {
            success: with("success"),
            failed: with("failed"),
            dead_lettered: with("dead_lettered"),
            retried: with("retried"),
        })
    }
}

/// Tells the age at the moment of the scrape, so that it grows also while nothing moves.
struct OldestAge {
    taken: Arc<AtomicI64>,
    gauge: Gauge,
}

impl OldestAge {
    fn new(taken: Arc<AtomicI64>) -> Result<Self, prometheus::Error> {
        let help = "Age of the oldest record on disk that is still to be sent; 0 where there is none.";
        Ok(Self { taken, gauge: Gauge::new("inlet_spool_oldest_seconds", help)? })
    }
}

impl Collector for OldestAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge.set(age(self.taken.load(Relaxed), now).as_secs_f64());
        self.gauge.collect()
    }
}

/// How long ago `taken` was, in milliseconds since the Unix epoch; zero for [`NONE`] and where the clock was set back.
fn age(taken: i64, now: Duration) -> Duration {
    let taken = Duration::from_millis(u64::try_from(taken).unwrap_or_default());
    now.saturating_sub(taken)
}

fn to_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{InFlight, Metrics};

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(InFlight::default()).unwrap()).unwrap()
    }

    /// The value of a sample, by its name and labels.
    fn sample(metrics: &Metrics, name: &str) -> f64 {
        let text = text(metrics);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    #[test]
    fn direct_delivery_has_none_of_them() {
        let text = text(&Metrics::for_tests());
        assert!(!text.contains("spool") && !text.contains("receipts"), "{text}");
    }

    #[test]
    fn every_metric_of_the_table_is_there_from_the_start() {
        let metrics = Metrics::for_tests();
        let _spool = metrics.spool(1 << 30).unwrap();
        let text = text(&metrics);
        let rows = include_str!("spool_metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let names: Vec<&str> = rows
            .flat_map(|row| row.split(" | ").next().unwrap().split(", "))
            .map(|name| name.trim_matches('`'))
            .collect();
        assert_eq!(names.len(), 12, "{names:?}");
        for name in names {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}: {text}");
        }
        assert_eq!(sample(&metrics, "inlet_spool_bytes_limit"), 1_073_741_824.0);
        for status in ["success", "failed", "dead_lettered", "retried"] {
            assert_eq!(sample(&metrics, &format!(r#"inlet_spool_replayed_total{{status="{status}"}}"#)), 0.0);
        }
    }

    #[test]
    fn each_event_moves_its_own_metric() {
        let metrics = Metrics::for_tests();
        let spool = metrics.spool(1 << 30).unwrap();
        spool.stored(3);
        spool.refused(2);
        spool.committed(3, Duration::from_millis(3));
        spool.replayed(ReplayStatus::Success, 5);
        spool.replayed(ReplayStatus::DeadLettered, 1);
        spool.set_size(7, 4096);
        spool.set_failed(4);
        spool.set_held(6);
        spool.set_receipts_bytes(512);
        for (name, value) in [
            ("inlet_spool_stored_total", 3.0),
            ("inlet_spool_refused_total", 2.0),
            (r#"inlet_spool_commit_seconds_bucket{le="0.002"}"#, 0.0),
            (r#"inlet_spool_commit_seconds_bucket{le="0.004"}"#, 1.0),
            (r#"inlet_spool_commit_records_bucket{le="2"}"#, 0.0),
            (r#"inlet_spool_commit_records_bucket{le="4"}"#, 1.0),
            (r#"inlet_spool_commit_records_bucket{le="8192"}"#, 1.0),
            (r#"inlet_spool_replayed_total{status="success"}"#, 5.0),
            (r#"inlet_spool_replayed_total{status="dead_lettered"}"#, 1.0),
            (r#"inlet_spool_replayed_total{status="failed"}"#, 0.0),
            (r#"inlet_spool_replayed_total{status="retried"}"#, 0.0),
            ("inlet_spool_records", 7.0),
            ("inlet_spool_bytes", 4096.0),
            ("inlet_spool_failed_records", 4.0),
            ("inlet_spool_held_records", 6.0),
            ("inlet_receipts_bytes", 512.0),
        ] {
            assert_eq!(sample(&metrics, name), value, "{name}");
        }
    }

    #[test]
    fn the_age_of_the_oldest_is_that_at_the_scrape() {
        let metrics = Metrics::for_tests();
        let spool = metrics.spool(1 << 30).unwrap();
        assert_eq!(sample(&metrics, "inlet_spool_oldest_seconds"), 0.0);
        spool.set_oldest(Some(1_000_000_000_000));
        assert!(sample(&metrics, "inlet_spool_oldest_seconds") > 1e8, "taken in 2001");
        spool.set_oldest(None);
        assert_eq!(sample(&metrics, "inlet_spool_oldest_seconds"), 0.0);
    }

    #[test]
    fn an_age_is_never_negative() {
        let now = Duration::from_secs(100);
        assert_eq!(age(40_000, now), Duration::from_secs(60));
        assert_eq!(age(140_000, now), Duration::ZERO);
        assert_eq!(age(NONE, now), Duration::ZERO);
    }

    #[test]
    fn they_are_registered_once() {
        let metrics = Metrics::for_tests();
        assert!(metrics.spool(1).is_ok());
        assert!(metrics.spool(1).is_err());
    }
}
