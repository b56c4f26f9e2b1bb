//! From chunks on the disk to records on their way.

use super::{
    AFTER_A_FAULT, Message, Replay, check,
    flight::Room,
    troubles::Way,
    window::{Obstacle, OpenChunk, Sent, State, Waiting},
};
use crate::{
    produce::{
        Admitted, Batching, Delivery, Error, Found, Record, Records, Sequence, Submission, Topic, TopicName,
        distinct_topics,
    },
    spool::{Chunk, ReadError, lanes::Lane, lines::Line},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

/// Bytes of chunks that are read at once.
const READ: usize = 1 << 20;
/// With fewer chunks left to send, the next ones are read.
const AHEAD: usize = 16;

/// Chunks as the disk has them, by their first sequence.
type Chunks = Vec<(Sequence, Bytes)>;

/// Where the reading is.
#[derive(Default)]
pub struct Reading {
    /// What comes next is from here on.
    cursor: Sequence,
    ahead: VecDeque<(Sequence, Bytes)>,
    /// The first of what was read, decoded, where it has to wait for room.
    decoded: Option<(Sequence, Decoded)>,
    under_way: Option<BoxFuture<'static, Result<Chunks, ReadError>>>,
    /// Chunks that were committed while a reading was under way, which may have them as they were before, and whether
    /// something is left of each.
    outdated: HashMap<Sequence, bool>,
    /// The last reading found nothing.
    is_at_end: bool,
    /// Something was stored while a reading was under way.
    there_is_more: bool,
    not_before: Option<Instant>,
}

/// What happens to one record of a chunk.
enum Decision {
    Send { sent: Sent, batching: Batching, is_trial: bool },
    PassOver(Waiting),
    Refuse(Option<Line>, Error),
}

/// The chunk cannot be sent before there is room.
struct Busy;

/// The records of a chunk.
type Decoded = Vec<(Sequence, Record)>;

impl Reading {
    pub fn there_is_more(&mut self) {
        self.is_at_end = false;
        self.there_is_more = true;
    }

    /// Whether everything was read that is to be read now.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end && self.ahead.is_empty() && self.decoded.is_none()
    }

    /// Resolves with what was read; never while nothing is being read.
    pub async fn done(&mut self) -> Result<Chunks, ReadError> {
        match &mut self.under_way {
            Some(reading) => reading.await,
            None => std::future::pending().await,
        }
    }

    /// The chunk was committed. What was read of it before must not be sent; what is left of it is read again, before
    /// anything that comes behind it.
    pub fn forget(&mut self, chunk: Sequence, is_left: bool) {
        if self.under_way.is_some() {
            self.outdated.insert(chunk, is_left);
        }
        let Ok(place) = self.ahead.binary_search_by_key(&chunk, |(first, _)| *first) else { return };
        if is_left {
            self.ahead.truncate(place);
            (self.cursor, self.is_at_end) = (chunk, false);
            self.under_way = None;
            self.outdated.clear();
        } else {
            self.ahead.remove(place);
        }
    }

    fn has_nothing(&self) -> bool {
        self.ahead.is_empty() && self.decoded.is_none()
    }

    /// Begins anew, at this sequence or where it would have gone on, whichever comes first.
    fn rewind(&mut self, to: Sequence) {
        let next =
            self.decoded.iter().map(|(first, _)| *first).chain(self.ahead.iter().map(|(first, _)| *first));
        let to = next.chain([to, self.cursor]).min().unwrap_or(to);
        *self = Self { cursor: to, ..Self::default() };
    }
}

impl Replay {
    /// Begins again at what was passed over, if that is due.
    fn rewind(&mut self) {
        // kept until something is passed over: what is being read may wait behind what has just moved
        let Some(first) = self.passed_over.first.filter(|_| self.passed_over.is_due) else { return };
        let now = Instant::now();
        let is_early = self.passed_over.last_rewind.is_some_and(|last| now < last + super::BETWEEN_REWINDS);
        // each reading comes further than the one before, however long what is passed over takes to read
        let is_behind = !self.reading.is_at_end && self.reading.cursor < self.passed_over.reach;
        if is_early || is_behind {
            return;
        }
        self.passed_over.is_due = false;
        self.passed_over.last_rewind = Some(now);
        self.passed_over.reach = self.reading.cursor;
        self.begin_again(first);
    }

    /// Reads from this chunk on, or from where it would have gone on, whichever comes first.
    pub(super) fn begin_again(&mut self, first: Sequence) {
        self.passed_over.lines.clear();
        self.wait_behind_those_under_way();
        self.passed_over.first = None;
        self.reading.rewind(first);
    }

    /// What goes by another client is not overtaken, though the reading may begin behind it.
    fn wait_behind_those_under_way(&mut self) {
        let lines = &mut self.passed_over.lines;
        for sequence in &self.alone {
            if let Some((_, index, chunk)) = self.window.find(*sequence)
                && let Some(State::Sent(sent)) = chunk.state(index)
            {
                sent.line.inspect(|line| lines.insert(*line));
            }
        }
        self.held.values().filter_map(super::Held::line).for_each(|line| lines.insert(line));
    }

    /// Has the disk read where there is little left to send.
    pub(super) fn read_on(&mut self) {
        if !self.may_send() {
            return;
        }
        self.rewind();
        let reading = &mut self.reading;
        let is_ahead = reading.ahead.len() >= AHEAD;
        if reading.under_way.is_some() || reading.is_at_end || is_ahead {
            return;
        }
        if reading.not_before.is_some_and(|then| Instant::now() < then) {
            return;
        }
        reading.there_is_more = false;
        let (store, cursor) = (Arc::clone(&self.parts.store), reading.cursor);
        reading.under_way = Some(Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || store.chunks_from(cursor, READ)).await;
            read.unwrap_or_else(|error| Err(ReadError(error.to_string())))
        }));
    }

    pub(super) fn read(&mut self, read: Result<Chunks, ReadError>) {
        let reading = &mut self.reading;
        reading.under_way = None;
        let outdated = std::mem::take(&mut reading.outdated);
        match read {
            Ok(chunks) => {
                reading.is_at_end = chunks.is_empty() && !reading.there_is_more;
                if let Some((last, _)) = chunks.last() {
                    reading.cursor = Sequence(last.0.saturating_add(1));
                }
                for (first, value) in chunks {
                    match outdated.get(&first) {
                        None => reading.ahead.push_back((first, value)),
                        Some(false) => {}
                        Some(true) => {
                            // what is left of it comes next
                            reading.cursor = first;
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the spool cannot be read; trying again");
                reading.not_before = Some(Instant::now() + AFTER_A_FAULT);
            }
        }
    }

    pub(super) fn send_what_is_read(&mut self) {
        while !self.reading.has_nothing() && !self.flight.is_full() && !self.is_behind() && self.may_send() {
            if let Some((first, records)) = self.reading.decoded.take() {
                if let Err(records) = self.send(first, records) {
                    self.reading.decoded = Some((first, records));
                    return;
                }
            } else if let Some((first, value)) = self.reading.ahead.pop_front() {
                self.reading.decoded = self.decode(first, value).map(|records| (first, records));
            }
        }
    }

    /// The chunk's records; None where none of them can be sent now.
    fn decode(&mut self, first: Sequence, value: Bytes) -> Option<Decoded> {
        if let Some(chunk) = self.window.get_mut(first) {
            let mut is_due = false;
            let passed_over = &mut self.passed_over;
            for waiting in chunk.waiting() {
                let is_behind = waiting.line.is_some_and(|line| passed_over.lines.contains(line));
                let is_stopped = match &waiting.obstacle {
                    Some(Obstacle::Topic(topic)) => self.troubles.way(topic) == Way::Blocked,
                    Some(Obstacle::Lane(lane)) => {
                        self.flight.is_stuck(*lane) || self.parts.lanes.is_held(*lane)
                    }
                    None => false,
                };
                // it is sent when the chunk is read again
                is_due |= !is_behind && !is_stopped;
                passed_over.add(first, waiting.line);
            }
            chunk.is_due |= is_due;
            if !self.alone.is_empty() {
                // others of their lines wait, since they go by another client
                let alone = chunk
                    .sent()
                    .filter(|(index, _)| self.alone.contains(&Sequence(first.0 + u64::from(*index))));
                alone.filter_map(|(_, sent)| sent.line).for_each(|line| passed_over.lines.insert(line));
            }
            return None;
        }
        if let Some(line) = self.held_line(first) {
            line.inspect(|line| self.passed_over.lines.insert(*line));
            return None;
        }
        let records =
            Chunk::parse(first, value).and_then(|chunk| chunk.records(self.parts.store.instances()));
        records
            .inspect_err(|error| {
                tracing::error!(%error, sequence = first.0, "stored records cannot be read and are passed over");
            })
            .ok()
    }

    /// Sends of the chunk what may be sent now. Gives it back where there is no room.
    fn send(&mut self, first: Sequence, records: Decoded) -> Result<(), Decoded> {
        let Ok(decisions) = self.decide(&records) else { return Err(records) };
        let now = Instant::now();
        let mut states = Vec::with_capacity(records.len());
        let (mut shared, mut alone, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for ((sequence, record), decision) in records.into_iter().zip(decisions) {
            let index = (sequence.0 - first.0) as u32;
            states.push((
                index,
                match decision {
                    Decision::Send { sent, batching, is_trial } => {
                        self.flight.leaves(&sent, now);
                        if is_trial {
                            self.troubles.tries(&sent.topic, sequence);
                        }
                        let group = if batching == Batching::Alone { &mut alone } else { &mut shared };
                        group.push((sequence, record, sent.partition, sent.reserved));
                        if batching == Batching::Alone {
                            // it goes by another client: what comes after it waits for its report
                            sent.line.inspect(|line| self.passed_over.lines.insert(*line));
                        }
                        State::Sent(sent)
                    }
                    Decision::PassOver(waiting) => {
                        self.passed_over.add(first, waiting.line);
                        State::Waiting(waiting)
                    }
                    Decision::Refuse(line, error) => {
                        self.alone.remove(&sequence);
                        refused.push((index, line, error));
                        State::Refused(line)
                    }
                },
            ));
        }
        if states.iter().all(|(_, state)| matches!(state, State::Waiting(_))) {
            return Ok(());
        }
        self.window.insert(first, OpenChunk::new(states));
        self.enqueue(shared, Batching::Shared, now);
        self.enqueue(alone, Batching::Alone, now);
        for (index, line, error) in refused {
            self.refuse(first, index, line, error);
        }
        Ok(())
    }

    /// What happens to each record, without anything happening yet.
    fn decide(&mut self, records: &[(Sequence, Record)]) -> Result<Vec<Decision>, Busy> {
        let now = Instant::now();
        let mut lines: HashSet<Line> = HashSet::new();
        let mut trials: HashSet<&TopicName> = HashSet::new();
        let mut last: Option<(&TopicName, Option<Arc<Topic>>, Way)> = None;
        let mut decisions = Vec::with_capacity(records.len());
        for (sequence, record) in records {
            let line = self.parts.lines.of(record.topic.as_str(), record.key.as_deref());
            let waits =
                line.is_some_and(|line| self.passed_over.lines.contains(line) || lines.contains(&line));
            let pass_over = |obstacle| Decision::PassOver(Waiting { line, obstacle });
            let decision = if waits {
                pass_over(None)
            } else {
                if last.as_ref().is_none_or(|(name, ..)| **name != record.topic) {
                    let (topic, way) = self.topic(&record.topic);
                    last = Some((&record.topic, topic, way));
                }
                match &last {
                    Some((_, Some(topic), way)) if *way == Way::Free || !trials.contains(&record.topic) => {
                        let is_trial = *way == Way::AsTrial;
                        let partition = self.parts.producer.partition(record, topic, now);
                        let lane = self.parts.lanes.of(&topic.name, partition);
                        match self.room(lane, now) {
                            Room::Busy => return Err(Busy),
                            Room::Stuck => pass_over(Some(Obstacle::Lane(lane))),
                            Room::Free => match check(record, topic, self.parts.max_record_bytes) {
                                Err(error) => Decision::Refuse(line, error),
                                Ok(reserved) => {
                                    let is_alone = self.alone.contains(sequence);
                                    let batching = if is_alone { Batching::Alone } else { Batching::Shared };
                                    if is_trial {
                                        trials.insert(&record.topic);
                                    }
                                    let (topic, timestamp) = (record.topic.clone(), record.timestamp);
                                    let sent = Sent { topic, timestamp, line, partition, lane, reserved };
                                    Decision::Send { sent, batching, is_trial }
                                }
                            },
                        }
                    }
                    _ => pass_over(Some(Obstacle::Topic(record.topic.clone()))),
                }
            };
            if matches!(decision, Decision::PassOver(_) | Decision::Send { batching: Batching::Alone, .. }) {
                lines.extend(line);
            }
            decisions.push(decision);
        }
        Ok(decisions)
    }

    fn room(&mut self, lane: Lane, now: Instant) -> Room {
        if self.parts.lanes.is_held(lane) {
            return Room::Stuck;
        }
        self.flight.room(lane, now)
    }

    fn enqueue(&mut self, records: Vec<(Sequence, Record, i32, usize)>, batching: Batching, now: Instant) {
        if records.is_empty() {
            return;
        }
        let (mut sequences, mut admitted) = (Vec::new(), Vec::new());
        let mut sent = Records::with_capacity(records.len());
        for (place, (sequence, record, partition, reserved)) in records.into_iter().enumerate() {
            sequences.push(sequence);
            admitted.push(Admitted { record: place, partition, reserved });
            sent.push(record);
        }
        let (asked, topic_of) = distinct_topics(&sent);
        let found = asked.iter().map(|asked| {
            let unknown = || Err(Error::UnknownTopic(asked.name.clone()));
            let topic = self.parts.producer.known_topic(asked.name).unwrap_or_else(unknown)?;
            Ok(Found { topic, metrics: self.parts.metrics.topic(asked.name.as_str()) })
        });
        let found = found.collect();
        drop(asked);
        // always true: it only counts
        self.budget.reserve_records(admitted.iter().map(|admitted| admitted.reserved).sum(), admitted.len());
        let submission = Arc::new(Submission::new(sent, found, topic_of));
        let delivery = Delivery::new(&submission, admitted, Arc::clone(&self.budget), now);
        let sender = self.sender.clone();
        delivery.listen(Box::new(move |record, report| {
            // the replay ends with the process alone
            let _ = sender.send(Message::Reported(sequences[record], report.clone()));
        }));
        self.parts.producer.enqueue(&mut delivery.outgoing(&submission), batching);
    }
}
