//! The lanes of one topic, and what else one sender knows of it.

use super::{lane::Lane, native::topic::NativeTopic, polled::PolledProducer, sync::lock};
use crate::produce::TopicName;
use arc_swap::ArcSwapOption;
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long a topic is known to take smaller batches than its settings said.
const LEARNED_FOR: Duration = Duration::from_secs(60);

/// The lanes of one topic.
pub struct Lanes {
    by_partition: Vec<OnceLock<Box<Mutex<Lane>>>>,
    /// What the client of this number sends to the topic with.
    native: ArcSwapOption<(u64, NativeTopic)>,
    /// A limit of batches that a refusal has shown; none is the largest number.
    learned_limit: AtomicUsize,
    learned_at: Mutex<Option<Instant>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            by_partition: Vec::new(),
            native: ArcSwapOption::empty(),
            learned_limit: AtomicUsize::new(usize::MAX),
            learned_at: Mutex::new(None),
        }
    }
}

impl Lanes {
    /// Has room for so many partitions.
    pub fn grow(&mut self, partitions: usize) {
        if self.by_partition.len() < partitions {
            self.by_partition.resize_with(partitions, OnceLock::new);
        }
    }

    /// The lane of a partition; None where the topic has no such one.
    pub fn of(&self, partition: i32, now: Instant) -> Option<&Mutex<Lane>> {
        let lane = self.by_partition.get(usize::try_from(partition).ok()?)?;
        Some(lane.get_or_init(|| Box::new(Mutex::new(Lane::new(now)))))
    }

    /// For how many partitions there is room.
    pub fn partitions(&self) -> usize {
        self.by_partition.len()
    }

    /// The lanes that there are, by partition.
    pub fn used(&self) -> impl Iterator<Item = (i32, &Mutex<Lane>)> {
        (0..).zip(&self.by_partition).filter_map(|(partition, lane)| Some((partition, &**lane.get()?)))
    }

    /// Forgets lanes that rest. False where none is left.
    pub fn forget_resting(&mut self, now: Instant) -> bool {
        let mut is_used = false;
        for lane in &mut self.by_partition {
            if lane.get().is_some_and(|lane| lock(lane).rests(now)) {
                lane.take();
            }
            is_used |= lane.get().is_some();
        }
        is_used
    }

    /// What it was sent to with may be of a topic that is gone.
    pub fn forget_native(&self) {
        self.native.store(None);
    }

    /// Lets go of what clients before the one of this number sent with: each would live for as long.
    pub fn forget_natives_before(&self, number: u64) {
        if self.native.load().as_ref().is_some_and(|native| native.0 < number) {
            self.native.store(None);
        }
    }

    /// What `client`, which has the number, sends to the topic with. None where librdkafka refuses the name.
    pub fn native(
        &self,
        number: u64,
        client: &PolledProducer,
        topic: &TopicName,
    ) -> Option<Arc<(u64, NativeTopic)>> {
        if let Some(native) = self.native.load_full().filter(|native| native.0 == number) {
            return Some(native);
        }
        let native = Arc::new((number, client.topic(topic)?));
        self.native.store(Some(Arc::clone(&native)));
        Some(native)
    }

    /// What a refusal has shown that the topic takes at most, in bytes of a batch.
    pub fn learned_limit(&self, now: Instant) -> Option<usize> {
        let limit = self.learned_limit.load(Relaxed);
        if limit == usize::MAX {
            return None;
        }
        let is_old = lock(&self.learned_at).is_none_or(|at| now.saturating_duration_since(at) >= LEARNED_FOR);
        if is_old {
            self.learned_limit.store(usize::MAX, Relaxed);
        }
        (!is_old).then_some(limit)
    }

    /// A refusal has shown that.
    pub fn learn_limit(&self, limit: usize, now: Instant) {
        *lock(&self.learned_at) = Some(now);
        self.learned_limit.fetch_min(limit, Relaxed);
    }
}
