//! How much of a producer's epoch is used up.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The epoch of one client. librdkafka raises it with each batch that is refused or timed out and
/// goes on at 0 after 32,767 (`rd_kafka_pid_bump`), which brokers refuse (INVALID_PRODUCER_EPOCH) for ever.
#[derive(Debug, Default)]
pub struct Epoch {
    failed_batches: AtomicU32,
    /// As librdkafka's statistics have it.
    told: AtomicU32,
}

impl Epoch {
    /// Half of all: one that is used up within a minute has half a minute left.
    const SPENT: u32 = 1 << 14;

    /// librdkafka told it.
    pub fn is_now(&self, epoch: i64) {
        self.told.fetch_max(u32::try_from(epoch).unwrap_or(0), Relaxed);
    }

    /// A batch was refused, or timed out.
    pub fn batch_failed(&self) {
        self.failed_batches.fetch_add(1, Relaxed);
    }

    /// A broker refuses it. True where that is news.
    pub fn is_refused_now(&self) -> bool {
        self.told.swap(u32::MAX, AcqRel) != u32::MAX
    }

    /// Whether a broker has refused it.
    pub fn is_refused(&self) -> bool {
        self.told.load(Acquire) == u32::MAX
    }

    /// How far it is, where another producer is to take over.
    pub fn spent(&self) -> Option<u32> {
        let epoch = self.told.load(Acquire).max(self.failed_batches.load(Relaxed));
        (epoch >= Self::SPENT).then_some(epoch)
    }
}
