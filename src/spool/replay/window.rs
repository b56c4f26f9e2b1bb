//! The chunks that are being sent: what is known of each of their records.

use crate::{
    produce::{Sequence, TopicName},
    spool::{Resolved, lanes::Lane, lines::Line},
};
use std::collections::BTreeMap;

/// So many chunks may lie between a record and the first of its own.
const NEAR: usize = 64;

/// A record of an open chunk.
#[derive(Debug)]
pub enum State {
    /// It is sent when the chunk is read again.
    Waiting(Waiting),
    /// The producer has it.
    Sent(Sent),
    /// Kafka refused it for good; it is on its way to the dead letter topic, or to the failed ones.
    Refused(Option<Line>),
    Resolved(Resolved),
}

/// Why a record was passed over, where that is known, and which others wait behind it.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    pub line: Option<Line>,
    /// None where an earlier one of its line was, or where it comes back.
    pub obstacle: Option<Obstacle>,
}

/// What a record cannot pass for now.
#[derive(Debug, Clone)]
pub enum Obstacle {
    /// Its topic is in trouble.
    Topic(TopicName),
    /// Its partition is stuck.
    Lane(Lane),
}

/// What a report is put together with.
#[derive(Debug, Clone)]
pub struct Sent {
    pub topic: TopicName,
    /// The record's, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub line: Option<Line>,
    pub partition: i32,
    pub lane: Lane,
    pub reserved: usize,
}

/// One chunk.
#[derive(Debug, Default)]
pub struct OpenChunk {
    /// By index in the chunk, rising.
    records: Vec<(u32, State)>,
    /// Records that are neither waiting nor resolved.
    under_way: usize,
    /// Its results are being committed.
    pub is_closing: bool,
    /// What waits in it can be sent as soon as it is closed.
    pub is_due: bool,
}

/// Every open chunk, by its first sequence.
#[derive(Default)]
pub struct Window(BTreeMap<Sequence, OpenChunk>);

impl OpenChunk {
    pub fn new(records: Vec<(u32, State)>) -> Self {
        let under_way = records.iter().filter(|(_, state)| state.is_under_way()).count();
        Self { records, under_way, ..Self::default() }
    }

    /// Puts the record into another state, and returns the one that it had.
    pub fn replace(&mut self, index: u32, state: State) -> Option<State> {
        let place = self.records.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        let now = usize::from(state.is_under_way());
        let before = std::mem::replace(&mut self.records[place].1, state);
        self.under_way = self.under_way + now - usize::from(before.is_under_way());
        Some(before)
    }

    pub fn state(&self, index: u32) -> Option<&State> {
        let place = self.records.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(&self.records[place].1)
    }

    /// Nothing more will be heard of its records.
    pub fn is_settled(&self) -> bool {
        self.under_way == 0
    }

    /// How many records of it are looked after.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Every record has its end.
    pub fn is_resolved(&self) -> bool {
        self.records.iter().all(|(_, state)| matches!(state, State::Resolved(_)))
    }

    /// The records that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.records.iter().filter_map(|(_, state)| match state {
            State::Waiting(waiting) => Some(waiting),
            _ => None,
        })
    }

    /// The records that the producer has, by index.
    pub fn sent(&self) -> impl Iterator<Item = (u32, &Sent)> {
        self.records.iter().filter_map(|(index, state)| match state {
            State::Sent(sent) => Some((*index, sent)),
            _ => None,
        })
    }

    /// The results so far, by index.
    pub fn results(&self) -> Vec<(u32, Resolved)> {
        let result = |(index, state): &(u32, State)| match state {
            State::Resolved(resolved) => Some((*index, resolved.clone())),
            _ => None,
        };
        self.records.iter().filter_map(result).collect()
    }
}

impl State {
    /// The place in a line that the record has while it is not resolved.
    pub fn line(self) -> Option<Line> {
        match self {
            Self::Waiting(waiting) => waiting.line,
            Self::Refused(line) => line,
            Self::Sent(sent) => sent.line,
            Self::Resolved(_) => None,
        }
    }

    fn is_under_way(&self) -> bool {
        matches!(self, Self::Sent(_) | Self::Refused(_))
    }
}

impl Window {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, first: Sequence, chunk: OpenChunk) {
        self.0.insert(first, chunk);
    }

    pub fn remove(&mut self, first: Sequence) -> Option<OpenChunk> {
        self.0.remove(&first)
    }

    pub fn get(&self, first: Sequence) -> Option<&OpenChunk> {
        self.0.get(&first)
    }

    pub fn get_mut(&mut self, first: Sequence) -> Option<&mut OpenChunk> {
        self.0.get_mut(&first)
    }

    /// The chunk that may hold the record, and the record's index there.
    pub fn find(&mut self, sequence: Sequence) -> Option<(Sequence, u32, &mut OpenChunk)> {
        // the nearest one, but for records that were retried and lie alone among the sequences of another chunk
        self.0.range_mut(..=sequence).rev().take(NEAR).find_map(|(&first, chunk)| {
            let index = u32::try_from(sequence.0 - first.0).ok()?;
            chunk.state(index).is_some().then_some((first, index, chunk))
        })
    }

    /// The first sequences of all.
    pub fn keys(&self) -> Vec<Sequence> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> State {
        State::Resolved(Resolved::Failed { error: "e".into(), reason: "r".into(), dead_letter: None })
    }

    #[test]
    fn a_record_is_found_by_its_sequence_where_the_chunk_has_it() {
        let mut window = Window::default();
        let waiting = |index| (index, State::Waiting(Waiting::default()));
        window.insert(Sequence(10), OpenChunk::new(vec![waiting(0), waiting(2)]));
        assert_eq!(
            window.find(Sequence(12)).map(|(first, index, _)| (first, index)),
            Some((Sequence(10), 2))
        );
        for other in [9, 11, 13] {
            assert!(window.find(Sequence(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn a_chunk_is_settled_when_nothing_is_under_way() {
        let mut chunk =
            OpenChunk::new(vec![(0, State::Waiting(Waiting::default())), (1, State::Refused(None))]);
        assert!(!chunk.is_settled());
        assert!(matches!(chunk.replace(1, failed()), Some(State::Refused(None))));
        assert!(chunk.is_settled());
        assert_eq!(chunk.results().len(), 1);
        assert_eq!(chunk.waiting().count(), 1);
        assert!(chunk.replace(7, failed()).is_none());
    }
}
