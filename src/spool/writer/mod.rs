//! The one thread that writes to the store: what was asked for while an fsync ran is committed together by the next.

mod group;

use super::{
    codec::Encoded,
    lines::Places,
    now_ms,
    results::Resolution,
    store::{CommitError, Failure, Receipts, Shortage, Store},
};
use crate::{lifecycle::supervisor::Alarm, produce::Sequence};
use group::{Group, Job};
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire},
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

/// So many bytes of records are committed at once, or those of one request.
const GROUP: usize = 8 << 20;
/// So long may what is only finished wait for company. Nobody waits for it but the replay.
const GATHER: Duration = Duration::from_millis(20);
/// At most so long do records wait for as many senders as there were last, and half of what the last commit took:
/// those were answered just now and come again, and a commit for each half of them takes longer than this.
const COMPANY: Duration = Duration::from_millis(2);
/// How often old receipts are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// What the writer holds to.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// `SPOOL_MAX_BYTES`
    pub max_bytes: u64,
    /// `RECEIPT_MAX_BYTES`
    pub receipt_max_bytes: u64,
    /// `RECEIPT_TTL`
    pub receipt_ttl: Duration,
}

/// One commit that took records in, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub records: u64,
    pub bytes: u64,
    /// What the transaction took, its fsync included.
    pub took: Duration,
}

/// What the replay is done with, in one transaction.
#[derive(Debug, Default, Clone)]
pub struct Finished {
    /// Chunks all of whose records are resolved.
    pub removed: Vec<Sequence>,
    /// Chunks with what is left in them (`Chunk::keeping`).
    pub rewritten: Vec<(Sequence, Vec<u8>)>,
    /// What became of records.
    pub resolved: Vec<Resolution>,
    /// Records that are refused for ever, without a dead letter.
    pub failed: Vec<Failure>,
    /// Failed records that are dropped, or kept as chunks of their own again by `kept`.
    pub unfailed: Vec<Sequence>,
    /// Records that wait again, each as a chunk of its own.
    pub kept: Vec<Again>,
}

/// A failed record that waits again.
#[derive(Debug, Clone)]
pub struct Again {
    pub sequence: Sequence,
    pub record: Encoded,
    /// Since when it counts as waiting, in milliseconds since the Unix epoch: not later than what has a higher sequence,
    /// since the first chunk is taken for the oldest.
    pub stored_at: i64,
}

/// The spool, to write to. Dropping it ends the thread, after what was asked for.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Arc<Store>,
    /// The instance's next sequence.
    sequences: Arc<AtomicU64>,
    settings: Settings,
    queue: Mutex<Queue>,
    /// Something was queued.
    asked: Condvar,
    /// Bytes of records that are queued or under way.
    reserved: AtomicU64,
    stored: Notify,
}

#[derive(Default)]
struct Queue {
    /// Bounded by the callers: a request waits for its one job, and the replay for its few.
    jobs: VecDeque<Job>,
    /// Below so many the thread need not be woken.
    wanted: usize,
    closed: bool,
}

/// What is likely to come, by what came last.
#[derive(Default)]
struct Company {
    senders: usize,
    patience: Duration,
}

/// What is told of each commit that took records in.
pub type OnCommit = Box<dyn Fn(Committed) + Send>;

impl Writer {
    /// Starts the thread. `sequences` is the counter from which all of the instance's records have their names; it
    /// begins at [`Store::first_sequence`].
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        store: Arc<Store>,
        sequences: Arc<AtomicU64>,
        settings: Settings,
        on_commit: OnCommit,
        alarm: &Alarm,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            store,
            sequences,
            settings,
            queue: Mutex::default(),
            asked: Condvar::new(),
            reserved: AtomicU64::new(0),
            stored: Notify::new(),
        });
        let (writer, watch) = (Arc::clone(&shared), alarm.watch("the spool-writer thread"));
        let thread = thread::Builder::new().name("spool-writer".into()).spawn(move || {
            writer.run(&on_commit);
            watch.finished();
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Stores records that were not attempted, in their order, under new contiguous sequences. Resolves to the first
    /// of them when the disk has them. It is asked for at once, and done also where the future is dropped. Their places
    /// in line are given back where it fails.
    ///
    /// # Errors
    /// None of them is stored.
    pub fn store(
        &self,
        records: Encoded,
        places: Places,
    ) -> impl Future<Output = Result<Sequence, CommitError>> + Send + use<> {
        let reserved = self.shared.reserve(records.size() as u64);
        let answer = reserved.map(|()| self.ask(|answer| Job::Store { records, places, answer }));
        async move { answered(answer?).await }
    }

    /// Stores records that were attempted, under their own sequences. Resolves when the disk has them; it is done also
    /// where the future is dropped.
    ///
    /// # Errors
    /// None of them is stored.
    pub fn keep(
        &self,
        records: Vec<(Sequence, Encoded)>,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        let size = records.iter().map(|(_, record)| record.size() as u64).sum();
        let reserved = self.shared.reserve(size);
        let answer = reserved.map(|()| self.ask(|answer| Job::Keep { records, size, answer }));
        async move { answered(answer?).await }
    }

    /// Writes what became of records. Resolves when the disk has it; it is done also where the future is dropped.
    ///
    /// # Errors
    /// Nothing of it is written. To ask again with the same does no harm.
    pub fn finish(&self, finished: Finished) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        answered(self.ask(|answer| Job::Finish { finished, answer }))
    }

    /// Told after each commit that took records in: for one waiter, who then looks at the store.
    pub fn stored(&self) -> &Notify {
        &self.shared.stored
    }

    /// Bytes that count towards `SPOOL_MAX_BYTES`, those that are under way included.
    pub fn bytes(&self) -> u64 {
        self.shared.store.bytes() + self.shared.reserved.load(Acquire)
    }

    /// Ends the thread, after what was asked for, and waits for its end. What is asked for later is refused.
    pub fn close(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // a panic has raised the alarm
            let _ = thread.join();
        }
    }

    fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.queue();
        // dropped, the job answers that the writer has ended, and gives back what it had reserved
        if queue.closed {
            drop(queue);
            self.shared.release(&job(answer));
        } else {
            queue.jobs.push_back(job(answer));
            let wake = queue.jobs.len() >= queue.wanted;
            drop(queue);
            if wake {
                self.shared.asked.notify_one();
            }
        }
        answered
    }
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, CommitError>>) -> Result<T, CommitError> {
    answer.await.unwrap_or_else(|_| Err(CommitError::Io("the service is stopping".into())))
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.queue().closed = true;
        self.asked.notify_one();
    }

    fn reserve(&self, size: u64) -> Result<(), CommitError> {
        let max_bytes = self.settings.max_bytes;
        let reserved = self.reserved.fetch_add(size, AcqRel) + size;
        if self.store.bytes().saturating_add(reserved) > max_bytes {
            self.reserved.fetch_sub(size, AcqRel);
            return Err(CommitError::Full(Shortage::MaxBytes { max_bytes }));
        }
        Ok(())
    }

    /// What a job had reserved is in the store now, or never will be.
    fn release(&self, job: &Job) {
        self.reserved.fetch_sub(job.size(), AcqRel);
    }

    fn run(&self, on_commit: &OnCommit) {
        let mut looked = Instant::now();
        let mut company = Company::default();
        while let Some(jobs) = self.gather(&company) {
            let idle = jobs.is_empty();
            let look = looked.elapsed() >= LOOK;
            if look {
                looked = Instant::now();
            }
            let started = Instant::now();
            company.senders = self.commit(jobs, look, on_commit);
            company.patience = COMPANY.min(started.elapsed() / 2);
            if idle {
                self.forget_old_receipts(on_commit);
            }
            if idle && self.store.records() == 0 {
                self.store.shrink();
            }
        }
    }

    /// What is to be committed next; None when the writer is closed and all is done; nothing when nothing came for a
    /// while.
    fn gather(&self, company: &Company) -> Option<Vec<Job>> {
        let mut queue = self.queue();
        let mut since: Option<Instant> = None;
        loop {
            let mut wait = LOOK;
            if queue.closed && queue.jobs.is_empty() {
                return None;
            }
            if !queue.jobs.is_empty() {
                let takes_in = queue.jobs.iter().any(Job::takes_in);
                let patience = if takes_in { company.patience } else { GATHER };
                wait = patience.saturating_sub(since.get_or_insert_with(Instant::now).elapsed());
                if queue.closed || wait.is_zero() || (takes_in && queue.jobs.len() >= company.senders) {
                    break;
                }
                queue.wanted = if takes_in { company.senders } else { 0 };
            }
            let (woken, timeout) =
                self.asked.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.wanted = 0;
            if timeout.timed_out() && queue.jobs.is_empty() {
                return Some(Vec::new());
            }
        }
        let mut size = 0;
        let fits = queue.jobs.iter().take_while(|job| {
            let first = size == 0;
            size += job.size() as usize;
            first || size <= GROUP
        });
        let count = fits.count();
        Some(queue.jobs.drain(..count).collect())
    }

    /// Returns how many had their records taken in, or wait for that by now.
    fn commit(&self, jobs: Vec<Job>, look: bool, on_commit: &OnCommit) -> usize {
        // besides, where nobody but the replay waits
        let look = look || !jobs.iter().any(Job::takes_in);
        let receipts = self.receipts(look);
        let group = Group::of(jobs, &self.sequences, receipts);
        // after a fault of the disk a change of nothing opens the file anew
        if group.is_empty() && receipts.resolved_before.is_none() && self.store.is_open() {
            return 0;
        }
        let started = Instant::now();
        let Group { taking, finishing, mut change, records, bytes } = group;
        let mut taken = self.store.commit(&change);
        let mut finished = taken.clone();
        if taken.is_err() && !finishing.is_empty() && !taking.is_empty() {
            // what only gives room is not to fail with what needs it
            change.insert.clear();
            finished = self.store.commit(&change);
        } else if taking.is_empty() {
            taken = Ok(());
        }
        if taken.is_ok() && records > 0 {
            on_commit(Committed { records, bytes, took: started.elapsed() });
        }
        let senders = taking.len() + self.queue().jobs.iter().filter(|job| job.takes_in()).count();
        for (job, first) in taking {
            self.release(&job);
            job.answer(taken.clone().map(|()| first));
        }
        for job in finishing {
            job.answer(finished.clone().map(|()| Sequence(0)));
        }
        if taken.is_ok() && records > 0 {
            self.stored.notify_one();
        }
        if taken == Err(CommitError::Full(Shortage::Disk)) && self.store.records() == 0 {
            // the room may be in the file itself
            self.store.shrink();
        }
        senders
    }

    /// All of them, in as many commits as it takes, while nobody asks for another.
    fn forget_old_receipts(&self, on_commit: &OnCommit) {
        while self.old_receipts().is_some() && self.queue().jobs.is_empty() {
            let before = self.store.receipt_bytes();
            self.commit(Vec::new(), true, on_commit);
            if self.store.receipt_bytes() >= before {
                // the disk fails
                return;
            }
        }
    }

    fn receipts(&self, look: bool) -> Receipts {
        let resolved_before = if look { self.old_receipts() } else { None };
        Receipts { max_bytes: self.settings.receipt_max_bytes, resolved_before }
    }

    /// Before when records were resolved whose receipts are too old; None where there are none.
    fn old_receipts(&self) -> Option<i64> {
        let ttl = i64::try_from(self.settings.receipt_ttl.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(ttl);
        self.store.oldest_resolved_at().is_some_and(|oldest| oldest < before).then_some(before)
    }
}

#[cfg(test)]
mod tests;
