//! Which partitions are stuck: those for which the producer holds records past their time.
//!
//! A partition without a leader takes nothing, and whatever is sent to it meanwhile fills the producer's memory. So
//! while a record is held for a partition, others for it go to the spool and stay there.

use crate::produce::TopicName;
use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

const LANES: usize = 4096;

/// A partition, or several that share a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(u16);

/// How many records the producer holds for each partition.
pub struct Lanes {
    hasher: RandomState,
    held: Box<[AtomicU32]>,
    all: AtomicUsize,
}

impl Default for Lanes {
    fn default() -> Self {
        let held = (0..LANES).map(|_| AtomicU32::new(0)).collect();
        Self { hasher: RandomState::new(), held, all: AtomicUsize::new(0) }
    }
}

impl Lanes {
    /// The lane of a partition.
    pub fn of(&self, topic: &TopicName, partition: i32) -> Lane {
        let hash = self.hasher.hash_one((topic.as_str(), partition));
        Lane(hash as u16 % LANES as u16)
    }

    /// Whether the partition is stuck. Costs next to nothing while none is.
    pub fn is_stuck(&self, topic: &TopicName, partition: i32) -> bool {
        self.all() > 0 && self.is_held(self.of(topic, partition))
    }

    pub fn is_held(&self, lane: Lane) -> bool {
        self.held[usize::from(lane.0)].load(Acquire) > 0
    }

    /// The producer holds one more record for the partition.
    pub fn hold(&self, lane: Lane) {
        self.all.fetch_add(1, AcqRel);
        self.held[usize::from(lane.0)].fetch_add(1, AcqRel);
    }

    pub fn release(&self, lane: Lane) {
        self.all.fetch_sub(1, AcqRel);
        self.held[usize::from(lane.0)].fetch_sub(1, AcqRel);
    }

    /// How many records the producer holds.
    pub fn all(&self) -> usize {
        self.all.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_stuck_while_a_record_is_held_for_it() {
        let (lanes, topic) = (Lanes::default(), TopicName::parse("t").unwrap());
        let lane = lanes.of(&topic, 1);
        lanes.hold(lane);
        assert!(lanes.is_stuck(&topic, 1));
        lanes.release(lane);
        assert!(!lanes.is_stuck(&topic, 1));
    }
}
