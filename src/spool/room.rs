//! Whether there is room for more records, and what is told and logged where there is none.

use super::{
    CommitError, Shortage, Store, Writer,
    refusing::{Refusals, Refusing, Why},
};
use crate::{
    config,
    produce::{Error, duration_text},
    telemetry::spool_metrics::SpoolMetrics,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The spool has room, for readiness, while it is filled by less than this, in percent.
const NEARLY_FULL: u64 = 98;
/// So long after its last fault a disk that could not be written is trusted again: whether it can be shows only then.
const TRUST: Duration = Duration::from_secs(10);

/// The limits of the spool and of its disk.
pub struct Room {
    store: Arc<Store>,
    writer: Arc<Writer>,
    metrics: Arc<SpoolMetrics>,
    max_bytes: u64,
    max_age: Option<Duration>,
    /// A commit found no room on the disk, or a fault of it: not over before this.
    disk_fault: Mutex<Option<Instant>>,
    refusals: Refusals,
}

impl Room {
    pub fn new(
        store: &Arc<Store>,
        writer: &Arc<Writer>,
        settings: &config::Spool,
        metrics: &Arc<SpoolMetrics>,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            writer: Arc::clone(writer),
            metrics: Arc::clone(metrics),
            max_bytes: settings.max_bytes,
            max_age: settings.max_age,
            disk_fault: Mutex::new(None),
            refusals: Refusals::default(),
        }
    }

    /// Says in the log what has changed. To be called once a second.
    pub fn look(&self, refusing: &mut Refusing) {
        refusing.look(&self.refusals, |why| self.is_in_the_way(why));
    }

    /// What the senders of so many records are told, where the oldest one waits for too long to take others.
    pub fn refusal(&self, records: usize) -> Option<Error> {
        let reason = self.too_old()?;
        self.refusals.add(Why::MaxAge);
        self.metrics.refused(records as u64);
        Some(Error::SpoolFull { reason })
    }

    /// Whether new records can be stored.
    pub fn is_left(&self) -> bool {
        ![Why::MaxBytes, Why::MaxAge, Why::Disk].into_iter().any(|why| self.is_in_the_way(why))
    }

    fn is_in_the_way(&self, why: Why) -> bool {
        match why {
            Why::MaxBytes => self.writer.bytes() >= self.max_bytes / 100 * NEARLY_FULL,
            Why::MaxAge => self.too_old().is_some(),
            Why::Disk => self.is_disk_at_fault(),
        }
    }

    /// The disk is at fault until then at least.
    fn set_disk_fault(&self, until: Instant) {
        *self.disk_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn is_disk_at_fault(&self) -> bool {
        let fault = || self.disk_fault.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = *fault() else { return false };
        // without the lock, which those wait for whose records were refused
        if until > Instant::now() || !self.store.is_open() || !self.store.has_space() {
            return true;
        }
        fault().take_if(|other| *other == until);
        false
    }

    /// Why nothing more is stored, where the oldest record waits too long.
    fn too_old(&self) -> Option<String> {
        let (max_age, oldest) = (self.max_age?, self.store.oldest_stored_at()?);
        let age = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .saturating_sub(Duration::from_millis(u64::try_from(oldest).ok()?));
        (age > max_age).then(|| {
            format!("its oldest record waits for longer than SPOOL_MAX_AGE={}", duration_text(max_age))
        })
    }

    /// What the senders of so many records are told that the store did not take.
    pub fn refused(&self, error: &CommitError, records: u64) -> Error {
        self.metrics.refused(records);
        match error {
            CommitError::Full(Shortage::MaxBytes { .. }) => self.refusals.add(Why::MaxBytes),
            CommitError::Full(Shortage::Disk) => {
                self.refusals.add(Why::Disk);
                self.set_disk_fault(Instant::now());
            }
            CommitError::Io(_) => {
                self.refusals.add(Why::Disk);
                self.set_disk_fault(Instant::now() + TRUST);
            }
        }
        Error::SpoolFull { reason: error.to_string() }
    }
}
