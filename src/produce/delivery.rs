//! The meeting point of one request and the delivery reports of its records: one allocation of outcomes and
//! one wake-up a request, however many records it has.

use super::{
    Budget, Error, Outcome, Receipt, Record, TopicName,
    submission::{Destinations, Found, Submission},
};
use crate::telemetry::metrics::SendStatus;
use smallvec::{SmallVec, smallvec};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, SeqCst},
            fence,
        },
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

impl Written {
    /// With the topic and the timestamp (milliseconds since the Unix epoch) of the record.
    pub fn receipt(&self, topic: TopicName, timestamp: i64) -> Receipt {
        let timestamp = self.append_time.unwrap_or(timestamp);
        Receipt { topic, partition: self.partition, offset: self.offset, timestamp }
    }
}

/// What became of one record: written, or why not.
pub type Report = Result<Written, Error>;

/// A record of a submission that passed every check.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// Its index.
    pub record: usize,
    /// Where it goes: see [`Producer::partition`](super::Producer::partition).
    pub partition: i32,
    /// Bytes of the budget that are reserved for it.
    pub reserved: usize,
}

/// The reports of records that are sent together, awaited as one.
pub struct Delivery {
    shared: Arc<Shared>,
}

struct Shared {
    destinations: Arc<Destinations>,
    slots: SmallVec<[Slot; 1]>,
    unresolved: AtomicUsize,
    resolved: Notify,
    listener: OnceLock<Listener>,
    budget: Arc<Budget>,
    enqueued: Instant,
}

struct Slot {
    admitted: Admitted,
    report: OnceLock<Report>,
}

/// Hears of reports as they come: the record's index in its submission, and its report.
pub type Listener = Box<dyn Fn(usize, &Report) + Send + Sync>;

/// A record to send, and what to report with. The records of a request are kept in memory for as long as one of
/// them is not sent.
pub struct Outgoing {
    submission: Arc<Submission>,
    /// The record's index in the submission.
    index: usize,
    partition: i32,
    ack: Ack,
}

/// The right and the duty to report on one record. Dropped without a report, the record's outcome is unknown. The
/// bytes that the record had reserved are given back with the report, not with the end of the request.
pub struct Ack {
    shared: Arc<Shared>,
    // half of a word: librdkafka keeps one of these with each record
    slot: u32,
    reported: bool,
}

impl Delivery {
    /// For records that are enqueued now, and for each of which bytes of the budget are reserved.
    pub fn new(
        submission: &Submission,
        admitted: impl IntoIterator<Item = Admitted>,
        budget: Arc<Budget>,
        enqueued: Instant,
    ) -> Self {
        let slots: SmallVec<_> =
            admitted.into_iter().map(|admitted| Slot { admitted, report: OnceLock::new() }).collect();
        for Slot { admitted, .. } in &slots {
            if let Ok(found) = submission.destinations.of(admitted.record) {
                budget.shares().take(&found.topic, admitted.partition, admitted.reserved);
            }
        }
        let shared = Shared {
            destinations: Arc::clone(&submission.destinations),
            unresolved: AtomicUsize::new(slots.len()),
            slots,
            resolved: Notify::new(),
            listener: OnceLock::new(),
            budget,
            enqueued,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the producer takes, in the order of the records. To be called once, with the submission that this was
    /// made for: each record has one ack.
    pub fn outgoing<'a>(&'a self, submission: &'a Arc<Submission>) -> impl Iterator<Item = Outgoing> + 'a {
        (0..).zip(&self.shared.slots).map(|(slot, Slot { admitted, .. })| Outgoing {
            submission: Arc::clone(submission),
            index: admitted.record,
            partition: admitted.partition,
            ack: Ack { shared: Arc::clone(&self.shared), slot, reported: false },
        })
    }

    /// From now on the listener hears of each report; once. A report that comes meanwhile is among
    /// [`Delivery::reports`], told to the listener, or both.
    pub fn listen(&self, listener: Listener) {
        // a second one has nothing to hear that the first does not
        let _ = self.shared.listener.set(listener);
        fence(SeqCst);
    }

    /// Resolves when every record has its report.
    pub async fn resolved(&self) {
        while self.shared.unresolved.load(std::sync::atomic::Ordering::Acquire) > 0 {
            self.shared.resolved.notified().await;
        }
    }

    /// Each record with its report; None while there is none.
    pub fn reports(&self) -> impl Iterator<Item = (&Admitted, Option<&Report>)> {
        self.shared.slots.iter().map(|slot| (&slot.admitted, slot.report.get()))
    }
}

impl Outgoing {
    /// The same record once more, alone: one that was handed over and is certainly not in Kafka. The ack is its own.
    pub fn again(record: Record, found: Found, partition: i32, ack: Ack) -> Self {
        let submission = Submission::new(smallvec![record], smallvec![Ok(found)], Vec::new());
        Self { submission: Arc::new(submission), index: 0, partition, ack }
    }

    /// The record to send.
    pub fn record(&self) -> &Record {
        &self.submission.records[self.index]
    }

    /// The topic that it goes to. An error is a bug: such a record is not admitted.
    pub fn found(&self) -> Result<&Found, Error> {
        self.submission.destinations.of(self.index)
    }

    /// The partition that it goes to.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// When it was handed over by whoever waits for it.
    pub fn enqueued(&self) -> Instant {
        self.ack.enqueued()
    }

    /// What to report with, for whoever needs the record no longer.
    pub fn into_ack(self) -> Ack {
        self.ack
    }

    /// Gives the record its only report, which came at `now`.
    pub fn report(self, report: Report, now: Instant) {
        self.ack.report(report, now);
    }

    /// Takes the ack out while `send` has the record: given back by it, the two are together again.
    pub fn send<E>(self, send: impl FnOnce(&Record, Ack) -> Result<(), (E, Ack)>) -> Result<(), (E, Self)> {
        let Self { submission, index, partition, ack } = self;
        send(&submission.records[index], ack)
            .map_err(|(error, ack)| (error, Self { submission, index, partition, ack }))
    }
}

impl Ack {
    /// When its record was handed over by whoever waits for it.
    pub fn enqueued(&self) -> Instant {
        self.shared.enqueued
    }

    /// The topic that its record goes to. An error is a bug: such a record is not admitted.
    pub fn found(&self) -> Result<&Found, Error> {
        self.shared.destinations.of(self.slot().admitted.record)
    }

    /// Gives the record its only report, which came at `now`.
    pub fn report(mut self, report: Report, now: Instant) {
        self.resolve(report, now);
    }

    fn slot(&self) -> &Slot {
        &self.shared.slots[self.slot as usize]
    }

    fn resolve(&mut self, report: Report, now: Instant) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let Slot { admitted, report: slot } = self.slot();
        if let Ok(found) = self.found() {
            let duration = now.saturating_duration_since(self.shared.enqueued);
            found.metrics.observe(status(&report), duration);
            let shares = self.shared.budget.shares();
            shares.give_back(&found.topic, admitted.partition, admitted.reserved);
        }
        // the slot is empty: there is one ack a slot, and it reports once
        let _ = slot.set(report);
        // with the one in `listen`: a report that the listener does not hear of is seen by whoever set it
        fence(SeqCst);
        if let (Some(listener), Some(report)) = (self.shared.listener.get(), slot.get()) {
            listener(admitted.record, report);
        }
        self.shared.budget.release_record(admitted.reserved);
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
    use crate::produce::fake::record;

    fn delivery(records: usize) -> (Delivery, Vec<Ack>, Arc<Budget>) {
        let budget = Budget::new(1000);
        assert!(budget.reserve_records(10 * records, records));
        let all = (0..records).map(|_| record("t")).collect();
        let admitted = (0..records).map(|record| Admitted { record, partition: 0, reserved: 10 });
        let submission = Arc::new(Submission::to_one_topic(all));
        let delivery = Delivery::new(&submission, admitted, budget.clone(), Instant::now());
        let acks = delivery.outgoing(&submission).map(Outgoing::into_ack).collect();
        (delivery, acks, budget)
    }

    fn reports(delivery: &Delivery) -> Vec<Option<Report>> {
        delivery.reports().map(|(_, report)| report.cloned()).collect()
    }

    #[tokio::test]
    async fn it_resolves_with_the_last_report() {
        let (delivery, acks, budget) = delivery(2);
        let [first, second] = <[Ack; 2]>::try_from(acks).ok().unwrap();
        second.report(Ok(Written { partition: 1, offset: Some(7), append_time: None }), Instant::now());
        assert!(reports(&delivery)[0].is_none());
        assert_eq!(budget.used(), 10);
        first.report(Ok(Written { partition: 0, offset: None, append_time: None }), Instant::now());
        delivery.resolved().await;
        assert_eq!(reports(&delivery)[1].as_ref().unwrap().as_ref().unwrap().offset, Some(7));
        assert_eq!((budget.used(), budget.records()), (0, 0));
    }

    #[tokio::test]
    async fn an_ack_that_is_dropped_leaves_the_outcome_unknown() {
        let (delivery, acks, budget) = delivery(1);
        drop(acks);
        delivery.resolved().await;
        let reports = reports(&delivery);
        let error = reports[0].as_ref().unwrap().as_ref().unwrap_err();
        assert_eq!(error.outcome(), super::super::Outcome::Unknown);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_listener_hears_of_the_reports_that_are_still_to_come() {
        let (delivery, acks, _) = delivery(2);
        let [first, second] = <[Ack; 2]>::try_from(acks).ok().unwrap();
        let written = |offset| Ok(Written { partition: 0, offset: Some(offset), append_time: None });
        first.report(written(1), Instant::now());
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        delivery.listen({
            let heard = Arc::clone(&heard);
            Box::new(move |record, report| heard.lock().unwrap().push((record, report.clone())))
        });
        assert!(reports(&delivery)[0].is_some());
        second.report(written(2), Instant::now());
        assert_eq!(*heard.lock().unwrap(), [(1, written(2))]);
    }

    #[tokio::test]
    async fn no_records_are_resolved_at_once() {
        delivery(0).0.resolved().await;
    }
}
