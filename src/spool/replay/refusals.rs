//! What becomes of records that Kafka will never take: a dead letter, or a failed record that an operator sees to.

use super::{Replay, Work, dead_letters::DeadLetters, window::State};
use crate::{
    produce::{Error, Receipt, Sequence, TopicName},
    spool::{Resolved, lines::Line},
    telemetry::{silence::Silence, spool_metrics::ReplayStatus},
};
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// Dead letters that are written at once.
const AT_ONCE: usize = 64;
/// No more is read while so many refused records have not come to their end.
const OPEN: usize = 4096;
/// What a refused record takes in memory until it is committed, in results of others.
const WEIGHT: usize = 8;

/// Refused records that have not come to their end.
pub struct Refusals {
    waiting: VecDeque<Refusal>,
    writing: Work<Refused>,
    /// By the first sequence of their chunk, until that is committed.
    open: HashMap<Sequence, Open>,
    /// How many have not come to their end.
    count: usize,
    /// When a dead letter last left or came to its end.
    moved: Instant,
    /// None of those under way has come to its end for too long.
    is_stuck: bool,
    silence: Silence,
}

/// The refused records of a chunk.
#[derive(Default)]
struct Open {
    count: usize,
    failed: Vec<FailedAt>,
}

pub struct Refusal {
    pub first: Sequence,
    index: u32,
    pub error: Error,
}

/// A dead letter, or why there is none.
pub struct Refused {
    refusal: Refusal,
    dead_letter: Result<Receipt, String>,
}

/// A record that is to be moved to the failed ones.
#[derive(Debug, Clone)]
pub struct FailedAt {
    pub sequence: Sequence,
    pub error: String,
    pub reason: String,
}

impl Refusal {
    pub fn sequence(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.index))
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            writing: Work::new(),
            open: HashMap::new(),
            count: 0,
            moved: Instant::now(),
            is_stuck: false,
            silence: Silence::default(),
        }
    }
}

impl Refusals {
    /// The next one whose dead letter is written, or cannot be; never while there is none.
    pub async fn next(&mut self) -> Refused {
        use futures_util::StreamExt;
        match self.writing.next().await {
            Some(refused) => refused,
            None => std::future::pending().await,
        }
    }

    /// Whether these are to come to their end before there are more.
    pub fn is_full(&self) -> bool {
        self.count >= OPEN
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The failed records of the chunk.
    pub fn failed(&self, first: Sequence) -> Vec<FailedAt> {
        self.open.get(&first).map(|open| open.failed.clone()).unwrap_or_default()
    }

    /// The chunk is committed.
    pub fn forget(&mut self, first: Sequence) {
        self.open.remove(&first);
    }

    /// What those of the chunk take in memory, in results of others.
    pub fn weight(&self, first: Sequence) -> usize {
        self.open.get(&first).map_or(0, |open| open.count * WEIGHT)
    }

    /// Those that are written next, as many as may be. Not one by one: those of a chunk have it read once.
    fn take(&mut self) -> Vec<Refusal> {
        let room = if self.writing.len() > AT_ONCE / 2 { 0 } else { AT_ONCE - self.writing.len() };
        self.waiting.drain(..room.min(self.waiting.len())).collect()
    }
}

impl Replay {
    /// Takes a record of an open chunk to its end that Kafka will never take.
    pub(super) fn refuse(&mut self, first: Sequence, index: u32, line: Option<Line>, error: Error) {
        self.set(first, index, State::Refused(line));
        self.refusals.open.entry(first).or_default().count += 1;
        self.refusals.count += 1;
        self.refusals.waiting.push_back(Refusal { first, index, error });
    }

    pub(super) fn refused(&mut self, refused: Refused) {
        self.refusals.moved = Instant::now();
        self.refusals.is_stuck = false;
        self.end_refusal(refused);
    }

    /// Begins with the next dead letters, as many as may be.
    pub(super) fn refuse_next(&mut self) {
        let Some(topic) = &self.parts.dead_letter_topic else {
            return self.fail_waiting("DEAD_LETTER_TOPIC is not set");
        };
        let next = self.refusals.take();
        if next.is_empty() {
            if self.refusals.is_stuck {
                let patience = self.parts.delivery_timeout.as_millis();
                self.fail_waiting(&format!("Kafka has confirmed none for {patience} ms"));
            }
            return;
        }
        self.refusals.moved = Instant::now();
        self.refusals.is_stuck = false;
        let letters = DeadLetters::new(topic.clone(), &self.parts, &self.budget);
        let mut next = next.into_iter().peekable();
        while let Some(refusal) = next.next() {
            let first = refusal.first;
            let mut of_chunk = vec![refusal];
            while let Some(refusal) = next.next_if(|next| next.first == first) {
                of_chunk.push(refusal);
            }
            let records = letters.read(first, of_chunk.iter().map(Refusal::sequence).collect());
            for (refusal, record) in of_chunk.into_iter().zip(records) {
                let letters = letters.clone();
                self.refusals.writing.push(Box::pin(async move {
                    let dead_letter = letters.write(record, &refusal).await;
                    Refused { refusal, dead_letter }
                }));
            }
        }
    }

    /// Dead letters that are under way are waited for, however long it takes: they may be written yet. While they fill
    /// all the room that there is, others are not begun with.
    pub(super) fn watch_dead_letters(&mut self, now: Instant) {
        let refusals = &mut self.refusals;
        if refusals.writing.is_empty() || self.parts.producer.unavailable().is_some() {
            refusals.moved = now;
        } else if !refusals.is_stuck && now >= refusals.moved + self.parts.delivery_timeout {
            refusals.is_stuck = true;
            let (letters, patience_ms) = (refusals.writing.len(), self.parts.delivery_timeout.as_millis());
            tracing::warn!(letters, patience_ms, "Kafka has not confirmed dead letters; they are waited for");
        }
    }

    fn fail_waiting(&mut self, why: &str) {
        while let Some(refusal) = self.refusals.waiting.pop_front() {
            self.end_refusal(Refused { refusal, dead_letter: Err(why.to_owned()) });
        }
    }

    fn end_refusal(&mut self, refused: Refused) {
        let Refused { refusal, dead_letter } = refused;
        self.refusals.count -= 1;
        let sequence = refusal.sequence();
        let (error, mut reason) = (refusal.error.tag().to_owned(), refusal.error.to_string());
        let status = if dead_letter.is_ok() { ReplayStatus::DeadLettered } else { ReplayStatus::Failed };
        self.parts.spool_metrics.replayed(status, 1);
        let dead_letter = match dead_letter {
            Ok(receipt) => Some((receipt.topic, receipt.partition, receipt.offset)),
            Err(why) => {
                if self.parts.dead_letter_topic.is_some() {
                    reason = format!("{reason}; no dead letter was written: {why}");
                }
                let (error, reason) = (error.clone(), reason.clone());
                let open = self.refusals.open.entry(refusal.first).or_default();
                open.failed.push(FailedAt { sequence, error, reason });
                None
            }
        };
        self.tell(sequence, &error, &reason, dead_letter.as_ref().map(|(topic, ..)| topic));
        self.resolve(refusal.first, refusal.index, Resolved::Failed { error, reason, dead_letter });
    }

    fn tell(&mut self, sequence: Sequence, error: &str, reason: &str, dead_letter_topic: Option<&TopicName>) {
        let Some(others) = self.refusals.silence.breaks(Instant::now()) else { return };
        let id = self.parts.store.instances().receipt(sequence);
        match dead_letter_topic {
            Some(topic) => {
                tracing::error!(receipt = %id, error, reason, dead_letter_topic = %topic, others,
                    "Kafka refused an accepted record for good; it is in the dead letter topic");
            }
            None => {
                tracing::error!(receipt = %id, error, reason, others,
                    "Kafka refused an accepted record for good; it stays in the spool: kafka-inlet spool list");
            }
        }
    }
}
