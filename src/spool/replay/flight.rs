//! What is under way to Kafka, and how much more may be.
//!
//! A partition may have as many bytes under way as are left for all others (the dynamic threshold of Choudhury and Hahne,
//! IEEE/ACM Transactions on Networking 6(2), 1998): one that is stuck fills half of what there is, a second one half of
//! the rest, and there is always some for those that are not.

use super::window::Sent;
use crate::spool::lanes::Lane;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// A partition that has records and from which no report comes for so long is stuck, also while there is room: each chunk
/// that has a record for it stays open, with the results of all its others.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Bytes under way, by partition.
pub struct Flight {
    limit: usize,
    records: usize,
    bytes: usize,
    lanes: HashMap<Lane, InLane>,
    stuck: HashSet<Lane>,
}

struct InLane {
    bytes: usize,
    records: usize,
    /// When a report last came, or the first record left.
    moved: Instant,
}

/// Whether more may leave for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Free,
    /// Reports will make room soon.
    Busy,
    Stuck,
}

impl Flight {
    /// `limit` in bytes of the budget of records.
    pub fn new(limit: usize) -> Self {
        Self { limit, records: 0, bytes: 0, lanes: HashMap::new(), stuck: HashSet::new() }
    }

    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether there is no room for any partition.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    pub fn room(&mut self, lane: Lane, now: Instant) -> Room {
        let left = self.limit.saturating_sub(self.bytes);
        match self.lanes.get(&lane) {
            Some(in_lane) if now.saturating_duration_since(in_lane.moved) > STUCK_AFTER => {
                self.stuck.insert(lane);
                Room::Stuck
            }
            in_lane if left > in_lane.map_or(0, |in_lane| in_lane.bytes) => Room::Free,
            _ => Room::Busy,
        }
    }

    /// Whether no report has come for too long, as of the last look.
    pub fn is_stuck(&self, lane: Lane) -> bool {
        self.stuck.contains(&lane)
    }

    pub fn leaves(&mut self, sent: &Sent, now: Instant) {
        self.records += 1;
        self.bytes += sent.reserved;
        let new = InLane { bytes: 0, records: 0, moved: now };
        let in_lane = self.lanes.entry(sent.lane).or_insert(new);
        in_lane.bytes += sent.reserved;
        in_lane.records += 1;
    }

    /// A report came. True where its partition was stuck until now.
    pub fn lands(&mut self, sent: &Sent, now: Instant) -> bool {
        self.records -= 1;
        self.bytes -= sent.reserved;
        if let Some(in_lane) = self.lanes.get_mut(&sent.lane) {
            in_lane.bytes -= sent.reserved;
            in_lane.records -= 1;
            in_lane.moved = now;
            if in_lane.records == 0 {
                self.lanes.remove(&sent.lane);
            }
        }
        !self.stuck.is_empty() && self.stuck.remove(&sent.lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{produce::TopicName, spool::lanes::Lanes};
    use std::sync::LazyLock;

    fn sent(partition: i32, reserved: usize) -> Sent {
        static LANES: LazyLock<Lanes> = LazyLock::new(Lanes::default);
        let topic = TopicName::parse("t").unwrap();
        let lane = LANES.of(&topic, partition);
        Sent { topic, timestamp: 0, line: None, partition, lane, reserved }
    }

    #[test]
    fn a_stuck_partition_leaves_room_for_others() {
        let (mut flight, start) = (Flight::new(100), Instant::now());
        let (stuck, other) = (sent(0, 25), sent(1, 25));
        for _ in 0..2 {
            assert_eq!(flight.room(stuck.lane, start), Room::Free);
            flight.leaves(&stuck, start);
        }
        assert_eq!(flight.room(stuck.lane, start), Room::Busy);
        let later = start + STUCK_AFTER + Duration::from_millis(1);
        assert_eq!(flight.room(stuck.lane, later), Room::Stuck);
        assert_eq!(flight.room(other.lane, later), Room::Free);
        assert!(flight.lands(&stuck, later), "it moves again");
        assert_eq!(flight.room(stuck.lane, later), Room::Free);
        assert!(!flight.lands(&stuck, later));
        assert_eq!(flight.records(), 0);
    }

    #[test]
    fn a_partition_without_a_report_for_too_long_is_stuck_though_there_is_room() {
        let (mut flight, start) = (Flight::new(100), Instant::now());
        let silent = sent(0, 1);
        flight.leaves(&silent, start);
        assert_eq!(flight.room(silent.lane, start + STUCK_AFTER), Room::Free);
        let later = start + STUCK_AFTER + Duration::from_millis(1);
        assert_eq!(flight.room(silent.lane, later), Room::Stuck);
        assert_eq!(flight.room(sent(1, 1).lane, later), Room::Free);
        assert!(flight.lands(&silent, later));
        assert_eq!(
            flight.room(silent.lane, later + 2 * STUCK_AFTER),
            Room::Free,
            "nothing of it is under way"
        );
    }

    #[test]
    fn a_record_larger_than_the_limit_goes_alone() {
        let (mut flight, now) = (Flight::new(100), Instant::now());
        let large = sent(0, 500);
        assert_eq!(flight.room(large.lane, now), Room::Free);
        flight.leaves(&large, now);
        assert!(flight.is_full());
        assert_eq!(flight.room(sent(1, 1).lane, now), Room::Busy);
    }
}
