//! Which partition a record goes to. It is chosen before librdkafka has the record, because what else is on its way to
//! the partition decides when it may leave: see [`super::lane`].

use super::lane;
use crate::{
    config::Partitioner,
    produce::{Record, Topic},
};
use md5::{Digest, Md5};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

const TENANT_HEADER: &str = "tenant-id";
/// So long records without a key go to the same partition, to share its batches: librdkafka's default of
/// `sticky.partitioning.linger.ms`.
const STICKY: Duration = Duration::from_millis(10);

/// Chooses partitions, for one process.
pub struct Chooser {
    partitioner: Partitioner,
    /// librdkafka's `batch.size`.
    batch_size: usize,
    start: Instant,
    /// So that not every instance goes to the same partitions at the same time.
    seed: u64,
    /// Records without a key to topics that take small batches.
    spread: AtomicU64,
}

impl Chooser {
    /// By the rule that is set; `batch_size` is librdkafka's, in bytes.
    pub fn new(partitioner: Partitioner, batch_size: usize) -> Self {
        Self {
            partitioner,
            batch_size,
            start: Instant::now(),
            seed: fastrand::u64(..),
            spread: AtomicU64::new(0),
        }
    }

    /// The partition of the record; without a key one that has a leader and of which `is_stuck` does not say that it
    /// takes nothing, where there is one.
    pub fn partition(
        &self,
        record: &Record,
        topic: &Topic,
        now: Instant,
        is_stuck: impl Fn(i32) -> bool,
    ) -> i32 {
        let by_content = || match self.partitioner {
            Partitioner::Java => Some(java(record.key.as_deref()?, topic.partitions)),
            Partitioner::Tenant => tenant(record, topic.partitions),
        };
        record.partition.or_else(by_content).unwrap_or_else(|| self.keyless(topic, now, is_stuck))
    }

    fn keyless(&self, topic: &Topic, now: Instant, is_stuck: impl Fn(i32) -> bool) -> i32 {
        let count = topic.partitions.max(1);
        let number = match lane::lot_limit(topic, self.batch_size) {
            // one lot a round trip is all that a partition takes, so all of them are to take some
            Some(_) => self.spread.fetch_add(1, Relaxed),
            None => {
                let turn = now.saturating_duration_since(self.start).as_millis() / STICKY.as_millis();
                mixed(self.seed.wrapping_add(turn as u64))
            }
        };
        let first = (number % u64::from(count.unsigned_abs())) as i32;
        let takes = |partition: &i32| !topic.leaderless.contains(partition) && !is_stuck(*partition);
        (first..count).chain(0..first).find(takes).unwrap_or(first)
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, OOPSLA 2014): neighbours are unlike each other.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The partition of the record's tenant, else of its key; None leaves the choice.
pub fn tenant(record: &Record, partitions: i32) -> Option<i32> {
    let tenant = record
        .headers
        .iter()
        .find(|header| header.name == TENANT_HEADER)
        .and_then(|header| header.value.as_ref())
        .or(record.key.as_ref())?;
    md5(tenant, partitions)
}

/// The first four bytes of the MD5 digest, big-endian, modulo the partition count.
fn md5(tenant: &[u8], partitions: i32) -> Option<i32> {
    let digest = Md5::digest(tenant);
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let partitions = u32::try_from(partitions).ok().filter(|&count| count > 0)?;
    i32::try_from(first % partitions).ok()
}

/// `org.apache.kafka.clients.producer.internals.BuiltInPartitioner#partitionForKey`
fn java(key: &[u8], partitions: i32) -> i32 {
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
    use crate::{
        kafka::lane::tests::takes_batches_of,
        produce::{TopicName, fake::record},
    };
    use std::collections::BTreeSet;

    fn topic(partitions: i32) -> Topic {
        Topic::new(TopicName::parse("t").unwrap(), partitions)
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
    fn the_first_four_bytes_of_the_digest_decide() {
        // digests by md5sum: 53bce4f1… and bdb99798…
        assert_eq!(md5(b"acme", 12), Some((0x53bc_e4f1_u32 % 12) as i32));
        assert_eq!(md5(b"tenant-7", 12), Some(8));
    }

    #[test]
    fn a_topic_without_partitions_has_no_tenants_partition() {
        assert_eq!(md5(b"acme", 0), None);
    }

    #[test]
    fn the_senders_partition_comes_before_its_key() {
        let chooser = Chooser::new(Partitioner::Java, 1_000_000);
        let keyed = Record { key: Some("21".into()), ..record("t") };
        let by_key = chooser.partition(&keyed, &topic(12), Instant::now(), |_| true);
        assert_eq!(by_key, (-973_932_308 & i32::MAX) % 12);
        let named = Record { partition: Some(11), ..keyed };
        assert_eq!(chooser.partition(&named, &topic(12), Instant::now(), |_| true), 11);
    }

    #[test]
    fn records_without_a_key_stay_together_for_a_moment_and_reach_every_partition() {
        let (chooser, topic) = (Chooser::new(Partitioner::Java, 1_000_000), topic(7));
        let at = |millis| {
            let now = chooser.start + Duration::from_millis(millis);
            chooser.partition(&record("t"), &topic, now, |_| false)
        };
        assert_eq!(at(20), at(29));
        let reached: BTreeSet<_> = (0..1000).map(|turn| at(10 * turn)).collect();
        assert_eq!(reached, (0..7).collect());
    }

    #[test]
    fn a_topic_that_takes_small_batches_has_records_without_a_key_spread() {
        let chooser = Chooser::new(Partitioner::Java, 1_000_000);
        let small = Topic { config: Some(takes_batches_of(1000)), ..topic(3) };
        let now = Instant::now();
        let partitions = [(); 4].map(|()| chooser.partition(&record("t"), &small, now, |_| false));
        assert_eq!(partitions, [0, 1, 2, 0]);
    }

    #[test]
    fn records_without_a_key_go_where_there_is_a_leader_that_takes_them() {
        let chooser = Chooser::new(Partitioner::Tenant, 1_000_000);
        let topic = Topic { leaderless: vec![0, 3], ..topic(4) };
        let reached: BTreeSet<_> = (0..100)
            .map(|turn| {
                let now = chooser.start + STICKY * turn;
                chooser.partition(&record("t"), &topic, now, |partition| partition == 1)
            })
            .collect();
        assert_eq!(reached, BTreeSet::from([2]));
        let nowhere = chooser.partition(&record("t"), &topic, Instant::now(), |_| true);
        assert!((0..4).contains(&nowhere));
    }
}
