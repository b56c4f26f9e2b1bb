//! The bodies that are still coming. Large ones together have half of the budget and small ones an eighth, so that what
//! has come always finds room; where room is short, those give way that bring little.

use crate::produce::{Budget, Permit};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep, timeout},
};

/// What a body must bring in a second where room is short. It cannot be earned beforehand: a body that came fast and
/// then stalls is as slow as one that trickles.
pub const FAIR_BYTES_PER_SECOND: u64 = 64 << 10;
/// A body that is so far behind gives way.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a small body at most.
const SMALL: usize = 64 << 10;
/// Where bodies that come fast have all the room, one more looks for room again after this time, for so long. That is
/// longer than a body may stall where room is short.
const ROOM_PAUSE: Duration = Duration::from_millis(50);
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// What is reserved between two looks at the budget is not seen; then slow ones give way once more.
const BUDGET_TRIES: usize = 3;

/// All bodies of which a part is awaited. Those that come with their head are not among them.
pub struct Underway {
    budget: Arc<Budget>,
    /// Bytes of a small body at most.
    small: usize,
    /// Of a large body that waits for no larger one.
    medium: usize,
    /// Bytes that a large body may have if it does not declare them.
    largest: usize,
    bodies: Mutex<Bodies>,
    /// Who waits for room is served in order: small bodies among themselves, and large ones.
    turns: [Semaphore; 2],
}

struct Bodies {
    next: u64,
    small: Class,
    large: Class,
}

/// Bodies that have room together.
struct Class {
    limit: usize,
    /// That have come.
    bytes: usize,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    permit: Permit,
    /// The `Content-Length`; 0 where there is none.
    declared: usize,
    /// Until when the bytes that came are enough; never in the future.
    paid_until: Instant,
    /// Its drop tells the reader.
    _gives_way: oneshot::Sender<()>,
}

/// Why bytes found no room.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bodies that have it come fast.
    Full,
    /// This body had to make room.
    GaveWay,
}

impl Underway {
    /// Within the budget; a body has `largest` bytes at most.
    pub fn new(budget: Arc<Budget>, largest: usize) -> Self {
        let limit = budget.limit();
        let class = |limit| Class { limit, bytes: 0, waiting: HashMap::new() };
        Self {
            budget,
            small: SMALL.min(limit / 8),
            medium: limit / 32,
            largest,
            bodies: Mutex::new(Bodies { next: 0, small: class(limit / 8), large: class(limit / 2) }),
            turns: [Semaphore::new(1), Semaphore::new(1)],
        }
    }

    /// Enters a body of which a part has come, and the rest is awaited. Where there is no room it waits for a while, in
    /// order, if few bytes wait so. One that takes little of the room of large ones does not wait while it fits.
    pub async fn enter(&self, mut permit: Permit, declared: usize) -> Result<Body<'_>, Refused> {
        if !self.is_small(declared) && declared <= self.medium {
            permit = match self.enter_at(permit, declared, Instant::now()) {
                Ok(body) => return Ok(body),
                Err(permit) => permit,
            };
        }
        let turns = &self.turns[usize::from(self.is_small(declared))];
        let is_crowded = || self.budget.used() > self.budget.limit() / 4 * 3;
        if turns.available_permits() == 0 && is_crowded() {
            return Err(Refused::Full);
        }
        let waits = async {
            // never closed
            let _turn = turns.acquire().await;
            loop {
                permit = match self.enter_at(permit, declared, Instant::now()) {
                    Ok(body) => return Ok(body),
                    Err(_) if is_crowded() => return Err(Refused::Full),
                    Err(permit) => permit,
                };
                sleep(ROOM_PAUSE).await;
            }
        };
        timeout(ROOM_WAIT, waits).await.unwrap_or(Err(Refused::Full))
    }

    /// Where there is no room it has its permit back.
    fn enter_at(&self, permit: Permit, declared: usize, now: Instant) -> Result<Body<'_>, Permit> {
        let mut bodies = self.lock();
        let bytes = permit.bytes();
        let (is_small, whole) = self.judge(bytes, declared);
        if !bodies.class(is_small).fits(whole, None, now) {
            return Err(permit);
        }
        let (gives_way, gave_way) = oneshot::channel();
        let id = bodies.next;
        bodies.next += 1;
        let body = Waiting { permit, declared, paid_until: now, _gives_way: gives_way };
        bodies.class(is_small).insert(id, body);
        Ok(Body { underway: self, id, gave_way })
    }

    /// Whether a body of `declared` bytes could be reserved now, if need be since slow ones gave way.
    pub fn has_room_for(&self, declared: usize) -> bool {
        self.find_room(self.is_small(declared), Instant::now(), || {
            self.budget.missing(declared.max(1), declared)
        })
    }

    /// Reserves `more` bytes that have come, if need be since slow bodies gave way.
    pub fn grow(&self, permit: &mut Permit, more: usize) -> bool {
        permit.grow(more) || self.grow_at(permit, more, Instant::now())
    }

    fn grow_at(&self, permit: &mut Permit, more: usize, now: Instant) -> bool {
        let bytes = permit.bytes() + more;
        self.find_room(self.is_small(bytes), now, || {
            if permit.grow(more) { 0 } else { self.budget.missing(more, bytes).max(1) }
        })
    }

    /// Has up to `count` bodies give way that bring little, be it nothing at all, those first that are furthest behind: their
    /// connections take places that others wait for. How many do.
    pub fn give_places(&self, count: usize, now: Instant) -> usize {
        let mut bodies = self.lock();
        let all = bodies.small.waiting.iter().chain(&bodies.large.waiting);
        let mut behind: Vec<_> = all
            .filter(|(_, body)| now.saturating_duration_since(body.paid_until) >= PATIENCE)
            .map(|(&id, body)| (body.paid_until, id))
            .collect();
        behind.sort_unstable();
        behind.truncate(count);
        behind.iter().for_each(|(_, id)| drop(bodies.remove(*id)));
        behind.len()
    }

    /// An empty permit of the budget.
    pub fn permit(&self) -> Permit {
        self.budget.permit()
    }

    /// The budget that the bodies are in.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Has slow bodies give way until `missing` says that no byte is.
    fn find_room(&self, for_small: bool, now: Instant, mut missing: impl FnMut() -> usize) -> bool {
        for _ in 0..BUDGET_TRIES {
            let bytes = missing();
            if bytes == 0 {
                return true;
            }
            if !self.lock().give_way(bytes, for_small, None, now) {
                return false;
            }
        }
        missing() == 0
    }

    fn is_small(&self, bytes: usize) -> bool {
        bytes <= self.small
    }

    /// Whether a body of which `bytes` have come counts as small, and how many it may have in the end.
    fn judge(&self, bytes: usize, declared: usize) -> (bool, usize) {
        let whole = bytes.max(declared);
        let is_small = self.is_small(whole);
        match (is_small, declared) {
            (true, 0) => (true, self.small),
            (false, 0) => (false, self.largest.max(whole)),
            _ => (is_small, whole),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bodies {
    fn class(&mut self, is_small: bool) -> &mut Class {
        if is_small { &mut self.small } else { &mut self.large }
    }

    /// Frees `missing` bytes of the budget, or none where slow bodies do not have so many. Small ones give way only to
    /// what is small, and after the large ones.
    fn give_way(&mut self, missing: usize, for_small: bool, but: Option<u64>, now: Instant) -> bool {
        let (large, bytes) = self.large.slow(but, now);
        if bytes >= missing {
            self.large.remove_until(missing, large);
            return true;
        }
        let (small, of_small) = if for_small { self.small.slow(but, now) } else { Default::default() };
        if bytes + of_small < missing {
            return false;
        }
        self.large.remove_until(bytes, large);
        self.small.remove_until(missing - bytes, small);
        true
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Waiting> {
        self.small.waiting.get_mut(&id).or_else(|| self.large.waiting.get_mut(&id))
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        self.small.remove(id).or_else(|| self.large.remove(id))
    }
}

/// Bodies that are slow: since when, which, and their bytes.
type Slow = Vec<(Instant, u64, usize)>;

impl Class {
    /// True once all of the `whole` bytes of a body fit beside what has come of the others, if need be since slow ones
    /// gave way. Each body that grows could then be completed, and give back what it has: so there is always one that
    /// need not wait for the others (the banker's algorithm of Dijkstra).
    fn fits(&mut self, whole: usize, own: Option<u64>, now: Instant) -> bool {
        let own_bytes = own.and_then(|id| self.waiting.get(&id)).map_or(0, |body| body.permit.bytes());
        let missing = (self.bytes - own_bytes + whole.min(self.limit)).saturating_sub(self.limit);
        if missing == 0 {
            return true;
        }
        let (slow, bytes) = self.slow(own, now);
        let fits = bytes >= missing;
        if fits {
            self.remove_until(missing, slow);
        }
        fits
    }

    /// The bodies other than `but` that are slow and have something, and their bytes.
    fn slow(&self, but: Option<u64>, now: Instant) -> (Slow, usize) {
        let others = self.waiting.iter().filter(|(id, _)| Some(**id) != but);
        let slow: Slow = others
            .filter(|(_, body)| now.saturating_duration_since(body.paid_until) >= PATIENCE)
            .map(|(&id, body)| (body.paid_until, id, body.permit.bytes()))
            .filter(|(_, _, bytes)| *bytes > 0)
            .collect();
        let bytes = slow.iter().map(|(_, _, bytes)| bytes).sum();
        (slow, bytes)
    }

    /// Removes those that are furthest behind until they had `missing` bytes.
    fn remove_until(&mut self, missing: usize, mut slow: Slow) {
        slow.sort_unstable();
        let mut freed = 0;
        for (_, id, bytes) in slow {
            if freed >= missing {
                return;
            }
            self.remove(id);
            freed += bytes;
        }
    }

    fn insert(&mut self, id: u64, body: Waiting) {
        self.bytes += body.permit.bytes();
        self.waiting.insert(id, body);
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let body = self.waiting.remove(&id)?;
        self.bytes -= body.permit.bytes();
        Some(body)
    }
}

/// One body that is awaited; it leaves with this.
pub struct Body<'a> {
    underway: &'a Underway,
    id: u64,
    gave_way: oneshot::Receiver<()>,
}

impl Body<'_> {
    /// Resolves when the body has to give way.
    pub async fn gave_way(&mut self) {
        // the sender is never used, only dropped
        let _ = (&mut self.gave_way).await;
    }

    /// Reserves room for `more` bytes that have come; waits for it for a while, which slows the client down.
    pub async fn grow(&self, more: usize) -> Result<(), Refused> {
        let mut waited = Duration::ZERO;
        loop {
            match self.grow_at(more, Instant::now()) {
                Err(Refused::Full) if waited < ROOM_WAIT => waited += ROOM_PAUSE,
                grown => return grown,
            }
            sleep(ROOM_PAUSE).await;
            self.held_up();
        }
    }

    fn grow_at(&self, more: usize, now: Instant) -> Result<(), Refused> {
        let mut bodies = self.underway.lock();
        let body = bodies.get_mut(self.id).ok_or(Refused::GaveWay)?;
        body.paid_until = paid_until(body.paid_until, more, now);
        let bytes = body.permit.bytes() + more;
        let (is_small, whole) = self.underway.judge(bytes, body.declared);
        if !bodies.class(is_small).fits(whole, Some(self.id), now) {
            return Err(Refused::Full);
        }
        // it may have become a large one
        let mut body = bodies.remove(self.id).ok_or(Refused::GaveWay)?;
        let mut grown = body.permit.grow(more);
        if !grown {
            let missing = self.underway.budget.missing(more, bytes).max(1);
            grown = bodies.give_way(missing, is_small, None, now) && body.permit.grow(more);
        }
        let (was_small, _) = self.underway.judge(body.permit.bytes(), body.declared);
        bodies.class(was_small).insert(self.id, body);
        if grown { Ok(()) } else { Err(Refused::Full) }
    }

    /// While it waits for room it is not slow.
    fn held_up(&self) {
        if let Some(body) = self.underway.lock().get_mut(self.id) {
            body.paid_until = Instant::now();
        }
    }

    /// The body is complete: its share of the budget, unless it gave way before.
    pub fn leave(self) -> Result<Permit, Refused> {
        self.underway.lock().remove(self.id).map(|body| body.permit).ok_or(Refused::GaveWay)
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.underway.lock().remove(self.id);
    }
}

/// Until when `bytes` more are enough, at [`FAIR_BYTES_PER_SECOND`]; never in the future.
pub fn paid_until(before: Instant, bytes: usize, now: Instant) -> Instant {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let paid = Duration::from_millis(bytes.saturating_mul(1000) / FAIR_BYTES_PER_SECOND);
    before.checked_add(paid).map_or(now, |until| until.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::Arc;

    /// Of 8 MiB: large bodies have 4 MiB together, small ones 1 MiB, and one has 2 MiB at most.
    fn new() -> (Arc<Budget>, Underway) {
        let budget = Budget::new(8 << 20);
        (Arc::clone(&budget), Underway::new(budget, 2 << 20))
    }

    const LARGE: usize = 2 << 20;

    fn enter(underway: &Underway, declared: usize, now: Instant) -> Option<Body<'_>> {
        underway.enter_at(underway.permit(), declared, now).ok()
    }

    /// One of which `bytes` have come.
    fn with(underway: &Underway, bytes: usize, declared: usize, now: Instant) -> Body<'_> {
        let body = enter(underway, declared, now).unwrap();
        body.grow_at(bytes, now).unwrap();
        body
    }

    #[test]
    fn what_a_head_declares_takes_no_room_before_it_comes() {
        let (budget, underway) = new();
        let now = Instant::now();
        let heads: Vec<_> = (0..100).map(|_| enter(&underway, LARGE, now).unwrap()).collect();
        let good = with(&underway, LARGE, LARGE, now);
        assert_eq!(good.leave().unwrap().bytes(), LARGE);
        drop(heads);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_grows_only_if_all_of_it_has_room_so_that_one_can_always_be_completed() {
        let (budget, underway) = new();
        let now = Instant::now();
        let (one, two) = (with(&underway, 1 << 20, LARGE, now), with(&underway, 1 << 20, LARGE, now));
        let third = with(&underway, 1 << 20, LARGE, now);
        let late = enter(&underway, LARGE, now);
        assert!(late.is_none(), "two at once could not be completed any more");
        assert_eq!(
            [&one, &two, &third].map(|body| body.grow_at(1 << 20, now)),
            [Ok(()), Err(Refused::Full), Err(Refused::Full)]
        );
        assert_eq!(one.leave().unwrap().bytes(), LARGE);
        assert_eq!((two.grow_at(1 << 20, now), budget.used()), (Ok(()), 3 << 20));
    }

    #[test]
    fn small_bodies_have_room_that_large_ones_do_not_take() {
        let (_, underway) = new();
        let now = Instant::now();
        let _large = [with(&underway, LARGE, LARGE, now), with(&underway, LARGE, LARGE, now)];
        assert!(enter(&underway, LARGE, now).is_none());
        let small: Vec<_> = (0..16).map(|_| with(&underway, SMALL, SMALL, now)).collect();
        assert!(enter(&underway, SMALL, now).is_none(), "they have an eighth together");
        drop(small);
        assert!(enter(&underway, SMALL, now).is_some());
    }

    #[test]
    fn a_body_that_declares_nothing_is_small_until_it_is_large() {
        let (_, underway) = new();
        let now = Instant::now();
        let _large = [with(&underway, LARGE, LARGE, now), with(&underway, LARGE, LARGE, now)];
        let chunked = with(&underway, SMALL, 0, now);
        assert_eq!(chunked.grow_at(1, now), Err(Refused::Full));
        drop(_large);
        assert_eq!(chunked.grow_at(1, now), Ok(()));
        let bytes = |underway: &Underway| {
            let bodies = underway.lock();
            (bodies.small.bytes, bodies.large.bytes)
        };
        assert_eq!(bytes(&underway), (0, SMALL + 1));
        drop(chunked);
        assert_eq!(bytes(&underway), (0, 0));
    }

    #[tokio::test]
    async fn the_one_that_is_furthest_behind_gives_way() {
        let (budget, underway) = new();
        let start = Instant::now();
        let mut stalled = with(&underway, 2 << 20, 2 << 20, start);
        let later = with(&underway, 1 << 20, LARGE, start + PATIENCE / 2);
        let fast = with(&underway, 2 << 20, LARGE, start + PATIENCE);
        assert_eq!(budget.used(), 3 << 20, "its room is free before its reader knows");
        stalled.gave_way().await;
        assert_eq!(stalled.grow_at(1, start), Err(Refused::GaveWay));
        assert_eq!((later.grow_at(0, start), fast.grow_at(0, start)), (Ok(()), Ok(())));
        assert!(stalled.leave().is_err());
    }

    #[test]
    fn no_slow_one_gives_way_where_all_of_them_have_too_little() {
        let (_, underway) = new();
        let start = Instant::now();
        let slow: Vec<_> = (0..100).map(|_| with(&underway, 1, LARGE, start)).collect();
        let later = start + PATIENCE;
        let fast = with(&underway, LARGE, LARGE, later);
        let other = with(&underway, LARGE - 100, LARGE - 100, later);
        assert!(enter(&underway, LARGE, later).is_none());
        assert!(slow.iter().all(|body| body.grow_at(0, later) == Err(Refused::Full)), "they are all there");
        drop((fast, other));
    }

    #[test]
    fn small_ones_give_way_to_what_is_small_alone() {
        let (budget, underway) = new();
        let start = Instant::now();
        let later = start + PATIENCE;
        let slow = with(&underway, SMALL, SMALL, start);
        let mut rest = budget.permit();
        assert!(rest.grow((8 << 20) / 8 * 7 - SMALL));
        assert!(!underway.grow_at(&mut rest, 1, later), "what is large");
        let mut last = [budget.permit(), budget.permit()];
        let small = &mut [(); 16].map(|()| budget.permit());
        assert!(small.iter_mut().all(|permit| permit.grow(SMALL)));
        assert!(!underway.grow_at(&mut last[0], 1, start), "it is not slow yet");
        assert!(underway.grow_at(&mut last[1], 1, later));
        assert_eq!(slow.leave().unwrap_err(), Refused::GaveWay);
    }

    #[test]
    fn slow_bodies_give_way_to_what_has_come_too() {
        let (budget, underway) = new();
        let start = Instant::now();
        let slow = with(&underway, LARGE, LARGE, start);
        let mut rest = budget.permit();
        assert!(rest.grow((8 << 20) / 8 * 7 - LARGE));
        assert!(!underway.grow_at(&mut rest, 1, start), "it is not slow yet");
        assert!(underway.grow_at(&mut rest, 1, start + PATIENCE));
        assert_eq!(slow.leave().unwrap_err(), Refused::GaveWay);
    }

    #[tokio::test]
    async fn those_that_wait_for_room_are_served_in_order() {
        let (_, underway) = new();
        let now = Instant::now();
        let fast = [with(&underway, LARGE, LARGE, now), with(&underway, LARGE, LARGE, now)];
        let (mut first, mut second) = (
            Box::pin(underway.enter(underway.permit(), LARGE)),
            Box::pin(underway.enter(underway.permit(), SMALL + 1)),
        );
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(fast);
        assert!((&mut second).now_or_never().is_none(), "the first one has not entered");
        assert!(first.await.is_ok() && second.await.is_ok());
    }

    #[test]
    fn bodies_that_bring_nothing_give_places_those_first_that_are_furthest_behind() {
        let (_, underway) = new();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bodies = [20, 10, 1000].map(|millis| enter(&underway, SMALL, at(millis)).unwrap());
        assert_eq!(underway.give_places(1, at(1020)), 1);
        assert_eq!(underway.give_places(5, at(1020)), 1);
        assert_eq!(underway.give_places(5, at(1020)), 0, "the third may still come");
        let gave_way = bodies.each_mut().map(|body| Box::pin(body.gave_way()).now_or_never().is_some());
        assert_eq!(gave_way, [true, true, false]);
    }

    #[tokio::test]
    async fn one_that_fits_does_not_wait_for_a_much_larger_one_that_does_not() {
        let (_, underway) = new();
        let now = Instant::now();
        let _fast = [with(&underway, LARGE, LARGE, now), with(&underway, LARGE / 2, LARGE, now)];
        let mut large = Box::pin(underway.enter(underway.permit(), LARGE));
        assert!((&mut large).now_or_never().is_none());
        assert!(matches!(underway.enter(underway.permit(), 100 << 10).now_or_never(), Some(Ok(_))));
    }

    #[test]
    fn what_came_fast_earns_no_time_to_stall() {
        let start = Instant::now();
        let now = start + Duration::from_secs(2);
        assert_eq!(paid_until(start, 8 << 20, now), now);
        assert_eq!(paid_until(start, 64 << 10, now), start + Duration::from_secs(1));
        assert_eq!(paid_until(start, 0, now), start);
    }
}
