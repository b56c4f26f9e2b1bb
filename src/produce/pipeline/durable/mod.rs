//! With a spool: what Kafka does not take in time is stored, and what must not overtake stored records is stored
//! behind them.
//!
//! Each record goes one of three ways: refused (for good, by what is known already), attempted, or stored at once. An
//! attempted one that has no report when the time is up, or one that says "later", is stored as well. While the
//! producer still has it, its report decides what comes next; see [`Spool::keep`].

use super::{Accepted, Arrival, Pipeline, Verdict, no_verdict, verdict};
use crate::produce::{
    Batching, Delivery, Error, Outcome, ReceiptId, Record, Sequence, Spool,
    check::{check_record, check_size},
    delivery::{Admitted, Report},
    record::RecordReceipt,
    spool::{Attempted, Stored},
    submission::{Records, Submission},
};
use smallvec::SmallVec;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// How often a request that waits looks whether Kafka has gone away meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// So long after the delivery timeout may the disk take to store a record that Kafka has not taken by then.
const STORING: Duration = Duration::from_millis(750);

/// One request on its way.
struct Request<'a> {
    pipeline: &'a Pipeline,
    spool: &'a Arc<dyn Spool>,
    submission: Arc<Submission>,
    /// The sequence of the first record; the others follow.
    first: Sequence,
    deadline: Instant,
    /// Then the disk is not waited for any longer.
    answer_by: Instant,
    verdicts: Vec<Option<Verdict>>,
}

/// The ways that the records go which are not refused.
#[derive(Default)]
struct Ways {
    attempted: SmallVec<[Admitted; 1]>,
    /// Indices, rising.
    stored: Vec<usize>,
}

/// An attempted record that has to be stored.
struct Kept {
    sent: Admitted,
    /// Why, where it has a report; None while the producer has it.
    failure: Option<Error>,
}

impl Kept {
    fn is_not_written(&self) -> bool {
        self.failure.as_ref().is_some_and(|error| error.outcome() == Outcome::NotWritten)
    }
}

impl Pipeline {
    /// One verdict a record, in order.
    pub(super) async fn submit_durably(
        &self,
        spool: &Arc<dyn Spool>,
        mut records: Records,
        arrival: Arrival,
    ) -> Vec<Verdict> {
        let first = spool.next_sequences(records.len());
        for (sequence, record) in (first.0..).zip(&mut records) {
            let id = ReceiptId { instance: spool.instance().clone(), sequence: Sequence(sequence) };
            record.receipt = Some(RecordReceipt { id, replayed: false });
        }
        let timeout = self.settings.delivery_timeout;
        let patience = arrival.patience.unwrap_or(timeout).min(timeout);
        let deadline = arrival.at + patience;
        let answer_by = arrival.at + timeout + STORING;
        let unavailable = self.producer.unavailable();
        let attempts = unavailable.is_none() && !patience.is_zero();
        let submission = if attempts {
            self.find_topics(records, deadline).await
        } else {
            self.known_topics(records, &unavailable.unwrap_or_else(not_asked))
        };
        let verdicts = submission.records.iter().map(|_| None).collect();
        let submission = Arc::new(submission);
        let mut request = Request { pipeline: self, spool, submission, first, deadline, answer_by, verdicts };
        let ways = request.choose_ways(arrival, attempts && Instant::now() < deadline);
        request.go(ways).await;
        request.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| Err(no_verdict()))).collect()
    }
}

/// Why nothing is known of a topic that was not asked for, since the client does not wait.
fn not_asked() -> Error {
    Error::NotReady { reason: "the topic is not known yet".into() }
}

impl Request<'_> {
    fn choose_ways(&mut self, arrival: Arrival, attempts: bool) -> Ways {
        let limits = self.pipeline.limits(arrival);
        let now = Instant::now().into_std();
        let mut ways = Ways::default();
        for (index, record) in self.submission.records.iter().enumerate() {
            let found = self.submission.destinations.of(index);
            let checked = match &found {
                Ok(found) => check_record(record, &found.topic, limits),
                // nothing is known of the topic
                Err(error) if is_for_spool(error) => check_size(record, limits.max_record_bytes),
                Err(error) => Err(error.clone()),
            };
            match (checked, found) {
                (Err(error), _) => self.verdicts[index] = Some(Err(error)),
                (Ok(reserved), Ok(found)) if attempts => {
                    let partition = self.pipeline.producer.partition(record, &found.topic, now);
                    if self.spool.joins_line(record, partition) {
                        ways.stored.push(index);
                    } else {
                        ways.attempted.push(Admitted { record: index, partition, reserved });
                    }
                }
                (Ok(_), _) => {
                    self.spool.join_line(record);
                    ways.stored.push(index);
                }
            }
        }
        // what has no room in flight is stored instead
        if self.pipeline.reserve(&ways.attempted).is_err() {
            for Admitted { record, .. } in ways.attempted.drain(..) {
                self.spool.join_line(&self.submission.records[record]);
                ways.stored.push(record);
            }
            ways.stored.sort_unstable();
        }
        ways
    }

    /// Attempts before it stores: a stored record must not be sent before one of this request that is not.
    async fn go(&mut self, ways: Ways) {
        let delivery = (!ways.attempted.is_empty()).then(|| self.enqueue(ways.attempted, Batching::Shared));
        let spool = Arc::clone(self.spool);
        let stored = ways.stored;
        let submission = Arc::clone(&self.submission);
        let patience = self.deadline.saturating_duration_since(Instant::now());
        let storing = (!stored.is_empty())
            .then(|| spool.store(&mut stored.iter().map(|&index| &submission.records[index]), patience));
        let (answer_by, late) = (self.answer_by, self.pipeline.timed_out());
        let attempting = async {
            if let Some(delivery) = delivery {
                self.await_reports(&delivery).await;
                self.settle(delivery).await;
            }
        };
        let storing = async {
            match storing {
                Some(storing) => Some(timeout_at(answer_by, storing).await.unwrap_or(Err(late))),
                None => None,
            }
        };
        let ((), in_spool) = futures_util::future::join(attempting, storing).await;
        if let Some(in_spool) = in_spool {
            for (place, &index) in (0..).zip(&stored) {
                let at = |first: Sequence| self.accepted(index, Sequence(first.0 + place));
                self.verdicts[index] = Some(in_spool.clone().map(at));
            }
        }
    }

    fn enqueue(&self, admitted: SmallVec<[Admitted; 1]>, batching: Batching) -> Delivery {
        self.pipeline.enqueue(&self.submission, admitted, batching, Instant::now())
    }

    /// Until every record has its report, the time is up, or Kafka has gone away.
    async fn await_reports(&self, delivery: &Delivery) {
        loop {
            let until = self.deadline.min(Instant::now() + LOOK);
            let resolved = timeout_at(until, delivery.resolved()).await.is_ok();
            let over = Instant::now() >= self.deadline || self.pipeline.producer.unavailable().is_some();
            if resolved || over {
                return;
            }
        }
    }

    /// Turns reports into verdicts, and stores what Kafka has not taken.
    async fn settle(&mut self, delivery: Delivery) {
        let mut kept = Vec::new();
        let mut again = SmallVec::new();
        for (&sent, report) in delivery.reports() {
            match report {
                Some(Err(error)) if error.may_be_a_neighbours() => again.push(sent),
                report => kept.extend(self.judge(sent, report)),
            }
        }
        let mut deliveries = vec![delivery];
        if !again.is_empty() {
            if let Err(error) = self.pipeline.reserve(&again) {
                let failure = Some(error);
                kept.extend(again.iter().map(|&sent| Kept { sent, failure: failure.clone() }));
            } else {
                let delivery = self.enqueue(again, Batching::Alone);
                self.await_reports(&delivery).await;
                for (&sent, report) in delivery.reports() {
                    kept.extend(self.judge(sent, report));
                }
                deliveries.push(delivery);
            }
        }
        self.refuse_not_written(&mut kept);
        if !kept.is_empty() {
            kept.sort_unstable_by_key(|kept| kept.sent.record);
            self.keep(deliveries, kept).await;
        }
    }

    /// A verdict, or a reason to store the record.
    fn judge(&mut self, sent: Admitted, report: Option<&Report>) -> Option<Kept> {
        match report {
            None => Some(Kept { sent, failure: None }),
            Some(Err(error)) if is_for_spool(error) => Some(Kept { sent, failure: Some(error.clone()) }),
            Some(report) => {
                let record = &self.submission.records[sent.record];
                self.verdicts[sent.record] = Some(verdict(record, report.clone()));
                None
            }
        }
    }

    /// Refuses records where others wait for too long already, but only those that are certainly not in Kafka. One that
    /// may get there has to be stored: refused, its client would have to send it again, without knowing, as a duplicate
    /// that nothing declares.
    fn refuse_not_written(&mut self, kept: &mut Vec<Kept>) {
        let not_written = kept.iter().filter(|kept| kept.is_not_written()).count();
        if not_written > 0
            && let Some(error) = self.spool.refusal(not_written)
        {
            for refused in kept.extract_if(.., |kept| kept.is_not_written()) {
                self.verdicts[refused.sent.record] = Some(Err(error.clone()));
            }
        }
    }

    /// Stores attempted records. Nothing is left undone where the client goes away meanwhile: the spool hears of the
    /// reports from before the records are on the disk.
    async fn keep(&mut self, deliveries: Vec<Delivery>, kept: Vec<Kept>) {
        let attempted: Vec<_> = kept
            .iter()
            .map(|kept| Attempted {
                record: &self.submission.records[kept.sent.record],
                sequence: self.sequence(kept.sent.record),
                partition: kept.sent.partition,
                is_held: kept.failure.is_none(),
            })
            .collect();
        let keeping = self.spool.keep(&attempted);
        for delivery in &deliveries {
            let (spool, first) = (Arc::clone(self.spool), self.first);
            delivery.listen(Box::new(move |record, report| {
                spool.reported(Sequence(first.0 + record as u64), report);
            }));
        }
        // of a record that was sent twice, the report on the second time: later ones take the place of earlier ones
        let reports = deliveries.iter().flat_map(Delivery::reports);
        let reports: HashMap<_, _> = reports.map(|(sent, report)| (sent.record, report)).collect();
        let mut written = Vec::new();
        for Kept { sent: Admitted { record, .. }, .. } in kept.iter().filter(|kept| kept.failure.is_none()) {
            // one that came after the time was up
            if let Some(Some(report)) = reports.get(record) {
                self.spool.reported(self.sequence(*record), report);
                written.extend(report.is_ok().then(|| (*record, (*report).clone())));
            }
        }
        // what the disk takes later is sent none the less, so that nothing is known of it
        let in_spool =
            timeout_at(self.answer_by, keeping).await.unwrap_or_else(|_| Err(self.pipeline.timed_out()));
        for Kept { sent: Admitted { record, .. }, failure } in kept {
            let verdict = match (&in_spool, failure) {
                (Ok(()), _) => Ok(self.accepted(record, self.sequence(record))),
                (Err(late), _) if late.outcome() == Outcome::Unknown => Err(late.clone()),
                (Err(full), Some(failure)) if failure.outcome() == full.outcome() => Err(full.clone()),
                (Err(_), Some(failure)) => Err(failure),
                (Err(_), None) => Err(self.pipeline.timed_out()),
            };
            self.verdicts[record] = Some(verdict);
        }
        for (record, report) in written {
            self.verdicts[record] = Some(verdict(self.record(record), report));
        }
    }

    fn record(&self, index: usize) -> &Record {
        &self.submission.records[index]
    }

    fn sequence(&self, record: usize) -> Sequence {
        Sequence(self.first.0 + record as u64)
    }

    fn accepted(&self, index: usize, sequence: Sequence) -> Accepted {
        let record = self.record(index);
        Accepted::Stored(Stored {
            id: ReceiptId { instance: self.spool.instance().clone(), sequence },
            topic: record.topic.clone(),
            timestamp: record.timestamp,
        })
    }
}

/// Whether a record that failed so may be written when it is sent later. A bug is not waited out.
fn is_for_spool(error: &Error) -> bool {
    error.is_retriable() && !matches!(error, Error::Internal(_))
}

#[cfg(test)]
mod tests;
