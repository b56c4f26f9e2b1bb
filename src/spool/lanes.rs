//! Which partitions are stuck: those for which the producer holds records past their time.
//!
//! A partition without a leader takes nothing, and whatever is sent to it meanwhile fills the producer's memory. So
//! while a record is held for a partition, others for it go to the spool and stay there.

use crate::produce::{Record, Topic};
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
    /// The partition that the record goes to as Kafka's Java client places it, which is a guess where another
    /// partitioner is set. None without a key: the producer avoids partitions that have no leader.
    pub fn of(&self, record: &Record, topic: &Topic) -> Option<Lane> {
        let by_key = || Some(java_partition(record.key.as_deref()?, topic.partitions));
        let partition = record.partition.or_else(by_key)?;
        let hash = self.hasher.hash_one((topic.name.as_str(), partition));
        Some(Lane(hash as u16 % LANES as u16))
    }

    /// Whether the record's partition is stuck. Costs next to nothing while none is.
    pub fn is_stuck(&self, record: &Record, topic: &Topic) -> bool {
        self.all() > 0 && self.of(record, topic).is_some_and(|lane| self.is_held(lane))
    }

    pub fn is_held(&self, lane: Lane) -> bool {
        self.held[usize::from(lane.0)].load(Acquire) > 0
    }

    /// The producer holds one more record for the partition, if that is known.
    pub fn hold(&self, lane: Option<Lane>) {
        self.all.fetch_add(1, AcqRel);
        if let Some(lane) = lane {
            self.held[usize::from(lane.0)].fetch_add(1, AcqRel);
        }
    }

    pub fn release(&self, lane: Option<Lane>) {
        self.all.fetch_sub(1, AcqRel);
        if let Some(lane) = lane {
            self.held[usize::from(lane.0)].fetch_sub(1, AcqRel);
        }
    }

    /// How many records the producer holds.
    pub fn all(&self) -> usize {
        self.all.load(Acquire)
    }
}

/// `org.apache.kafka.clients.producer.internals.BuiltInPartitioner#partitionForKey`
fn java_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX as u32) as i32 % partitions.max(1)
}

/// `org.apache.kafka.common.utils.Utils#murmur2`
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::{TopicName, fake::record};
    use std::time::Instant;

    fn topic(partitions: i32) -> Topic {
        Topic { name: TopicName::parse("t").unwrap(), partitions, learned: Instant::now(), config: None }
    }

    #[test]
    fn the_hash_is_that_of_the_java_client() {
        // from org.apache.kafka.common.utils.UtilsTest
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_stuck_while_a_record_is_held_for_it() {
        let lanes = Lanes::default();
        let to = |partition| Record { partition: Some(partition), ..record("t") };
        let lane = lanes.of(&to(1), &topic(3));
        lanes.hold(lane);
        assert!(lanes.is_stuck(&to(1), &topic(3)));
        assert!(!lanes.is_stuck(&record("t"), &topic(3)), "it may go to any partition");
        lanes.release(lane);
        assert!(!lanes.is_stuck(&to(1), &topic(3)));
    }
}
