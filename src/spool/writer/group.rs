//! From jobs that come together to one change of the store, and back to their answers.

use super::Finished;
use crate::{
    produce::Sequence,
    spool::{
        Encoded,
        chunks::{Chunks, alone},
        lines::Places,
        now_ms,
        store::{Change, CommitError, Receipts},
    },
};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering::AcqRel},
};
use tokio::sync::oneshot;

/// What the thread is asked for.
pub enum Job {
    Store { records: Encoded, places: Places, answer: oneshot::Sender<Result<Sequence, CommitError>> },
    Keep { records: Vec<(Sequence, Encoded)>, size: u64, answer: Answer },
    Finish { finished: Finished, answer: Answer },
}

pub type Answer = oneshot::Sender<Result<(), CommitError>>;

/// Jobs that are committed together.
pub struct Group {
    /// Those with new records, and the first sequence of each.
    pub taking: Vec<(Job, Sequence)>,
    pub finishing: Vec<Job>,
    pub change: Change,
    pub records: u64,
    pub bytes: u64,
}

impl Job {
    /// Bytes that it has reserved.
    pub fn size(&self) -> u64 {
        match self {
            Self::Store { records, .. } => records.size() as u64,
            Self::Keep { size, .. } => *size,
            Self::Finish { .. } => 0,
        }
    }

    pub fn takes_in(&self) -> bool {
        !matches!(self, Self::Finish { .. })
    }

    /// Nobody may be waiting any more.
    pub fn answer(self, result: Result<Sequence, CommitError>) {
        match self {
            Self::Store { places, answer, .. } => {
                if result.is_ok() {
                    places.stay();
                }
                let _ = answer.send(result);
            }
            Self::Keep { answer, .. } | Self::Finish { answer, .. } => {
                let _ = answer.send(result.map(|_| ()));
            }
        }
    }
}

impl Group {
    /// Those with new records get the next sequences.
    pub fn of(jobs: Vec<Job>, sequences: &AtomicU64, receipts: Receipts) -> Self {
        let change = Change { receipts, ..Change::default() };
        let mut group = Self { taking: Vec::new(), finishing: Vec::new(), change, records: 0, bytes: 0 };
        let new =
            jobs.iter().map(|job| if let Job::Store { records, .. } = job { records.count() } else { 0 });
        let new = new.map(u64::from).sum();
        let mut chunks = Chunks::from(Sequence(sequences.fetch_add(new, AcqRel)), now_ms());
        for job in jobs {
            group.bytes += job.size();
            match job {
                Job::Store { ref records, .. } => {
                    group.records += u64::from(records.count());
                    let first = chunks.next();
                    records.records().for_each(|record| chunks.push(record));
                    group.taking.push((job, first));
                }
                Job::Keep { ref records, .. } => {
                    group.records += records.len() as u64;
                    let stored_at = chunks.stored_at;
                    let alone = records.iter().filter_map(|(at, record)| alone(*at, record, stored_at));
                    group.change.insert.extend(alone);
                    group.taking.push((job, Sequence(0)));
                }
                Job::Finish { finished, answer } => {
                    let finished = group.finish(finished);
                    group.finishing.push(Job::Finish { finished, answer });
                }
            }
        }
        group.change.insert.extend(chunks.finish());
        group
    }

    fn finish(&mut self, mut finished: Finished) -> Finished {
        // what an earlier job of this group puts there goes before it came
        let removed: HashSet<Sequence> = finished.removed.iter().copied().collect();
        self.change.insert.retain(|(first, _)| !removed.contains(first));
        self.change.replace.retain(|(first, _)| !removed.contains(first));
        self.change.remove.append(&mut finished.removed);
        self.change.replace.append(&mut finished.rewritten);
        // what waits again had its place in the store before
        let again =
            finished.kept.iter().filter_map(|kept| alone(kept.sequence, &kept.record, kept.stored_at));
        self.change.replace.extend(again);
        self.change.resolved.append(&mut finished.resolved);
        self.change.fail.append(&mut finished.failed);
        self.change.unfail.append(&mut finished.unfailed);
        finished
    }

    pub fn is_empty(&self) -> bool {
        self.taking.is_empty() && self.finishing.is_empty()
    }
}
