//! One partition as one sender writes to it: which records may be handed to librdkafka now, and which have to wait.
//!
//! **The introduction.** A broker that does not know a producer id takes a batch of it at any sequence (KAFKA-15591). With
//! two requests under way, of which the first is refused before its append and the second is taken, librdkafka 2.12
//! believes that the first is in Kafka too (`rd_kafka_dr_implicit_ack`). So a client sends one record alone to a partition
//! that may not know it, and waits for its acknowledgement. From then on the broker refuses a gap.
//!
//! **The lot.** A topic may take smaller batches than librdkafka makes. Of such a topic no more is with librdkafka than fits
//! one batch: a batch that is refused costs an epoch of the producer, and holds up every partition of the client.
//!
//! **The move.** When another client takes the place of one, a partition goes to it once nothing of it is with the old one.
//! What comes back from there goes first.

use crate::produce::{BATCH_OVERHEAD, Outgoing, Topic, TopicId, record_size};
use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

/// Brokers forget a producer id that rests (`producer.id.expiration.ms`, a day by default).
const REST: Duration = Duration::from_secs(3600);
/// A partition from which no report comes for so long takes nothing.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// The largest batch of the topic in bytes, where librdkafka's own limit, `batch_size`, is not below it.
pub fn lot_limit(topic: &Topic, batch_size: usize) -> Option<usize> {
    let limit = topic.config.as_ref()?.max_message_bytes;
    (limit < batch_size).then_some(limit)
}

/// So long after a record that was not answered for a partition is spared, where others can be chosen.
const SPARED_FOR: Duration = Duration::from_secs(5);

/// What a lane is held to.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The number of the client that records are to go to. None while there is none that can send.
    pub client: Option<u64>,
    /// False where records carry no sequences.
    pub introduces: bool,
    /// librdkafka's `batch.size`.
    pub batch_size: usize,
    /// A smaller limit that the topic turned out to have.
    pub learned_limit: Option<usize>,
}

/// The state of one partition.
pub struct Lane {
    /// In order.
    waiting: VecDeque<Outgoing>,
    /// Certainly not written by a client that was replaced, each with its place in the order.
    returned: Vec<(u32, Outgoing)>,
    /// The client that has, or had, what is under way.
    client: u64,
    /// Records that the client has.
    under_way: usize,
    /// The place in the order of the next one, since nothing was under way.
    next: u32,
    introduction: Introduction,
    lot: Lot,
    /// When a report last came, or the first record left.
    moved: Instant,
    /// When a record was last not answered for, where none was since, be it with a refusal.
    unanswered: Option<Instant>,
    /// A record of the replaced client was lost or may be in Kafka: what came after it must not overtake it.
    is_broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Introduction {
    Needed,
    /// One record is under way, alone.
    UnderWay(Option<TopicId>),
    Done(Option<TopicId>),
}

/// What is under way of a topic that takes small batches.
#[derive(Default)]
struct Lot {
    bytes: usize,
    count: i64,
    first_timestamp: i64,
}

/// Reports on records of one partition that came together.
#[derive(Default)]
pub struct Landing {
    pub count: usize,
    /// At least one says no, or does not know.
    pub has_failure: bool,
    /// At least one was not answered for in time.
    pub is_unanswered: bool,
    /// The client was replaced, and a record that it had is lost or may be in Kafka.
    pub breaks: bool,
    /// Certainly not written by a client that was replaced, with their places in the order.
    pub returned: Vec<(u32, Outgoing)>,
}

impl Lane {
    /// Nothing was ever sent.
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            returned: Vec::new(),
            client: 0,
            under_way: 0,
            next: 0,
            introduction: Introduction::Needed,
            lot: Lot::default(),
            moved: now,
            unanswered: None,
            is_broken: false,
        }
    }

    /// Puts a record behind all others.
    pub fn wait(&mut self, outgoing: Outgoing) {
        self.waiting.push_back(outgoing);
    }

    /// Records that are not with a client.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.returned.len()
    }

    /// The next record that may leave now, with its place in the order; it counts as under way from here on.
    pub fn leave(&mut self, rules: Rules, now: Instant) -> Option<(u32, Outgoing)> {
        let front = self.waiting.front()?;
        let client = rules.client?;
        if self.under_way == 0 {
            self.next = 0;
            self.lot = Lot::default();
            if self.client != client || now.saturating_duration_since(self.moved) > REST {
                self.introduction = Introduction::Needed;
            }
            self.client = client;
            self.moved = now;
        } else if self.client != client {
            return None;
        }
        if let Ok(found) = front.found() {
            if rules.introduces && self.introduction != Introduction::Done(found.topic.id) {
                if self.under_way > 0 {
                    return None;
                }
                self.introduction = Introduction::UnderWay(found.topic.id);
            }
            let limit =
                lot_limit(&found.topic, rules.batch_size).into_iter().chain(rules.learned_limit).min();
            if let Some(limit) = limit
                && !self.lot.takes(front, limit, self.under_way)
            {
                return None;
            }
        }
        let outgoing = self.waiting.pop_front()?;
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        self.under_way += 1;
        Some((place, outgoing))
    }

    /// The client did not take the record that was the last to leave.
    pub fn stays(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if matches!(self.introduction, Introduction::UnderWay(_)) {
            self.introduction = Introduction::Needed;
        }
    }

    /// Takes note of reports. What it gives back was never sent and must not be sent now, since it would overtake a record
    /// before it whose outcome is open.
    pub fn land(&mut self, landing: Landing, now: Instant) -> Vec<Outgoing> {
        self.under_way = self.under_way.saturating_sub(landing.count);
        self.moved = now;
        if landing.has_failure || !landing.returned.is_empty() {
            self.introduction = Introduction::Needed;
        } else if let Introduction::UnderWay(topic) = self.introduction {
            self.introduction = Introduction::Done(topic);
        }
        if landing.is_unanswered {
            self.unanswered = Some(now);
        } else if landing.returned.is_empty() {
            self.unanswered = None;
        }
        self.is_broken |= landing.breaks;
        self.returned.extend(landing.returned);
        if self.under_way > 0 {
            return Vec::new();
        }
        // reports on what was purged come in no order
        self.returned.sort_unstable_by_key(|(place, _)| *place);
        let returned = mem::take(&mut self.returned).into_iter().map(|(_, outgoing)| outgoing);
        if mem::take(&mut self.is_broken) {
            return returned.chain(self.waiting.drain(..)).collect();
        }
        for outgoing in returned.rev() {
            self.waiting.push_front(outgoing);
        }
        Vec::new()
    }

    /// Takes out all that waits.
    pub fn give_up(&mut self) -> Vec<Outgoing> {
        self.waiting.drain(..).collect()
    }

    /// Takes out what has waited for longer than `patience`.
    pub fn expire(&mut self, patience: Duration, now: Instant) -> Vec<Outgoing> {
        let is_late = |outgoing: &Outgoing| now.saturating_duration_since(outgoing.enqueued()) >= patience;
        if !self.waiting.iter().any(is_late) {
            return Vec::new();
        }
        let (late, waiting) = mem::take(&mut self.waiting).into_iter().partition(is_late);
        self.waiting = waiting;
        Vec::from(late)
    }

    /// Whether the partition takes nothing, as far as one can tell: nothing has been heard of what is under way for too long,
    /// or the last record was not answered for, and the next one is still to be or is under way.
    pub fn is_stuck(&self, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_spared = |unanswered| self.under_way > 0 || since(unanswered) < SPARED_FOR;
        self.under_way > 0 && since(self.moved) > STUCK_AFTER || self.unanswered.is_some_and(is_spared)
    }

    /// Whether nothing would be forgotten with it.
    pub fn rests(&self, now: Instant) -> bool {
        self.under_way == 0 && self.waiting() == 0 && now.saturating_duration_since(self.moved) > REST
    }
}

impl Lot {
    /// Whether the record fits beside what is `under_way`; it counts from here on.
    fn takes(&mut self, outgoing: &Outgoing, limit: usize, under_way: usize) -> bool {
        let record = outgoing.record();
        if under_way == 0 {
            *self = Self { bytes: BATCH_OVERHEAD, count: 0, first_timestamp: record.timestamp };
        }
        let size = record_size(record, record.timestamp.saturating_sub(self.first_timestamp), self.count);
        // one that fits no batch is librdkafka's and the broker's to refuse
        let fits = under_way == 0 || self.bytes + size <= limit;
        if fits {
            self.bytes += size;
            self.count += 1;
        }
        fits
    }
}

#[cfg(test)]
pub mod tests;
