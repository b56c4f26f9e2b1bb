//! Sends what librdkafka gathers as soon as nothing more is about to come.
//!
//! With `linger.ms` every record waits for company, also where none can come. Without, each travels alone. Whether
//! more is about to come, the runtime knows: its workers park when no request is ready. Then librdkafka is told not
//! to wait any longer, by `rd_kafka_flush`, which for as long as it runs takes `linger.ms` for nothing. A busy service
//! gathers for the whole of `linger.ms`. What that brings at which load is in `docs/PERFORMANCE.md`.

use super::cluster::Cluster;
use crate::lifecycle::supervisor::Alarm;
use std::{
    io,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long one flush is in force: what comes within is sent at once, so it is to be short.
const FLUSH: Duration = Duration::from_millis(1);
/// So few records do not wait at all: at such a load there is nothing to save.
const FEW: usize = 4;
/// How often the thread looks whether the producer still is.
const LOOK: Duration = Duration::from_secs(1);

/// Told of records and of idleness, from any thread.
#[derive(Debug, Default)]
pub struct Flusher {
    /// Records that were enqueued since the last idleness.
    gathered: AtomicUsize,
    /// Records that the thread is to flush.
    due: AtomicUsize,
    thread: OnceLock<Thread>,
}

impl Flusher {
    /// So many records were handed to librdkafka.
    pub fn enqueued(&self, records: usize) {
        self.gathered.fetch_add(records, AcqRel);
    }

    /// No request is ready to run.
    pub fn idle(&self) {
        let gathered = self.gathered.swap(0, AcqRel);
        if gathered > 0
            && let Some(thread) = self.thread.get()
        {
            self.due.fetch_add(gathered, AcqRel);
            thread.unpark();
        }
    }

    /// Starts the thread that flushes, at most once a `linger` where there are more than a few records. It ends when
    /// the cluster is dropped. Without a linger there is nothing to do.
    pub(super) fn start(
        self: &Arc<Self>,
        cluster: Weak<Cluster>,
        linger: Duration,
        alarm: &Alarm,
    ) -> io::Result<()> {
        if linger.is_zero() {
            return Ok(());
        }
        let (flusher, watch) = (Arc::clone(self), alarm.watch("the kafka-flush thread"));
        let thread = thread::Builder::new().name("kafka-flush".into()).spawn(move || {
            let mut last = Instant::now();
            while let Some(cluster) = cluster.upgrade() {
                let due = flusher.due.swap(0, AcqRel);
                if due == 0 {
                    drop(cluster);
                    thread::park_timeout(LOOK);
                    continue;
                }
                if due > FEW {
                    // the more often, the smaller the requests to the brokers, and each costs about as much
                    thread::sleep(linger.saturating_sub(last.elapsed()));
                }
                last = Instant::now();
                cluster.send_gathered(FLUSH);
            }
            watch.finished();
        })?;
        // a second start would be a second producer, which there is none of
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    /// A flusher whose thread is the test's own.
    fn flusher() -> Flusher {
        let flusher = Flusher::default();
        flusher.thread.set(thread::current()).unwrap();
        flusher
    }

    #[test]
    fn idleness_after_records_wakes_the_thread_once() {
        let flusher = flusher();
        flusher.idle();
        assert_eq!(flusher.due.load(Relaxed), 0);
        flusher.enqueued(2);
        flusher.enqueued(1);
        flusher.idle();
        // returns at once, or never
        thread::park();
        assert_eq!(flusher.due.swap(0, Relaxed), 3);
        flusher.idle();
        assert_eq!(flusher.due.load(Relaxed), 0);
    }
}
