//! Holds back what is stored while a large backlog is being sent, so that the backlog shrinks.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How often the allowance is set anew.
pub const TURN: Duration = Duration::from_millis(100);
/// A backlog up to here is gone in a moment, and holds nobody back.
const SMALL: u64 = 10_000;
/// Of the records that were sent in one turn, so many may be stored in the next, in percent.
const SHARE: u64 = 75;
const UNBOUNDED: u64 = u64::MAX;

/// How many records may be stored in this turn.
pub struct Pace {
    allowance: AtomicU64,
    turned: Notify,
}

impl Default for Pace {
    fn default() -> Self {
        Self { allowance: AtomicU64::new(UNBOUNDED), turned: Notify::new() }
    }
}

impl Pace {
    /// Waits until the records may be stored. Records that are more than the whole allowance take all of it.
    pub async fn wait(&self, records: u64) {
        loop {
            let turned = self.turned.notified();
            let take = |allowance: u64| match allowance {
                UNBOUNDED => Some(UNBOUNDED),
                0 => None,
                allowance => Some(allowance.saturating_sub(records)),
            };
            if self.allowance.fetch_update(AcqRel, Acquire, take).is_ok() {
                return;
            }
            turned.await;
        }
    }

    /// Once a turn: how many records were sent in the last one, and how many are left that can be sent. Nobody is held
    /// back while Kafka takes none.
    pub fn turn(&self, sent: u64, left: u64) {
        let allowance = if sent == 0 || left <= SMALL { UNBOUNDED } else { (sent * SHARE / 100).max(1) };
        self.allowance.store(allowance, Release);
        self.turned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_let_through(pace: &Pace, records: u64) -> bool {
        pace.wait(records).now_or_never().is_some()
    }

    #[test]
    fn nobody_is_held_back_by_a_small_backlog_or_one_that_is_not_sent() {
        let pace = Pace::default();
        for (sent, left) in [(0, 1_000_000), (100, 10), (0, 0)] {
            pace.turn(sent, left);
            assert!(is_let_through(&pace, 1_000_000));
            assert!(is_let_through(&pace, 1));
        }
    }

    #[test]
    fn less_is_stored_than_was_sent() {
        let pace = Pace::default();
        pace.turn(100, 1_000_000);
        assert!(is_let_through(&pace, 74));
        assert!(is_let_through(&pace, 100), "the last one may be larger than what is left");
        assert!(!is_let_through(&pace, 1));
        pace.turn(100, 1_000_000);
        assert!(is_let_through(&pace, 1));
    }

    #[tokio::test]
    async fn who_waits_is_let_through_in_the_next_turn() {
        let pace = Pace::default();
        pace.turn(1, 1_000_000);
        pace.wait(1).await;
        let mut waiting = Box::pin(pace.wait(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        pace.turn(0, 1_000_000);
        waiting.await;
    }
}
