//! From settled chunks to the store, one commit at a time and of a bounded size: each chunk of which something is left or
//! has failed is read once, and only what is written of it is kept in memory.

use super::{AFTER_A_FAULT, Replay, refusals::FailedAt};
use crate::{
    produce::Sequence,
    spool::{Chunk, CommitError, Failure, Finished, Resolution, Store, now_ms},
};
use futures_util::{StreamExt, future::BoxFuture};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};
use tokio::sync::mpsc;

/// Chunks of one commit, at most.
const CHUNKS: usize = 1024;
/// So many bytes of records one commit writes anew, or those of one chunk.
const WRITTEN: usize = 4 << 20;
/// No more is sent while so many results of settled chunks are not committed. One takes about 100 bytes.
const UNCOMMITTED: usize = 1 << 17;

/// What became of chunks, until the store has it.
#[derive(Default)]
pub struct Commits {
    settled: Vec<Sequence>,
    under_way: Option<BoxFuture<'static, Committed>>,
    /// What all these chunks take in memory, in results of records.
    weight: usize,
    /// Not before, since the last one failed.
    not_before: Option<Instant>,
}

/// How many of the chunks were committed, from the first on.
pub struct Committed {
    chunks: Vec<Sequence>,
    result: Result<usize, CommitError>,
}

/// What is known of one chunk.
struct Settled {
    resolution: Resolution,
    /// Nothing is left of it.
    is_whole: bool,
    failed: Vec<FailedAt>,
}

impl Commits {
    /// Nothing more will be heard of the chunk's records.
    pub fn add(&mut self, chunk: Sequence, weight: usize) {
        self.settled.push(chunk);
        self.weight += weight;
    }

    /// Whether the disk is to come first.
    pub fn is_behind(&self) -> bool {
        self.weight >= UNCOMMITTED
    }

    #[cfg(test)]
    pub fn wait_until(&mut self, then: Instant) {
        self.not_before = Some(then);
    }

    /// Resolves with the commit that is under way; never without one.
    pub async fn next(&mut self) -> Committed {
        match &mut self.under_way {
            Some(commit) => commit.await,
            None => std::future::pending().await,
        }
    }
}

impl Replay {
    /// Whether what was sent is to be seen to before more is read.
    pub(super) fn is_behind(&self) -> bool {
        self.commits.is_behind() || self.refusals.is_full()
    }

    /// Begins with the next commit, if there is anything to commit.
    pub(super) fn commit_settled(&mut self) {
        let commits = &mut self.commits;
        let is_paused = commits.not_before.is_some_and(|then| Instant::now() < then);
        if commits.under_way.is_some() || commits.settled.is_empty() || is_paused {
            return;
        }
        let others = commits.settled.split_off(commits.settled.len().min(CHUNKS));
        let chunks = std::mem::replace(&mut commits.settled, others);
        let finish = self.finish(&chunks);
        self.commits.under_way = Some(Box::pin(async move { Committed { result: finish.await, chunks } }));
    }

    /// What is known of the chunks, to the store. Chunks without results are left as they are. Returns how many of them are
    /// seen to: the first one at least.
    fn finish(&self, chunks: &[Sequence]) -> BoxFuture<'static, Result<usize, CommitError>> {
        let resolved_at = now_ms();
        let settled: Vec<_> = chunks.iter().map(|&first| self.settled(first, resolved_at)).collect();
        if settled.iter().all(Option::is_none) {
            return Box::pin(std::future::ready(Ok(chunks.len())));
        }
        let (store, writer) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.writer));
        Box::pin(async move {
            let needs_reading = settled.iter().flatten().any(Settled::needs_reading);
            let complete = move || complete(settled, &store);
            let (finished, count) = if needs_reading {
                let read = tokio::task::spawn_blocking(complete).await;
                read.unwrap_or_else(|error| Err(CommitError::Io(error.to_string())))?
            } else {
                complete()?
            };
            writer.finish(finished).await.map(|()| count)
        })
    }

    fn settled(&self, first: Sequence, resolved_at: i64) -> Option<Settled> {
        let chunk = self.window.get(first)?;
        let results = chunk.results();
        let is_whole = chunk.is_resolved();
        let resolution = Resolution { first, results, resolved_at };
        let failed = self.refusals.failed(first);
        (!resolution.results.is_empty()).then_some(Settled { resolution, is_whole, failed })
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        let Committed { mut chunks, result } = committed;
        self.commits.under_way = None;
        match result {
            Ok(count) => self.commits.settled.extend(chunks.drain(count..)),
            Err(error) => {
                tracing::error!(%error, "what became of stored records cannot be written to the spool; trying again");
                self.commits.settled.append(&mut chunks);
                let then = Instant::now() + AFTER_A_FAULT;
                (self.commits.not_before, self.paused_until) = (Some(then), Some(then));
            }
        }
        for first in chunks {
            let weight = self.refusals.weight(first);
            self.refusals.forget(first);
            let chunk = self.window.remove(first);
            let is_left = chunk.as_ref().is_some_and(|chunk| !chunk.is_resolved());
            self.reading.forget(first, is_left);
            let Some(chunk) = chunk else { continue };
            self.commits.weight = self.commits.weight.saturating_sub(chunk.records() + weight);
            // else the reading comes by again when what they wait for is there
            self.passed_over.is_due |= chunk.is_due;
            if is_left {
                // not with the lines: the reading may have begun again before it, and what comes first does not wait
                self.passed_over.add(first, None);
            }
        }
    }

    /// Takes what is known by now to the store. What is under way, dead letters too, is sent again by the next start.
    pub(super) async fn close(&mut self, messages: &mut mpsc::UnboundedReceiver<super::Message>) {
        self.is_stopping = true;
        while let Ok(message) = messages.try_recv() {
            self.hear(message, Instant::now());
        }
        if let Some(commit) = self.commits.under_way.take() {
            let committed = commit.await;
            self.committed(committed);
        }
        while let Some((kept, result)) = self.keeping.next().await {
            self.kept(kept, result);
        }
        let mut chunks = &self.window.keys()[..];
        while !chunks.is_empty() {
            match self.finish(&chunks[..chunks.len().min(CHUNKS)]).await {
                Ok(count) => chunks = &chunks[count..],
                Err(error) => {
                    tracing::error!(
                        %error, "what became of stored records is not in the spool; they will be sent once more"
                    );
                    return;
                }
            }
        }
    }
}

impl Settled {
    fn needs_reading(&self) -> bool {
        !self.is_whole || !self.failed.is_empty()
    }
}

/// What is to be written, and of how many of the chunks. Read for it is what is left of chunks that are resolved in part,
/// and the records that failed.
fn complete(settled: Vec<Option<Settled>>, store: &Store) -> Result<(Finished, usize), CommitError> {
    let (mut finished, mut written) = (Finished::default(), 0);
    for (place, settled) in settled.iter().enumerate() {
        if written >= WRITTEN {
            return Ok((finished, place));
        }
        if let Some(settled) = settled {
            written += settled.add_to(&mut finished, store)?;
        }
    }
    Ok((finished, settled.len()))
}

impl Settled {
    /// Returns the bytes of records that are written anew.
    fn add_to(&self, finished: &mut Finished, store: &Store) -> Result<usize, CommitError> {
        let io = |error: &dyn std::fmt::Display| CommitError::Io(error.to_string());
        let (first, mut written) = (self.resolution.first, 0);
        if self.is_whole {
            finished.removed.push(first);
        }
        // by its key: its first record may have left long ago
        let value = if self.needs_reading() { store.chunk_at(first) } else { Ok(None) };
        if let Some(value) = value.map_err(|error| io(&error))? {
            let chunk = Chunk::parse(first, value).map_err(|error| io(&error))?;
            if !self.is_whole {
                let resolved: HashSet<u32> =
                    self.resolution.results.iter().map(|(index, _)| *index).collect();
                match chunk.keeping(|index| !resolved.contains(&index)).map_err(|error| io(&error))? {
                    Some(value) => {
                        written += value.len();
                        finished.rewritten.push((first, value));
                    }
                    None => finished.removed.push(first),
                }
            }
            let failed: HashMap<Sequence, &FailedAt> =
                self.failed.iter().map(|failed| (failed.sequence, failed)).collect();
            let copies = chunk.copies(store.instances(), |sequence| failed.contains_key(&sequence));
            for (sequence, record) in copies.map_err(|error| io(&error))? {
                let Some(FailedAt { error, reason, .. }) = failed.get(&sequence) else { continue };
                let (error, reason) = (error.clone(), reason.clone());
                written += crate::produce::batch_size(&record);
                finished.failed.push(Failure { sequence, record, error, reason, failed_at: now_ms() });
            }
        }
        finished.resolved.push(self.resolution.clone());
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        produce::{InstanceId, Record, fake::record},
        spool::{Change, Encoded, Resolved, codec},
    };

    fn store(directory: &std::path::Path) -> Store {
        Store::open(directory, &InstanceId::parse("a").unwrap(), std::time::SystemTime::now()).unwrap()
    }

    fn put(store: &Store, first: Sequence, records: &[Record]) {
        let encoded: Encoded = records.iter().collect();
        let bytes: Vec<u8> = encoded.records().flatten().copied().collect();
        let chunk = codec::chunk(1, encoded.count(), &bytes);
        store.commit(&Change { insert: vec![(first, chunk)], ..Change::default() }).unwrap();
    }

    /// These of the chunk's records have failed.
    fn failed(first: Sequence, indices: impl IntoIterator<Item = u32>, is_whole: bool) -> Option<Settled> {
        let (error, reason) = ("record_rejected".to_owned(), "no".to_owned());
        let mut settled = Settled {
            resolution: Resolution { first, results: Vec::new(), resolved_at: 1 },
            is_whole,
            failed: Vec::new(),
        };
        for index in indices {
            let sequence = Sequence(first.0 + u64::from(index));
            let (error, reason) = (error.clone(), reason.clone());
            settled.failed.push(FailedAt { sequence, error: error.clone(), reason: reason.clone() });
            settled.resolution.results.push((index, Resolved::Failed { error, reason, dead_letter: None }));
        }
        Some(settled)
    }

    #[test]
    fn a_chunk_whose_first_record_has_left_is_rewritten_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let first = Sequence(10);
        put(&store, first, &[record("t"), record("u"), record("v"), record("w")]);
        for (index, left) in [(0, vec![1, 2, 3]), (2, vec![1, 3]), (1, vec![3])] {
            let (finished, _) = complete(vec![failed(first, [index], false)], &store).unwrap();
            assert_eq!((finished.rewritten.len(), finished.failed.len()), (1, 1), "{index}");
            assert_eq!(finished.failed[0].sequence.0, first.0 + u64::from(index));
            store.commit(&Change { replace: finished.rewritten, ..Change::default() }).unwrap();
            let chunk = Chunk::parse(first, store.chunk_at(first).unwrap().unwrap()).unwrap();
            let found: Vec<_> =
                chunk.records(store.instances()).unwrap().iter().map(|(at, _)| at.0 - first.0).collect();
            assert_eq!(found, left);
        }
    }

    #[test]
    fn a_failed_record_keeps_no_more_in_memory_than_its_own_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let value = |number: usize| Some(vec![number as u8; 1000].into());
        let records: Vec<_> = (0..60).map(|number| Record { value: value(number), ..record("t") }).collect();
        put(&store, Sequence(10), &records);
        let (finished, _) = complete(vec![failed(Sequence(10), 0..60, true)], &store).unwrap();
        assert_eq!(finished.removed, [Sequence(10)]);
        assert_eq!(finished.failed.len(), 60);
        for (number, failure) in finished.failed.into_iter().enumerate() {
            let (original, copy) = (&records[number], failure.record);
            assert_eq!(copy.value, original.value);
            let value = copy.value.unwrap();
            assert!(value.try_into_mut().is_ok(), "{number} shares its memory");
        }
    }

    #[test]
    fn a_commit_is_bounded_and_sees_to_one_chunk_at_least() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let large = Record { value: Some(vec![0; WRITTEN / 2 + 1].into()), ..record("t") };
        let firsts = [10, 20, 30].map(Sequence);
        firsts.iter().for_each(|first| put(&store, *first, std::slice::from_ref(&large)));
        let mut left = &firsts[..];
        let mut committed = Vec::new();
        while !left.is_empty() {
            let settled = left.iter().map(|first| failed(*first, [0], true)).collect();
            let (finished, count) = complete(settled, &store).unwrap();
            assert_eq!(
                (finished.removed.len(), finished.failed.len(), finished.resolved.len()),
                (count, count, count)
            );
            left = &left[count..];
            committed.push(count);
        }
        assert_eq!(committed, [2, 1]);
    }
}
