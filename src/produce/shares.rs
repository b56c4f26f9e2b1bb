//! How many bytes of the budget each partition has in flight, so that one that takes nothing leaves room for the others.

use super::Topic;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Partitions beyond that share counters; of fewer some may.
const COUNTERS: usize = 1 << 14;

#[derive(Debug)]
pub struct Shares(Box<[AtomicUsize]>);

impl Default for Shares {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicUsize::new(0)).collect())
    }
}

impl Shares {
    pub fn used(&self, topic: &Topic, partition: i32) -> usize {
        self.of(topic, partition).load(Relaxed)
    }

    pub fn take(&self, topic: &Topic, partition: i32, bytes: usize) {
        self.of(topic, partition).fetch_add(bytes, Relaxed);
    }

    pub fn give_back(&self, topic: &Topic, partition: i32, bytes: usize) {
        self.of(topic, partition).fetch_sub(bytes, Relaxed);
    }

    fn of(&self, topic: &Topic, partition: i32) -> &AtomicUsize {
        // by the golden ratio, so that the partitions of a topic are far from each other
        let spread = u64::from(partition.cast_unsigned()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.0[(topic.hash ^ spread) as usize >> 32 & (COUNTERS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::TopicName;

    #[test]
    fn the_partitions_of_a_topic_have_counters_of_their_own() {
        let (shares, topic) = (Shares::default(), Topic::new(TopicName::parse("t").unwrap(), 1000));
        shares.take(&topic, 0, 10);
        assert_eq!(shares.used(&topic, 0), 10);
        let others = (1..1000).filter(|&partition| shares.used(&topic, partition) > 0).count();
        assert!(others <= 2, "{others} of 999 have the same");
        shares.give_back(&topic, 0, 10);
        assert_eq!(shares.used(&topic, 0), 0);
    }
}
