//! The places of connections. Beyond their number a few more are accepted, so that probes are always answered, and
//! so that it is known that others wait: then connections that idle make room.

use super::connection::Phase;
use crate::telemetry::{metrics::Metrics, silence::Silence};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Connections that are accepted beyond the limit.
pub const RESERVE: usize = 16;
/// Of them, those whose requests wait for a place; the others are for probes.
const WAITING: usize = RESERVE / 2;
/// A connection that has idled for so long is closed where others wait.
const IDLE: Duration = Duration::from_secs(5);
/// How long a request waits for a place, and how often one is made meanwhile.
const WAIT_TRIES: usize = 10;
const WAIT_PAUSE: Duration = Duration::from_millis(100);

/// All places, and what the connections are at.
pub struct Slots {
    limit: usize,
    free: Arc<Semaphore>,
    waiting: Semaphore,
    open: Mutex<Open>,
    silence: Mutex<Silence>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    next: u64,
    phases: HashMap<u64, Arc<Phase>>,
}

impl Slots {
    /// `limit` places, apart from the reserve.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS - RESERVE);
        Arc::new(Self {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            waiting: Semaphore::new(WAITING),
            open: Mutex::default(),
            silence: Mutex::new(Silence::of(Duration::from_secs(10))),
            metrics,
        })
    }

    /// Connections that may be open, the reserve included.
    pub fn all(&self) -> usize {
        self.limit + RESERVE
    }

    /// A connection was accepted.
    pub fn enter(self: &Arc<Self>, phase: &Arc<Phase>) -> Slot {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        if permit.is_none() {
            self.make_room();
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = open.next;
        open.next += 1;
        open.phases.insert(id, Arc::clone(phase));
        Slot { slots: Arc::clone(self), id, permit: Mutex::new(permit) }
    }

    /// Tells the connection that has idled longest, for [`IDLE`] at least, to close.
    fn make_room(&self) {
        let now = Instant::now();
        let closes = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = open.phases.values().filter_map(|phase| Some((phase.idle_since()?, phase)));
            let oldest = idle.min_by_key(|(since, _)| *since);
            oldest.is_some_and(|(since, phase)| {
                now.saturating_duration_since(since) >= IDLE && phase.close_if_idle()
            })
        };
        let reason = if closes { "idle" } else { return };
        self.metrics.connection_closed(reason);
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = silence.breaks(now) {
            tracing::warn!(
                MAX_CONNECTIONS = self.limit,
                more,
                "all connections are in use: idle connections are closed; raise MAX_CONNECTIONS, or have clients keep fewer"
            );
        }
    }
}

/// The place of one connection; given back with its drop.
pub struct Slot {
    slots: Arc<Slots>,
    id: u64,
    /// None while it is in the reserve.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slot {
    /// It was accepted beyond the limit, and has found no place since.
    pub fn is_in_reserve(&self) -> bool {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Waits for a place for a moment; false where there is none.
    pub async fn leave_reserve(&self) -> bool {
        let Ok(_waiting) = self.slots.waiting.try_acquire() else { return false };
        for _ in 0..WAIT_TRIES {
            let free = timeout(WAIT_PAUSE, Arc::clone(&self.slots.free).acquire_owned());
            if let Ok(Ok(permit)) = free.await {
                *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                return true;
            }
            self.slots.make_room();
        }
        self.slots.metrics.connection_closed("full");
        false
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open.lock().unwrap_or_else(PoisonError::into_inner).phases.remove(&self.id);
    }
}
