//! Sends what librdkafka gathers as soon as nothing more is about to come.
//!
//! With `linger.ms` every record waits for company, also where none can come. Without, each travels alone. Whether
//! more is about to come, the runtime knows: its workers park when no request is ready. Then librdkafka is told not
//! to wait any longer, by `rd_kafka_flush`, which for as long as it runs takes `linger.ms` for nothing. A busy service
//! gathers for the whole of `linger.ms`.
//!
//! What comes while a flush runs waits here until it is over, that is until Kafka has acknowledged: librdkafka would
//! send it one by one, or spin, since an idempotent producer has one batch a partition under way. What both
//! bring at which load is in `docs/PERFORMANCE.md`.

use super::sender::Sender;
use crate::{lifecycle::supervisor::Alarm, produce::Outgoing};
use std::{
    fmt, io, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a flush may run, and so how long one slow broker may hold up what is for the others.
const FLUSH: Duration = Duration::from_millis(10);
/// So few records do not wait at all: at such a load there is nothing to save.
const FEW: usize = 4;
/// So many records are company enough: they are left to `linger.ms`, which then costs less than a flush.
const MANY: usize = 100;
/// How often the thread looks whether the producer still is.
const LOOK: Duration = Duration::from_secs(1);

/// Told of records and of idleness, from any thread.
#[derive(Default)]
pub struct Flusher {
    /// Records that were enqueued since the last idleness.
    gathered: AtomicUsize,
    /// Records that the thread is to flush.
    due: AtomicUsize,
    thread: OnceLock<Thread>,
    /// A flush runs: records go to `waiting`.
    flushing: AtomicBool,
    /// In order. Their number is bounded by the budget of bytes in flight.
    waiting: Mutex<Vec<Outgoing>>,
}

impl Flusher {
    /// Takes the records, and returns their number, while a flush runs; None where the caller is to send them.
    pub(super) fn defer(&self, records: &mut dyn Iterator<Item = Outgoing>) -> Option<usize> {
        if !self.is_flushing() {
            return None;
        }
        let mut waiting = self.waiting();
        // it may have ended since
        self.is_flushing().then(|| {
            let before = waiting.len();
            waiting.extend(records);
            waiting.len() - before
        })
    }

    /// Whether records may be waiting for the end of a flush.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing.load(Acquire)
    }

    /// So many records were taken, here or by librdkafka.
    pub(super) fn enqueued(&self, records: usize) {
        self.gathered.fetch_add(records, AcqRel);
    }

    /// No request is ready to run.
    pub fn idle(&self) {
        let gathered = self.gathered.swap(0, AcqRel);
        if (1..=MANY).contains(&gathered)
            && let Some(thread) = self.thread.get()
        {
            self.due.fetch_add(gathered, AcqRel);
            thread.unpark();
        }
    }

    /// Starts the thread that flushes, at most once a `linger` where there are more than a few records. It ends when
    /// the sender is dropped. Without a linger there is nothing to do.
    pub(super) fn start(
        self: &Arc<Self>,
        sender: Weak<Sender>,
        linger: Duration,
        alarm: &Alarm,
    ) -> io::Result<()> {
        if linger.is_zero() {
            return Ok(());
        }
        let (flusher, watch) = (Arc::clone(self), alarm.watch("the kafka-flush thread"));
        let thread = thread::Builder::new().name("kafka-flush".into()).spawn(move || {
            let mut last = Instant::now();
            while let Some(sender) = sender.upgrade() {
                let due = flusher.due.swap(0, AcqRel);
                if due == 0 {
                    drop(sender);
                    thread::park_timeout(LOOK);
                    continue;
                }
                if due > FEW {
                    // the more often, the smaller the requests to the brokers, and each costs about as much
                    thread::sleep(linger.saturating_sub(last.elapsed()));
                }
                last = Instant::now();
                flusher.flush(&sender);
            }
            watch.finished();
        })?;
        // a second start would be a second producer, which there is none of
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }

    fn flush(&self, sender: &Sender) {
        self.flushing.store(true, Release);
        sender.with_client(|client| client.flush(FLUSH));
        let mut records = Vec::new();
        loop {
            {
                let mut waiting = self.waiting();
                if waiting.is_empty() {
                    // only now, and under the lock: what comes next must not overtake what has waited
                    self.flushing.store(false, Release);
                    break;
                }
                mem::swap(&mut *waiting, &mut records);
            }
            sender.send(records.drain(..));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher")
            .field("due", &self.due)
            .field("flushing", &self.flushing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::{Admitted, Budget, Delivery, Submission, fake::record};
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

    #[test]
    fn enough_company_is_left_to_the_linger() {
        let flusher = flusher();
        flusher.enqueued(MANY + 1);
        flusher.idle();
        assert_eq!(flusher.due.load(Relaxed), 0);
    }

    #[test]
    fn records_are_held_only_while_a_flush_runs() {
        let flusher = flusher();
        let records = [record("t"), record("t")];
        let submission = Arc::new(Submission::to_one_topic(records.into_iter().collect()));
        let admitted = (0..2).map(|record| Admitted { record, partition: 0, reserved: 0 });
        let delivery = Delivery::new(&submission, admitted, Budget::new(0), Instant::now());
        let mut outgoing = delivery.outgoing(&submission);
        assert_eq!(flusher.defer(&mut outgoing), None);
        flusher.flushing.store(true, Release);
        assert_eq!(flusher.defer(&mut outgoing), Some(2));
        assert_eq!(flusher.waiting().len(), 2);
    }
}
