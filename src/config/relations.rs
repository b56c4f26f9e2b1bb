//! What must hold between settings.

use super::{Config, Faults};
use std::time::Duration;

/// For what is still queued once the requests are answered or given up.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Kubernetes kills a pod 30 s after its SIGTERM by default; 5 s are left for what nobody planned.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(25);

/// How much before its request is answered librdkafka gives a record up: it looks for expired records once a
/// second, so its report comes up to a second late.
pub const REPORT_MARGIN: Duration = Duration::from_secs(2);

/// What one record of a batch reserves beside its value: bookkeeping and automatic headers, rounded up.
const BYTES_BESIDE_A_VALUE: usize = 1024;

pub(super) fn check(config: &Config, faults: &mut Faults) {
    let (http, kafka, limits) = (&config.http, &config.kafka, &config.limits);

    let shutdown = http.shutdown_delay + http.shutdown_timeout + FLUSH_TIMEOUT;
    if shutdown > LONGEST_SHUTDOWN && !faults.concern(&["SHUTDOWN_DELAY_MS", "SHUTDOWN_TIMEOUT_MS"]) {
        faults.add(
            "SHUTDOWN_TIMEOUT_MS",
            format!(
                "SHUTDOWN_DELAY_MS ({}) + SHUTDOWN_TIMEOUT_MS ({}) + {} for the flush must be at most {}",
                http.shutdown_delay.as_millis(),
                http.shutdown_timeout.as_millis(),
                FLUSH_TIMEOUT.as_millis(),
                LONGEST_SHUTDOWN.as_millis()
            ),
        );
    }

    if kafka.delivery_timeout > http.shutdown_timeout
        && !faults.concern(&["KAFKA_DELIVERY_TIMEOUT_MS", "SHUTDOWN_TIMEOUT_MS"])
    {
        faults.add(
            "KAFKA_DELIVERY_TIMEOUT_MS",
            format!(
                "it is {} and must be at most SHUTDOWN_TIMEOUT_MS ({}), so that a stop leaves no request unanswered",
                kafka.delivery_timeout.as_millis(),
                http.shutdown_timeout.as_millis()
            ),
        );
    }

    let time_in_queue = kafka.delivery_timeout.saturating_sub(REPORT_MARGIN);
    if kafka.linger_ms >= time_in_queue.as_secs_f64() * 1000.0
        && !faults.concern(&["KAFKA_LINGER_MS", "KAFKA_DELIVERY_TIMEOUT_MS"])
    {
        faults.add(
            "KAFKA_LINGER_MS",
            format!(
                "it is {} and must be below KAFKA_DELIVERY_TIMEOUT_MS - {} ({})",
                kafka.linger_ms,
                REPORT_MARGIN.as_millis(),
                time_in_queue.as_millis()
            ),
        );
    }

    let replicas = kafka.topic_replication_factor;
    if let Some(least) = kafka.topic_min_insync_replicas
        // −1 is the broker's default, which is not known here
        && (1..least).contains(&replicas)
        && !faults.concern(&["KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "KAFKA_TOPIC_REPLICATION_FACTOR"])
    {
        faults.add(
            "KAFKA_TOPIC_MIN_INSYNC_REPLICAS",
            format!(
                "it is {least} and must be at most KAFKA_TOPIC_REPLICATION_FACTOR ({replicas}); set that to 3"
            ),
        );
    }

    // a body and the records made from it are held together
    let least_in_flight = limits
        .max_body_bytes
        .saturating_mul(2)
        .saturating_add(limits.max_batch_records.saturating_mul(BYTES_BESIDE_A_VALUE));
    if limits.max_in_flight_bytes < least_in_flight
        && !faults.concern(&["MAX_IN_FLIGHT_BYTES", "MAX_BODY_BYTES", "MAX_BATCH_RECORDS"])
    {
        faults.add(
            "MAX_IN_FLIGHT_BYTES",
            format!(
                "it is {} and must be at least {least_in_flight} (twice MAX_BODY_BYTES and {BYTES_BESIDE_A_VALUE} for \
                 each of MAX_BATCH_RECORDS), or the largest batch could never be served",
                limits.max_in_flight_bytes
            ),
        );
    }

    if let Some(spool) = &config.spool {
        let largest_body = u64::try_from(limits.max_body_bytes).unwrap_or(u64::MAX);
        let least_spool = largest_body.saturating_mul(2);
        if spool.max_bytes < least_spool && !faults.concern(&["SPOOL_MAX_BYTES", "MAX_BODY_BYTES"]) {
            faults.add(
                "SPOOL_MAX_BYTES",
                format!(
                    "it is {} and must be at least {least_spool} (twice MAX_BODY_BYTES), or the largest batch could \
                     never be stored",
                    spool.max_bytes
                ),
            );
        }
    }
}
