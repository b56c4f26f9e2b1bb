//! Holds back what is stored while a large backlog is being sent, so that the backlog shrinks.
//!
//! Of what Kafka takes of the backlog in one turn, a share may be stored in the next. Who finds it used up waits for the
//! next turn, a moment at most and never longer than its client does; whoever cannot wait, or has waited, takes from the
//! turns to come, up to a second's worth. So clients that wait for their answers store less than is sent, and nobody is
//! refused while there is room.

use std::{
    sync::atomic::{
        AtomicI64,
        Ordering::{AcqRel, Acquire, Release},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// How often the allowance is set anew.
pub const TURN: Duration = Duration::from_millis(100);
/// The longest that anyone is held back.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many turns to come may be taken from.
const AHEAD: i64 = 10;
/// A backlog up to here is gone in a moment, and holds nobody back.
const SMALL: u64 = 10_000;
/// Of the records that were sent in one turn, so many may be stored in the next, in percent.
const SHARE: u64 = 75;
const UNBOUNDED: i64 = i64::MAX;

/// How many records may be stored in this turn.
pub struct Pace {
    /// Below zero where records of turns to come are taken already.
    allowance: AtomicI64,
    /// No turn is taken from beyond this.
    lowest: AtomicI64,
    turned: Notify,
}

impl Default for Pace {
    fn default() -> Self {
        Self { allowance: AtomicI64::new(UNBOUNDED), lowest: AtomicI64::new(0), turned: Notify::new() }
    }
}

impl Pace {
    /// Waits until the records may be stored, for no longer than `patience` and a second. The last ones may be more than
    /// what is left.
    pub async fn wait(&self, records: u64, patience: Duration) {
        let patience = longest_wait(patience);
        if !self.takes(records) && timeout(patience, self.turn_for(records)).await.is_err() {
            self.counts(records);
        }
    }

    /// Counts records that are stored in any case.
    pub fn counts(&self, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        let lowest = self.lowest.load(Acquire);
        let take = |allowance: i64| {
            let is_bounded = allowance != UNBOUNDED;
            is_bounded.then(|| allowance.saturating_sub(records).max(lowest).min(allowance))
        };
        // an error is an allowance without bound
        let _ = self.allowance.fetch_update(AcqRel, Acquire, take);
    }

    async fn turn_for(&self, records: u64) {
        loop {
            let turned = self.turned.notified();
            if self.takes(records) {
                return;
            }
            turned.await;
        }
    }

    /// Takes them where anything is left.
    fn takes(&self, records: u64) -> bool {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        let take = |allowance: i64| match allowance {
            UNBOUNDED => Some(UNBOUNDED),
            allowance => (allowance > 0).then(|| allowance.saturating_sub(records)),
        };
        self.allowance.fetch_update(AcqRel, Acquire, take).is_ok()
    }

    /// Once a turn: how many records were sent in the last one, and how many are left that can be sent. Nobody is held
    /// back while Kafka takes none.
    pub fn turn(&self, sent: u64, left: u64) {
        if sent == 0 || left <= SMALL {
            self.allowance.store(UNBOUNDED, Release);
        } else {
            let share = i64::try_from(sent.saturating_mul(SHARE) / 100).unwrap_or(i64::MAX).max(1);
            self.lowest.store(share.saturating_mul(-AHEAD), Release);
            // what was left over is not kept, what was taken ahead is given back
            let next = |allowance: i64| Some(allowance.min(0).saturating_add(share));
            // never an error: the closure always has a value
            let _ = self.allowance.fetch_update(AcqRel, Acquire, next);
        }
        self.turned.notify_waiters();
    }
}

/// How long a client is held back at most that waits so long itself.
fn longest_wait(client: Duration) -> Duration {
    client.min(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const LEFT: u64 = 1_000_000;

    /// Whether a client that waits as long as it takes does not have to.
    fn is_let_through(pace: &Pace, records: u64) -> bool {
        pace.wait(records, Duration::MAX).now_or_never().is_some()
    }

    #[test]
    fn nobody_is_held_back_by_a_small_backlog_or_one_that_is_not_sent() {
        let pace = Pace::default();
        for (sent, left) in [(0, LEFT), (100, 10), (0, 0)] {
            pace.turn(1, LEFT);
            pace.counts(LEFT);
            pace.turn(sent, left);
            assert!(is_let_through(&pace, LEFT));
            assert!(is_let_through(&pace, 1));
        }
    }

    #[tokio::test]
    async fn less_is_stored_than_was_sent() {
        let pace = Pace::default();
        pace.turn(100, LEFT);
        assert!(is_let_through(&pace, 74));
        assert!(is_let_through(&pace, 100), "the last one may be larger than what is left");
        assert!(!is_let_through(&pace, 1));
        pace.turn(100, LEFT);
        assert!(!is_let_through(&pace, 1), "what was more than what was left is given back first");
        pace.turn(100, LEFT);
        assert!(is_let_through(&pace, 1));
    }

    #[tokio::test]
    async fn who_waits_is_let_through_in_the_next_turn() {
        let pace = Pace::default();
        pace.turn(1, LEFT);
        assert!(is_let_through(&pace, 1));
        let mut waiting = Box::pin(pace.wait(1, PATIENCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        pace.turn(0, LEFT);
        waiting.await;
    }

    #[test]
    fn nobody_is_held_back_longer_than_the_client_waits_or_than_a_second() {
        let second = Duration::from_secs(1);
        for (client, longest) in
            [(Duration::ZERO, Duration::ZERO), (second / 2, second / 2), (Duration::MAX, second)]
        {
            assert_eq!(longest_wait(client), longest);
        }
    }

    #[tokio::test]
    async fn who_has_waited_or_cannot_wait_takes_from_the_turns_to_come_and_from_no_more_than_a_second() {
        for patience in [Duration::ZERO, Duration::from_millis(5)] {
            let pace = Pace::default();
            pace.turn(100, LEFT);
            pace.counts(75 * 2);
            pace.wait(75, patience).await;
            pace.turn(100, LEFT);
            pace.turn(100, LEFT);
            assert!(!is_let_through(&pace, 1), "two turns are used up");
            pace.turn(100, LEFT);
            assert!(is_let_through(&pace, 1));
            pace.counts(LEFT);
            for _ in 0..10 {
                assert!(!is_let_through(&pace, 1));
                pace.turn(100, LEFT);
            }
            pace.turn(100, LEFT);
            assert!(is_let_through(&pace, 1), "not more than ten");
        }
    }
}
