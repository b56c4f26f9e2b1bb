//! The places of connections. Beyond their number a few more are accepted, so that probes are always answered, and
//! so that it is known that others wait: then connections that idle, or whose head does not come, make room.

use super::{connection::Phase, extract::Underway};
use crate::telemetry::{metrics::Metrics, silence::Silences};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Connections that are accepted beyond the limit.
pub const RESERVE: usize = 16;
/// Of them, those whose requests wait for a place; the others are for probes.
const WAITING: usize = RESERVE - 2;
/// A connection that has idled for so long is closed where others wait.
const IDLE: Duration = Duration::from_secs(5);
/// So is one whose head has been awaited for so long.
const HEAD: Duration = Duration::from_secs(1);
/// So is one whose client does not close its side of it.
const LINGERS: Duration = Duration::from_millis(200);
/// How often bodies that stall give way: by the next time their connections are seen to be closing.
const BETWEEN_BODIES: Duration = Duration::from_millis(50);
/// In the reserve, where more come, one whose head has been awaited for so long: the head of a probe comes sooner, and
/// probes that wait behind many others get in.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(10);
/// How long a request waits for a place, and how often one is made meanwhile.
const WAIT_TRIES: usize = 10;
const WAIT_PAUSE: Duration = Duration::from_millis(100);

/// All places, and what the connections are at.
pub struct Slots {
    limit: usize,
    free: Arc<Semaphore>,
    waiting: Semaphore,
    open: Mutex<Open>,
    underway: Arc<Underway>,
    /// When bodies gave way last.
    bodies_at: Mutex<Option<Instant>>,
    silences: Mutex<Silences>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Those that have a place.
    placed: HashMap<u64, Arc<Phase>>,
    reserve: HashMap<u64, Arc<Phase>>,
}

impl Slots {
    /// `limit` places, apart from the reserve.
    pub fn new(limit: usize, underway: Arc<Underway>, metrics: Arc<Metrics>) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS - RESERVE - 1);
        Arc::new(Self {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            waiting: Semaphore::new(WAITING),
            open: Mutex::default(),
            underway,
            bodies_at: Mutex::new(None),
            silences: Mutex::new(Silences::of(Duration::from_secs(10))),
            metrics,
        })
    }

    /// Connections that may be open: with the reserve, and one for which one of the reserve gives way.
    pub fn all(&self) -> usize {
        self.limit + RESERVE + 1
    }

    /// A connection was accepted.
    pub fn enter(self: &Arc<Self>, phase: &Arc<Phase>) -> Slot {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        if permit.is_some() {
            open.placed.insert(id, Arc::clone(phase));
        } else {
            phase.enter_reserve();
            open.reserve.insert(id, Arc::clone(phase));
        }
        drop(open);
        Slot { slots: Arc::clone(self), id, phase: Arc::clone(phase), permit: Mutex::new(permit) }
    }

    /// Tells as many connections to close as requests wait, without those that were told before: of those that idle or
    /// whose head does not come, the oldest first. Where these are too few, bodies that bring little give way.
    fn make_room(&self, now: Instant) {
        let waiting = WAITING - self.waiting.available_permits();
        let (mut closed, missing) = self.lock().close(waiting, now);
        closed.extend(std::iter::repeat_n("body", self.bodies_give_way(missing, now)));
        for reason in closed {
            self.count(reason);
        }
    }

    fn bodies_give_way(&self, count: usize, now: Instant) -> usize {
        let mut at = self.bodies_at.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 || at.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_BODIES) {
            return 0;
        }
        *at = Some(now);
        self.underway.give_places(count, now.into())
    }

    /// Closes one of the reserve, so that one more can be accepted.
    pub fn one_of_the_reserve_gives_way(&self, now: Instant) {
        let reason = self.lock().one_of_the_reserve_gives_way(now);
        if let Some(reason) = reason {
            self.count(reason);
        }
    }

    fn count(&self, reason: &'static str) {
        self.metrics.connection_closed(reason);
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(more) = silences.breaks(reason.to_owned(), Instant::now()) else { return };
        drop(silences);
        tracing::warn!(
            MAX_CONNECTIONS = self.limit,
            reason,
            more,
            "all connections are in use: those that are idle or whose request does not come are closed; raise MAX_CONNECTIONS, or have clients keep fewer"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Why each of those that are closed now is, and how many are still wanted.
    fn close(&self, wanted: usize, now: Instant) -> (Vec<&'static str>, usize) {
        let lingers = |phase: &&Arc<Phase>| phase.lingers_since();
        for (since, phase) in self.placed.values().filter_map(|phase| Some((lingers(&phase)?, phase))) {
            if is_over(since, LINGERS, now) {
                phase.close();
            }
        }
        let closes = |phase: &&Arc<Phase>| phase.is_told() || lingers(phase).is_some();
        let wanted = wanted.saturating_sub(self.placed.values().filter(closes).count());
        if wanted == 0 {
            return (Vec::new(), 0);
        }
        let mut candidates: Vec<_> = self
            .placed
            .values()
            .filter_map(|phase| {
                let idle = phase.idle_since().filter(|since| is_over(*since, IDLE, now));
                Some((idle.or_else(|| phase.head_since().filter(|since| is_over(*since, HEAD, now)))?, phase))
            })
            .collect();
        candidates.sort_unstable_by_key(|(since, _)| *since);
        let closed: Vec<_> = candidates.iter().filter_map(|(_, phase)| phase.close()).take(wanted).collect();
        let missing = wanted - closed.len();
        (closed, missing)
    }

    /// Closes the one that has waited longest for its head, or for its client to close, unless one is closing already;
    /// why, if it is to be counted.
    fn one_of_the_reserve_gives_way(&self, now: Instant) -> Option<&'static str> {
        if self.reserve.values().any(|phase| phase.is_told()) {
            return None;
        }
        let ended = |phase: &&Arc<Phase>| phase.head_since().or_else(|| phase.lingers_since());
        let oldest = self.reserve.values().filter_map(|phase| Some((ended(&phase)?, phase)));
        let (since, oldest) = oldest.min_by_key(|(since, _)| *since)?;
        if is_over(since, GIVES_WAY_AFTER, now) { oldest.close() } else { None }
    }
}

fn is_over(since: Instant, least: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= least
}

/// The place of one connection; given back with its drop.
pub struct Slot {
    slots: Arc<Slots>,
    id: u64,
    phase: Arc<Phase>,
    /// None while it is in the reserve.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slot {
    /// It was accepted beyond the limit, and has found no place since.
    pub fn is_in_reserve(&self) -> bool {
        self.phase.is_in_reserve()
    }

    /// Waits for a place for a moment; false where there is none.
    pub async fn leave_reserve(&self) -> bool {
        let free = || Arc::clone(&self.slots.free);
        if let Ok(permit) = free().try_acquire_owned() {
            self.take(permit);
            return true;
        }
        if let Ok(_waiting) = self.slots.waiting.try_acquire() {
            for _ in 0..WAIT_TRIES {
                self.slots.make_room(Instant::now());
                if let Ok(Ok(permit)) = timeout(WAIT_PAUSE, free().acquire_owned()).await {
                    self.take(permit);
                    return true;
                }
            }
        }
        self.slots.metrics.connection_closed("full");
        false
    }

    fn take(&self, permit: OwnedSemaphorePermit) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        self.phase.leave_reserve();
        let mut open = self.slots.lock();
        open.reserve.remove(&self.id);
        open.placed.insert(self.id, Arc::clone(&self.phase));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        open.placed.remove(&self.id);
        open.reserve.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn slots(limit: usize) -> Arc<Slots> {
        let underway = Arc::new(Underway::new(crate::produce::Budget::new(1 << 20), 1 << 20));
        Slots::new(limit, underway, Arc::new(Metrics::for_tests()))
    }

    fn enter(slots: &Arc<Slots>) -> (Arc<Phase>, Slot) {
        let phase = Arc::new(Phase::default());
        let slot = slots.enter(&phase);
        (phase, slot)
    }

    fn closed(slots: &Slots) -> String {
        String::from_utf8(slots.metrics.render(Default::default()).unwrap()).unwrap()
    }

    fn told(connections: &[(Arc<Phase>, Slot)]) -> Vec<bool> {
        connections.iter().map(|(phase, _)| phase.is_told()).collect()
    }

    #[test]
    fn as_many_are_closed_as_wait_the_oldest_first_and_none_twice() {
        let slots = slots(4);
        let open: Vec<_> = (0..4)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                enter(&slots)
            })
            .collect();
        open[1].0.request();
        let later = Instant::now() + HEAD;
        let _one = slots.waiting.try_acquire().unwrap();
        slots.make_room(Instant::now());
        assert_eq!(told(&open), [false; 4], "their heads may still come");
        slots.make_room(later);
        slots.make_room(later);
        assert_eq!(told(&open), [true, false, false, false]);
        let _two = slots.waiting.try_acquire().unwrap();
        slots.make_room(later);
        assert_eq!(told(&open), [true, false, true, false]);
        let text = closed(&slots);
        assert!(text.contains(r#"http_connections_closed_total{reason="head"} 2"#), "{text}");
    }

    #[tokio::test]
    async fn a_request_in_the_reserve_takes_the_place_that_is_free() {
        let slots = slots(1);
        let first = enter(&slots);
        let (phase, second) = enter(&slots);
        assert!(!first.1.is_in_reserve() && second.is_in_reserve());
        phase.request();
        let mut waits = Box::pin(second.leave_reserve());
        assert!((&mut waits).now_or_never().is_none());
        drop(first);
        assert!(waits.await && !second.is_in_reserve());
        assert!(!closed(&slots).contains(r#"reason="full""#));
    }

    #[tokio::test]
    async fn beyond_those_that_may_wait_a_free_place_is_taken_and_a_refusal_is_counted() {
        let slots = slots(1);
        let first = enter(&slots);
        let _all = slots.waiting.try_acquire_many(u32::try_from(WAITING).unwrap()).unwrap();
        let (_, second) = enter(&slots);
        assert!(!second.leave_reserve().await);
        let text = closed(&slots);
        assert!(text.contains(r#"http_connections_closed_total{reason="full"} 1"#), "{text}");
        drop(first);
        assert!(second.leave_reserve().await);
    }

    #[test]
    fn where_the_reserve_is_full_the_one_that_has_waited_longest_for_its_head_gives_way() {
        let slots = slots(1);
        let _first = enter(&slots);
        let reserve: Vec<_> = (0..=RESERVE)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                enter(&slots)
            })
            .collect();
        reserve[0].0.request();
        let later = Instant::now() + GIVES_WAY_AFTER;
        slots.one_of_the_reserve_gives_way(later);
        slots.one_of_the_reserve_gives_way(later);
        assert_eq!(told(&reserve).iter().filter(|told| **told).count(), 1, "one for the next that comes");
        assert!(reserve[1].0.is_told());
        assert!(closed(&slots).contains(r#"http_connections_closed_total{reason="head"} 1"#));
    }

    #[test]
    fn nobody_in_the_reserve_gives_way_before_its_head_could_come() {
        let slots = slots(1);
        let _first = enter(&slots);
        let reserve: Vec<_> = (0..=RESERVE).map(|_| enter(&slots)).collect();
        slots.one_of_the_reserve_gives_way(reserve[0].0.head_since().unwrap() + GIVES_WAY_AFTER / 2);
        assert_eq!(told(&reserve), [false; RESERVE + 1]);
    }
}
