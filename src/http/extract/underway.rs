//! The bodies that are still coming. They have at most half of the budget, so that what has come always finds room;
//! where room is short, those give way that bring little.

use crate::produce::Permit;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What a body must bring in a second where room is short. It cannot be earned beforehand: a body that came fast and
/// then stalls is as slow as one that trickles.
pub const FAIR_BYTES_PER_SECOND: u64 = 64 << 10;
/// A body that is so far behind gives way.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// All bodies of which a part is awaited. Those that come with their head are not among them.
pub struct Underway {
    /// Bytes of all of them at most.
    limit: usize,
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    next: u64,
    bytes: usize,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    permit: Permit,
    /// Bytes of its permit, or that it has declared.
    room: usize,
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
    /// For a budget of `limit` bytes, of which half is for these bodies.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit / 2, bodies: Mutex::default() }
    }

    /// Enters a body of which a part has come, and the rest is awaited. It gets the room that it `declared`, so that
    /// two that came in part do not wait for each other's room; where there is none, it has its permit back.
    pub fn enter(&self, permit: Permit, declared: usize) -> Result<Body<'_>, Permit> {
        self.enter_at(permit, declared, Instant::now())
    }

    fn enter_at(&self, permit: Permit, declared: usize, now: Instant) -> Result<Body<'_>, Permit> {
        let mut bodies = self.lock();
        let room = permit.bytes().max(declared);
        if !bodies.make_room(self.limit, room, None, now) {
            return Err(permit);
        }
        let (gives_way, gave_way) = oneshot::channel();
        let id = bodies.next;
        bodies.next += 1;
        bodies.bytes += room;
        bodies.waiting.insert(id, Waiting { permit, room, paid_until: now, _gives_way: gives_way });
        Ok(Body { underway: self, id, gave_way })
    }

    /// Has slow bodies give way until `fits` says that there is room.
    pub fn give_way_until(&self, mut fits: impl FnMut() -> bool) -> bool {
        fits() || self.give_way_until_at(fits, Instant::now())
    }

    fn give_way_until_at(&self, mut fits: impl FnMut() -> bool, now: Instant) -> bool {
        let mut bodies = self.lock();
        loop {
            if fits() {
                return true;
            }
            if !bodies.slowest_gives_way(None, now) {
                return false;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bodies {
    /// True once `more` bytes fit, if need be since slow ones other than `but` gave way.
    fn make_room(&mut self, limit: usize, more: usize, but: Option<u64>, now: Instant) -> bool {
        while self.bytes + more > limit {
            if !self.slowest_gives_way(but, now) {
                return false;
            }
        }
        true
    }

    /// False where none is slow.
    fn slowest_gives_way(&mut self, but: Option<u64>, now: Instant) -> bool {
        let others = self.waiting.iter().filter(|(id, _)| Some(**id) != but);
        let Some((&id, slowest)) = others.min_by_key(|(_, body)| body.paid_until) else { return false };
        if now.saturating_duration_since(slowest.paid_until) < PATIENCE {
            return false;
        }
        self.remove(id);
        true
    }

    fn remove(&mut self, id: u64) -> Option<Permit> {
        let body = self.waiting.remove(&id)?;
        self.bytes -= body.room;
        Some(body.permit)
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

    /// Reserves room for `more` bytes that have come.
    pub fn grow(&self, more: usize) -> Result<(), Refused> {
        self.grow_at(more, Instant::now())
    }

    fn grow_at(&self, more: usize, now: Instant) -> Result<(), Refused> {
        let mut bodies = self.underway.lock();
        let body = bodies.waiting.get_mut(&self.id).ok_or(Refused::GaveWay)?;
        body.paid_until = paid_until(body.paid_until, more, now);
        let undeclared = (body.permit.bytes() + more).saturating_sub(body.room);
        if !bodies.make_room(self.underway.limit, undeclared, Some(self.id), now) {
            return Err(Refused::Full);
        }
        loop {
            let body = bodies.waiting.get_mut(&self.id).ok_or(Refused::GaveWay)?;
            if body.permit.grow(more) {
                body.room += undeclared;
                bodies.bytes += undeclared;
                return Ok(());
            }
            if !bodies.slowest_gives_way(Some(self.id), now) {
                return Err(Refused::Full);
            }
        }
    }

    /// While it waits for room it is not slow.
    pub fn held_up(&self) {
        if let Some(body) = self.underway.lock().waiting.get_mut(&self.id) {
            body.paid_until = Instant::now();
        }
    }

    /// The body is complete: its share of the budget, unless it gave way before.
    pub fn leave(self) -> Result<Permit, Refused> {
        self.underway.lock().remove(self.id).ok_or(Refused::GaveWay)
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
    use crate::produce::Budget;
    use std::sync::Arc;

    fn new(limit: usize) -> (Arc<Budget>, Underway) {
        (Budget::new(limit), Underway::new(limit))
    }

    #[test]
    fn bodies_that_come_have_half_of_the_budget() {
        let (budget, underway) = new(100);
        let (one, two) =
            (underway.enter(budget.permit(), 0).unwrap(), underway.enter(budget.permit(), 0).unwrap());
        let now = Instant::now();
        assert_eq!((one.grow_at(30, now), two.grow_at(21, now)), (Ok(()), Err(Refused::Full)));
        assert_eq!(two.grow_at(20, now), Ok(()));
        drop(one);
        let left = two.leave().unwrap();
        assert_eq!((left.bytes(), budget.used()), (20, 20));
        drop(left);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_a_body_declares_is_kept_for_it() {
        let (budget, underway) = new(100);
        let now = Instant::now();
        let declared = underway.enter_at(budget.permit(), 40, now).unwrap();
        assert!(underway.enter_at(budget.permit(), 20, now).is_err());
        let other = underway.enter_at(budget.permit(), 10, now).unwrap();
        assert_eq!((declared.grow_at(40, now), other.grow_at(11, now)), (Ok(()), Err(Refused::Full)));
        assert_eq!(budget.used(), 40);
    }

    #[tokio::test]
    async fn the_one_that_is_furthest_behind_gives_way() {
        let (budget, underway) = new(100);
        let start = Instant::now();
        let mut stalled = underway.enter_at(budget.permit(), 0, start).unwrap();
        stalled.grow_at(25, start).unwrap();
        let later = underway.enter_at(budget.permit(), 0, start + PATIENCE / 2).unwrap();
        later.grow_at(25, start + PATIENCE / 2).unwrap();
        let fast = underway.enter_at(budget.permit(), 0, start + PATIENCE).unwrap();
        assert_eq!(fast.grow_at(25, start + PATIENCE), Ok(()));
        assert_eq!(budget.used(), 50, "its room is free before its reader knows");
        stalled.gave_way().await;
        assert_eq!((stalled.grow(1), later.grow(0)), (Err(Refused::GaveWay), Ok(())));
        assert!(stalled.leave().is_err());
    }

    #[test]
    fn slow_bodies_give_way_to_what_has_come_too() {
        let (budget, underway) = new(100);
        let start = Instant::now();
        let slow = underway.enter_at(budget.permit(), 0, start).unwrap();
        slow.grow_at(50, start).unwrap();
        let mut rest = budget.permit();
        assert!(rest.grow(50) && !underway.give_way_until_at(|| rest.grow(1), start), "it is not slow yet");
        assert!(underway.give_way_until_at(|| rest.grow(1), start + PATIENCE));
        assert_eq!(slow.leave().unwrap_err(), Refused::GaveWay);
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
