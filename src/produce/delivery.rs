//! The meeting point of one request and the delivery reports of its records: one allocation of outcomes and
//! one wake-up a request, however many records it has.

use super::{Budget, Error, Outcome};
use crate::telemetry::metrics::{SendStatus, TopicMetrics};
use smallvec::SmallVec;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// What Kafka confirmed about one record; the topic is the caller's to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub partition: i32,
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch, where the broker set the record's timestamp (`LogAppendTime`).
    pub append_time: Option<i64>,
}

/// What became of one record: written, or why not.
pub type Report = Result<Written, Error>;

/// The reports of records that were sent together, awaited as one.
pub struct Delivery {
    shared: Arc<Shared>,
}

struct Shared {
    reports: SmallVec<[OnceLock<Report>; 1]>,
    unresolved: AtomicUsize,
    resolved: Notify,
    budget: Arc<Budget>,
    enqueued: Instant,
}

/// The right and the duty to report on one record. Dropped without a report, the record's outcome is unknown.
/// The bytes that the record had reserved are given back with the report, not with the end of the request.
pub struct Ack {
    shared: Arc<Shared>,
    index: usize,
    reserved: usize,
    metrics: Arc<TopicMetrics>,
    reported: bool,
}

impl Delivery {
    /// For so many records, for each of which bytes of the budget are reserved, and which are enqueued now.
    pub fn new(records: usize, budget: Arc<Budget>, enqueued: Instant) -> Self {
        Self {
            shared: Arc::new(Shared {
                reports: (0..records).map(|_| OnceLock::new()).collect(),
                unresolved: AtomicUsize::new(records),
                resolved: Notify::new(),
                budget,
                enqueued,
            }),
        }
    }

    /// The ack of the record at `index`, of which there may be one. `reserved` bytes of the budget must have
    /// been reserved for it.
    pub fn ack(&self, index: usize, reserved: usize, metrics: Arc<TopicMetrics>) -> Ack {
        Ack { shared: Arc::clone(&self.shared), index, reserved, metrics, reported: false }
    }

    /// Resolves when every record has its report.
    pub async fn resolved(&self) {
        while self.shared.unresolved.load(std::sync::atomic::Ordering::Acquire) > 0 {
            self.shared.resolved.notified().await;
        }
    }

    /// The report on the record at `index`; None while there is none.
    pub fn report(&self, index: usize) -> Option<&Report> {
        self.shared.reports[index].get()
    }
}

impl Ack {
    /// Gives the record its only report, which came at `now`.
    pub fn report(mut self, report: Report, now: Instant) {
        self.resolve(report, now);
    }

    fn resolve(&mut self, report: Report, now: Instant) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        self.metrics.observe(status(&report), now.saturating_duration_since(self.shared.enqueued));
        // the slot is empty: there is one ack an index, and it reports once
        let _ = self.shared.reports[self.index].set(report);
        self.shared.budget.release_record(self.reserved);
        if self.shared.unresolved.fetch_sub(1, AcqRel) == 1 {
            self.shared.resolved.notify_one();
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.reported {
            let reason = "the producer was closed before Kafka reported on the record".into();
            self.resolve(Err(Error::AcknowledgementLost { reason }), Instant::now());
        }
    }
}

fn status(report: &Report) -> SendStatus {
    match report.as_ref().map_err(Error::outcome) {
        Ok(_) => SendStatus::Success,
        Err(Outcome::NotWritten) => SendStatus::Error,
        Err(Outcome::Unknown) => SendStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn delivery(records: usize) -> (Delivery, Arc<TopicMetrics>, Arc<Budget>) {
        let budget = Budget::new(1000);
        assert!(budget.reserve_records(10 * records, records));
        (Delivery::new(records, budget.clone(), Instant::now()), Metrics::for_tests().topic("t"), budget)
    }

    #[tokio::test]
    async fn it_resolves_with_the_last_report() {
        let (delivery, metrics, budget) = delivery(2);
        let (first, second) = (delivery.ack(0, 10, metrics.clone()), delivery.ack(1, 10, metrics));
        second.report(Ok(Written { partition: 1, offset: Some(7), append_time: None }), Instant::now());
        assert!(delivery.report(0).is_none());
        assert_eq!(budget.used(), 10);
        first.report(Ok(Written { partition: 0, offset: None, append_time: None }), Instant::now());
        delivery.resolved().await;
        assert_eq!(delivery.report(1).unwrap().as_ref().unwrap().offset, Some(7));
        assert_eq!((budget.used(), budget.records()), (0, 0));
    }

    #[tokio::test]
    async fn an_ack_that_is_dropped_leaves_the_outcome_unknown() {
        let (delivery, metrics, budget) = delivery(1);
        drop(delivery.ack(0, 10, metrics));
        delivery.resolved().await;
        let error = delivery.report(0).unwrap().as_ref().unwrap_err();
        assert_eq!(error.outcome(), super::super::Outcome::Unknown);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn no_records_are_resolved_at_once() {
        delivery(0).0.resolved().await;
    }
}
