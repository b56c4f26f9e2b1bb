//! The budget of bytes that may be in flight, shared by request bodies and by records that wait for Kafka.

use super::{Topic, shares::Shares};
use crate::telemetry::metrics::InFlight;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What one record costs beside its key, value and headers: bookkeeping here and in librdkafka.
pub const RECORD_OVERHEAD: usize = 512;
/// What each header that the sender set costs beside its name and value.
pub const HEADER_OVERHEAD: usize = 128;

/// Bytes of a small body, or of the records of a small request, at most.
const SMALL: usize = 64 << 10;

/// A number of bytes of which parts can be reserved. Never blocks: what does not fit is refused.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    records: AtomicUsize,
    shares: Shares,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            shares: Shares::default(),
        })
    }

    /// All of its bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is reserved now.
    pub fn in_flight(&self) -> InFlight {
        InFlight { bytes: self.used(), records: self.records() }
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Records reserved now.
    pub fn records(&self) -> usize {
        self.records.load(Relaxed)
    }

    /// An empty permit, to be grown as bytes arrive.
    pub fn permit(self: &Arc<Self>) -> Permit {
        Permit { budget: Arc::clone(self), bytes: 0 }
    }

    /// Reserves `bytes` for `records` records, all or nothing. Each gives its share back with its delivery report.
    pub fn reserve_records(&self, bytes: usize, records: usize) -> bool {
        let reserved = self.reserve(bytes, bytes);
        if reserved {
            self.records.fetch_add(records, Relaxed);
        }
        reserved
    }

    /// Whether a record for the partition may be reserved. A partition may have as many bytes in flight as are left for all
    /// others (the dynamic threshold of Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998): one that takes
    /// nothing fills half of what there is, a second one half of the rest. The first request has all that is left.
    pub fn has_share(&self, topic: &Topic, partition: i32) -> bool {
        let own = self.shares.used(topic, partition);
        own == 0 || own < self.limit.saturating_sub(self.used())
    }

    /// What the partitions have of it.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn release_record(&self, bytes: usize) {
        self.records.fetch_sub(1, Relaxed);
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// What may be reserved in all, once something of so many bytes is: large ones leave an eighth to small ones.
    pub fn limit_for(&self, bytes: usize) -> usize {
        if bytes > SMALL { self.limit - self.limit / 8 } else { self.limit }
    }

    /// Bytes that are lacking for `more` of something that has `bytes` with them; 0 where there is room now.
    pub fn missing(&self, more: usize, bytes: usize) -> usize {
        self.used().saturating_add(more).saturating_sub(self.limit_for(bytes))
    }

    /// Reserves `more` bytes for something that has `bytes` with them.
    fn reserve(&self, more: usize, bytes: usize) -> bool {
        let limit = self.limit_for(bytes);
        self.used
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(more).filter(|&sum| sum <= limit))
            .is_ok()
    }
}

/// Bytes of the budget, given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Permit {
    /// Reserves `more` bytes; false, and nothing changed, where the budget is spent.
    pub fn grow(&mut self, more: usize) -> bool {
        let reserved = self.budget.reserve(more, self.bytes + more);
        if reserved {
            self.bytes += more;
        }
        reserved
    }

    /// Bytes reserved by this permit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::TopicName;

    #[test]
    fn a_spent_budget_refuses_and_a_dropped_permit_gives_back() {
        let budget = Budget::new(10);
        let mut first = budget.permit();
        assert!(first.grow(6) && first.grow(4));
        assert!(!budget.permit().grow(1));
        assert_eq!(first.bytes(), 10);
        drop(first);
        assert!(budget.permit().grow(10));
    }

    #[test]
    fn large_ones_leave_an_eighth_to_small_ones() {
        let budget = Budget::new(8 * SMALL);
        let mut large = budget.permit();
        assert!(large.grow(7 * SMALL) && !large.grow(1));
        assert!(!budget.reserve_records(SMALL + 1, 1) && budget.reserve_records(SMALL, 1));
    }

    #[test]
    fn a_partition_has_at_most_as_much_as_is_left_for_the_others() {
        let (budget, topic) = (Budget::new(100), Topic::new(TopicName::parse("t").unwrap(), 3));
        let fill = |partition| {
            (0..100).take_while(|_| budget.has_share(&topic, partition)).for_each(|_| {
                assert!(budget.reserve_records(5, 1));
                budget.shares().take(&topic, partition, 5);
            });
            budget.shares().used(&topic, partition)
        };
        assert_eq!([fill(0), fill(1), fill(2)], [50, 25, 15]);
    }

    #[test]
    fn records_are_reserved_all_or_none() {
        let budget = Budget::new(10);
        assert!(!budget.reserve_records(11, 2));
        assert_eq!((budget.used(), budget.records()), (0, 0));
        assert!(budget.reserve_records(10, 2));
        budget.release_record(5);
        assert_eq!((budget.used(), budget.records()), (5, 1));
    }
}
