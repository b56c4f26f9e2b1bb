//! Dropping what waits for one topic: the way out where the topic is a mistake, and never will be.

use super::{
    failed::{FailedRecords, Stop, say},
    protocol::Answer,
};
use crate::{
    produce::{Sequence, TopicName},
    spool::{
        Chunk, FailedRecord, Finished, ReadError, Resolution, Resolved, Store, now_ms,
        replay::{Dropped, Message},
    },
};
use std::{collections::HashSet, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Bytes of chunks that are looked through at once.
const READ: usize = 1 << 20;
/// Chunks that are seen to at once where they were being sent the time before.
const AT_ONCE: usize = 16;
/// How often it is tried again to drop records of chunks that are being sent, and how soon.
const TRIES: usize = 25;
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What the receipts say from then on.
const ERROR: &str = "dropped";
const REASON: &str = "an operator dropped what waited for this topic (kafka-inlet spool drop --topic)";

/// What is to be written, and what it does.
struct Removal {
    finished: Finished,
    dropped: Vec<FailedRecord>,
}

impl FailedRecords {
    /// Drops what waits for the topic by now. What is being sent is waited for, for a moment.
    pub(super) async fn drop_waiting(
        &self,
        topic: &TopicName,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), Stop> {
        let (mut next, mut open, mut is_any) = (Some(Sequence::default()), Vec::new(), false);
        let end = self.read(Store::last_chunk).await?;
        while let (Some(from), Some(end)) = (next, end) {
            let name = topic.clone();
            let found = self.read(move |store| chunks_with(store, &name, from)).await?;
            next = found.1.filter(|next| *next <= end);
            is_any |= !found.0.is_empty();
            open.extend(self.drop_from(topic, found.0, answers).await?);
        }
        for _ in 0..TRIES {
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            for chunks in std::mem::take(&mut open).chunks(AT_ONCE) {
                open.extend(self.drop_from(topic, chunks.to_vec(), answers).await?);
            }
        }
        let why = match (open.is_empty(), is_any) {
            (true, true) => return Ok(()),
            (true, false) => "no record waits for this topic",
            (false, _) => {
                "some of its records, or of those stored together with them, are being sent; try again"
            }
        };
        say([Answer::Refused { receipt: topic.to_string(), why: why.into() }], answers).await
    }

    /// Returns those of the chunks that are being sent, which are left as they are.
    async fn drop_from(
        &self,
        topic: &TopicName,
        chunks: Vec<Sequence>,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Vec<Sequence>, Stop> {
        if chunks.is_empty() {
            return Ok(chunks);
        }
        let turn = self.turn.lock().await;
        let (resume, resumed) = oneshot::channel();
        let being_sent = self.halt(resumed).await?;
        let (open, chunks): (Vec<_>, Vec<_>) =
            chunks.into_iter().partition(|first| being_sent.contains(first));
        let name = topic.clone();
        let Removal { finished, dropped } = self.read(move |store| removal(store, &name, &chunks)).await?;
        if !dropped.is_empty() {
            self.finish(finished).await?;
            tracing::warn!(%topic, records = dropped.len(), "waiting records were dropped, as an operator asked");
        }
        let lines = &self.parts.lines;
        let line = |failed: &FailedRecord| lines.of(topic.as_str(), failed.record.key.as_deref());
        let records = dropped.iter().map(|failed| (failed.sequence, line(failed))).collect();
        // nobody listens where nothing is sent
        let _ = resume.send(Dropped { topic: topic.clone(), resolved: resolved(), records });
        drop(turn);
        let said: Vec<_> = dropped.iter().map(|failed| Answer::Dropped(self.entry(failed))).collect();
        say(said, answers).await?;
        Ok(open)
    }

    /// Has nothing read and nothing sent until it is resumed. Returns the chunks that are being sent by now.
    async fn halt(&self, resumed: oneshot::Receiver<Dropped>) -> Result<HashSet<Sequence>, Stop> {
        if self.parts.replay.is_closed() {
            return Ok(HashSet::new());
        }
        let (halted, open) = oneshot::channel();
        let stopping = || Stop::Error("the service is stopping".into());
        self.parts.replay.send(Message::Halt { halted, resumed }).map_err(|_| stopping())?;
        open.await.map_err(|_| stopping())
    }
}

fn resolved() -> Resolved {
    Resolved::Failed { error: ERROR.into(), reason: REASON.into(), dead_letter: None }
}

/// Chunks from this one on that hold records of the topic, and where to look on.
fn chunks_with(
    store: &Store,
    topic: &TopicName,
    from: Sequence,
) -> Result<(Vec<Sequence>, Option<Sequence>), ReadError> {
    let chunks = store.chunks_from(from, READ)?;
    let next = chunks.last().and_then(|(last, _)| last.0.checked_add(1)).map(Sequence);
    let mut found = Vec::new();
    for (first, value) in chunks {
        let mut has_any = false;
        Chunk::parse(first, value)?.for_each_key(|_, name, _| has_any |= name == topic.as_str())?;
        if has_any {
            found.push(first);
        }
    }
    Ok((found, next))
}

/// Takes the topic's records out of these chunks, as they are now.
fn removal(store: &Store, topic: &TopicName, chunks: &[Sequence]) -> Result<Removal, ReadError> {
    let resolved_at = now_ms();
    let mut removal = Removal { finished: Finished::default(), dropped: Vec::new() };
    for &first in chunks {
        let Some(value) = store.chunk_at(first)? else { continue };
        let chunk = Chunk::parse(first, value)?;
        let mut of_topic = HashSet::new();
        chunk.for_each_key(|at, name, _| _ = (name == topic.as_str()).then(|| of_topic.insert(at)))?;
        if of_topic.is_empty() {
            continue;
        }
        match chunk.keeping(|index| !of_topic.contains(&Sequence(first.0 + u64::from(index))))? {
            Some(value) => removal.finished.rewritten.push((first, value)),
            None => removal.finished.removed.push(first),
        }
        let mut results = Vec::with_capacity(of_topic.len());
        for (sequence, record) in chunk.copies(store.instances(), |at| of_topic.contains(&at))? {
            results.push(((sequence.0 - first.0) as u32, resolved()));
            let (error, reason) = (ERROR.into(), REASON.into());
            removal.dropped.push(FailedRecord { sequence, record, error, reason, failed_at: resolved_at });
        }
        removal.finished.resolved.push(Resolution { first, results, resolved_at });
    }
    Ok(removal)
}
