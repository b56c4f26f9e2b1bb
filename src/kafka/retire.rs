//! The end of a client that was replaced.

use super::polled::PolledProducer;
use rdkafka::producer::{Producer as _, PurgeConfig};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a client that has only used its epoch up may take to send what it has, and to report on it. Another one takes
/// longer than that to use its epoch up. What it has for a partition without a leader comes back then.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a client that is lost, or that has been told to give everything up.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether reports are left.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for the client's reports, and drops it, on a thread of its own, since both block.
pub fn retire(client: Arc<PolledProducer>, is_lost: bool, retiring: Arc<AtomicUsize>) {
    retiring.fetch_add(1, AcqRel);
    let counted = Arc::clone(&retiring);
    let retired = thread::Builder::new().name("kafka-retire".into()).spawn(move || {
        let producer = &*client;
        let begin = Instant::now();
        let patience = if is_lost { Duration::ZERO } else { RETIRE_TIMEOUT };
        while producer.in_flight_count() > 0 && begin.elapsed() < patience + PURGE_TIMEOUT {
            if begin.elapsed() >= patience {
                // never the queue alone: with a request that is partly sent, librdkafka closes the connection and takes
                // what is in flight on it for not written (`rd_kafka_broker_handle_purge_queues`)
                producer.purge(PurgeConfig::default().queue().inflight());
            }
            producer.flush(LOOK);
        }
        if producer.in_flight_count() > 0 {
            tracing::warn!("the replaced producer has not reported on all of its records");
        }
        counted.fetch_sub(1, AcqRel);
        // requests may hold it for the moment of an enqueue; theirs must not be the last reference
        let release = Instant::now() + PURGE_TIMEOUT;
        while Arc::strong_count(&client) > 1 && Instant::now() < release {
            thread::sleep(Duration::from_millis(10));
        }
    });
    if let Err(error) = retired {
        retiring.fetch_sub(1, AcqRel);
        tracing::error!(%error, "no thread to wait for the replaced producer on; it is ended in place");
    }
}
