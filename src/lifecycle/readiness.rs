//! Whether this instance should get traffic: a cached answer that flips both ways and goes stale if nobody
//! renews it.

use crate::produce::TopicName;
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How old the last probe may be. A probe starts a second after the last one and takes at most 3.3 s.
const STALE_AFTER: Duration = Duration::from_millis(4500);

/// Shared by the link to Kafka, which writes it, and by the HTTP routes, which read it.
#[derive(Debug)]
pub struct Readiness {
    draining: AtomicBool,
    link: RwLock<Link>,
    spool: RwLock<Spool>,
    missing_topics: RwLock<Vec<TopicName>>,
}

/// What this instance can do with a record, as `/ready` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Send it to Kafka.
    Ready,
    /// Store it on disk: Kafka does not answer, for this reason.
    Storing(Arc<str>),
    /// Nothing, for this reason.
    Unready(Arc<str>),
}

#[derive(Debug)]
enum Link {
    Up { proven: Instant },
    Down { reason: Arc<str> },
}

/// What is left for records while Kafka does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spool {
    /// Delivery is direct.
    None,
    Room,
    Full,
}

impl Readiness {
    /// Not ready: nothing is known of Kafka yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            draining: AtomicBool::new(false),
            link: RwLock::new(Link::Down { reason: "not connected to Kafka yet".into() }),
            spool: RwLock::new(Spool::None),
            missing_topics: RwLock::new(Vec::new()),
        })
    }

    /// Kafka has just answered. True where the link was down before.
    pub fn link_up(&self) -> bool {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        let was_down = matches!(*link, Link::Down { .. });
        *link = Link::Up { proven: Instant::now() };
        was_down
    }

    /// Kafka does not answer.
    pub fn link_down(&self, reason: &str) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Link::Down { reason: reason.into() };
    }

    /// Why Kafka cannot be reached; None while it can.
    pub fn link_fault(&self) -> Option<Arc<str>> {
        match &*self.link.read().unwrap_or_else(PoisonError::into_inner) {
            Link::Up { proven } if proven.elapsed() <= STALE_AFTER => None,
            Link::Up { .. } => Some("the connection has not been checked for too long".into()),
            Link::Down { reason } => Some(Arc::clone(reason)),
        }
    }

    /// Whether Kafka answered its last probe, which was a moment ago.
    pub fn is_connected(&self) -> bool {
        self.link_fault().is_none()
    }

    /// From now on this instance wants no traffic, for ever.
    pub fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the service is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether the spool can take records, for durable delivery alone: with room in it this instance is ready also
    /// while Kafka does not answer.
    pub fn set_spool_room(&self, room: bool) {
        let spool = if room { Spool::Room } else { Spool::Full };
        *self.spool.write().unwrap_or_else(PoisonError::into_inner) = spool;
    }

    /// What this instance can do with records now.
    pub fn state(&self) -> State {
        if self.is_draining() {
            return State::Unready("shutting down".into());
        }
        let Some(reason) = self.link_fault() else { return State::Ready };
        match *self.spool.read().unwrap_or_else(PoisonError::into_inner) {
            Spool::None => State::Unready(reason),
            Spool::Room => State::Storing(reason),
            Spool::Full => {
                State::Unready(format!("{reason}; the spool is full and stores no more records").into())
            }
        }
    }

    /// Why this instance should get no traffic; None where it should.
    pub fn fault(&self) -> Option<Arc<str>> {
        match self.state() {
            State::Ready | State::Storing(_) => None,
            State::Unready(reason) => Some(reason),
        }
    }

    /// Replaces the list of configured topics that do not exist. It does not change readiness: the operator's
    /// fault in one topic must not take the others down.
    pub fn set_missing_topics(&self, missing: Vec<TopicName>) {
        *self.missing_topics.write().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    /// The configured topics that do not exist, as of the last look.
    pub fn missing_topics(&self) -> Vec<TopicName> {
        self.missing_topics.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_flips_both_ways() {
        let readiness = Readiness::new();
        assert!(readiness.fault().is_some());
        assert!(readiness.link_up());
        assert!(!readiness.link_up(), "it was up already");
        assert_eq!(readiness.fault(), None);
        readiness.link_down("no broker answers");
        assert_eq!(readiness.fault().as_deref(), Some("no broker answers"));
    }

    #[test]
    fn draining_wins_over_a_link_that_is_up() {
        let readiness = Readiness::new();
        readiness.link_up();
        readiness.start_draining();
        assert_eq!(readiness.fault().as_deref(), Some("shutting down"));
        assert!(readiness.is_connected());
    }

    #[test]
    fn with_room_in_the_spool_it_is_ready_while_the_link_is_down() {
        let readiness = Readiness::new();
        readiness.set_spool_room(true);
        readiness.link_down("no broker answers");
        assert_eq!(readiness.fault(), None);
        assert_eq!(readiness.state(), State::Storing("no broker answers".into()));
        assert_eq!(readiness.link_fault().as_deref(), Some("no broker answers"));
        assert!(!readiness.is_connected());
        readiness.link_up();
        assert_eq!(readiness.state(), State::Ready);
    }

    #[test]
    fn a_full_spool_counts_only_while_the_link_is_down() {
        let readiness = Readiness::new();
        readiness.set_spool_room(false);
        readiness.link_up();
        assert_eq!(readiness.fault(), None);
        readiness.link_down("no broker answers");
        let fault = readiness.fault().unwrap();
        assert!(fault.contains("no broker answers") && fault.contains("the spool is full"), "{fault}");
        readiness.set_spool_room(true);
        assert_eq!(readiness.fault(), None, "it has room again");
    }

    #[test]
    fn draining_wins_over_room_in_the_spool() {
        let readiness = Readiness::new();
        readiness.set_spool_room(true);
        readiness.start_draining();
        assert_eq!(readiness.fault().as_deref(), Some("shutting down"));
    }

    #[test]
    fn an_answer_that_is_not_renewed_goes_stale() {
        let readiness = Readiness::new();
        let Some(long_ago) = Instant::now().checked_sub(STALE_AFTER + Duration::from_millis(1)) else {
            return;
        };
        *readiness.link.write().unwrap() = Link::Up { proven: long_ago };
        assert!(readiness.fault().is_some());
    }
}
