//! Sends what librdkafka gathers as soon as nothing more is about to come.
//!
//! With `linger.ms` every record waits for company, also where none can come. Without, each travels alone. Whether
//! more is about to come, the runtime knows: its workers park when no request is ready. Then librdkafka is told not
//! to wait any longer, by `rd_kafka_flush`, which for as long as it runs takes `linger.ms` for nothing. A busy service
//! gathers for the whole of `linger.ms`.

use super::cluster::Cluster;
use crate::lifecycle::supervisor::Alarm;
use std::{
    io,
    sync::{
        OnceLock, Weak,
        atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release},
    },
    thread::{self, Thread},
    time::Duration,
};

/// How long one flush is in force: what comes within is sent at once, so it is to be short.
const FLUSH: Duration = Duration::from_millis(1);
/// How often the thread looks whether the producer still is.
const LOOK: Duration = Duration::from_secs(1);

/// Told of records and of idleness, from any thread.
#[derive(Debug, Default)]
pub struct Flusher {
    gathering: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Flusher {
    /// Records were handed to librdkafka.
    pub fn enqueued(&self) {
        self.gathering.store(true, Release);
    }

    /// No request is ready to run.
    pub fn idle(&self) {
        if self.gathering.swap(false, AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Starts the thread that flushes; it ends when the cluster is dropped.
    pub(super) fn start(&self, cluster: Weak<Cluster>, alarm: &Alarm) -> io::Result<()> {
        let watch = alarm.watch("the kafka-flush thread");
        let thread = thread::Builder::new().name("kafka-flush".into()).spawn(move || {
            loop {
                thread::park_timeout(LOOK);
                let Some(cluster) = cluster.upgrade() else { break };
                cluster.send_gathered(FLUSH);
            }
            watch.finished();
        })?;
        // a second start would be a second producer, which there is none of
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }
}
