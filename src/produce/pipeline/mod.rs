//! From records to receipts: check, admit, enqueue all in order, await every report to one deadline, apply policy.

mod durable;
mod topics;

use crate::produce::{
    Batching, Budget, Delivery, Error, Outgoing, Producer, Receipt, Record, RecordLimits, Spool,
    check_record,
    delivery::{Admitted, Report},
    spool::Stored,
    submission::{Records, Submission},
};
use crate::telemetry::metrics::{InFlight, Metrics};
use smallvec::SmallVec;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

/// Records that are enqueued before other requests get a turn on this thread.
const STEP: usize = 1000;

/// What the pipeline is held to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the end of the body to the answer.
    pub delivery_timeout: Duration,
    /// The record limit where the topic's own is not known; see [`batch_size`].
    pub max_record_bytes: usize,
}

/// Takes records to their receipts. One for the whole service.
pub struct Pipeline {
    producer: Arc<dyn Producer>,
    /// Of request bodies, and of records unless there is a spool.
    bodies: Arc<Budget>,
    /// Of records that wait for Kafka.
    records: Arc<Budget>,
    spool: Option<Arc<dyn Spool>>,
    metrics: Arc<Metrics>,
    settings: Settings,
}

/// The moment at which the whole body of a request had come, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    at: Instant,
    /// Milliseconds since the Unix epoch.
    pub millis: i64,
    patience: Option<Duration>,
}

impl Arrival {
    pub fn now() -> Self {
        Self { at: Instant::now(), millis: jiff::Timestamp::now().as_millisecond(), patience: None }
    }

    /// How long the client wants to wait for Kafka at most, before the records are stored instead; nothing where they
    /// cannot be.
    pub fn with_patience(self, patience: Option<Duration>) -> Self {
        Self { patience, ..self }
    }
}

/// What became of a record that will not be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is in Kafka.
    Written(Receipt),
    /// It is on the local disk until Kafka takes it. In durable mode only.
    Stored(Stored),
}

impl Accepted {
    /// Where it is in Kafka, if it is.
    pub fn written(self) -> Option<Receipt> {
        match self {
            Self::Written(receipt) => Some(receipt),
            Self::Stored(_) => None,
        }
    }

    /// Whether it is still on its way to Kafka.
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }
}

/// What became of one record.
pub type Verdict = Result<Accepted, Error>;

impl Pipeline {
    /// Builds the one pipeline of the service.
    pub fn new(
        producer: Arc<dyn Producer>,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        Self { producer, records: Arc::clone(&budget), bodies: budget, spool: None, metrics, settings }
    }

    /// With a spool, what Kafka does not take in time is stored. Records have a budget of their own then, so that what
    /// waits for a Kafka that is away leaves room for what is to be stored.
    pub fn with_spool(self, spool: Arc<dyn Spool>, records: Arc<Budget>) -> Self {
        Self { records, spool: Some(spool), ..self }
    }

    /// What bounds the bytes of request bodies.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.bodies
    }

    /// What is reserved now, for bodies and for records.
    pub fn in_flight(&self) -> InFlight {
        let bodies = self.bodies.in_flight();
        if Arc::ptr_eq(&self.bodies, &self.records) {
            return bodies;
        }
        let records = self.records.in_flight();
        InFlight { bytes: bodies.bytes + records.bytes, records: records.records }
    }

    /// Where records are stored, in durable mode.
    pub fn spool(&self) -> Option<&Arc<dyn Spool>> {
        self.spool.as_ref()
    }

    /// One verdict a record, in order, no later than the delivery time-out after their arrival. An error of the
    /// whole means that nothing was written: no connection, or no room for all of the records.
    pub async fn submit(&self, records: impl Into<Records>, arrival: Arrival) -> Result<Vec<Verdict>, Error> {
        let records = records.into();
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(spool) = &self.spool {
            return Ok(self.submit_durably(spool, records, arrival).await);
        }
        if let Some(error) = self.producer.unavailable() {
            return Err(error);
        }
        let deadline = arrival.at + self.settings.delivery_timeout;
        let submission = Arc::new(self.find_topics(records, deadline).await);
        let now = Instant::now();
        if now >= deadline {
            // what would be sent now could only be answered as unknown
            let reason = "no answer in time about a topic of the request".into();
            return Err(Error::BrokerUnavailable { reason });
        }
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(submission.records.len());
        let mut admitted: SmallVec<[Admitted; 1]> = SmallVec::with_capacity(submission.records.len());
        let mut busy = HashSet::new();
        for (index, record) in submission.records.iter().enumerate() {
            let checked = submission.destinations.of(index).and_then(|found| {
                let reserved = check_record(record, &found.topic, self.limits(arrival))?;
                let partition = self.producer.partition(record, &found.topic, now.into_std());
                // what comes behind one that is refused must not overtake it
                if busy.contains(&(&record.topic, partition))
                    || !self.records.has_share(&found.topic, partition)
                {
                    busy.insert((&record.topic, partition));
                    return Err(Error::PartitionBusy { topic: record.topic.clone(), partition });
                }
                Ok(Admitted { record: index, partition, reserved })
            });
            verdicts.push(checked.map(|record| admitted.push(record)).err().map(Err));
        }
        self.reserve(&admitted)?;
        let delivery = self.send(&submission, admitted, Batching::Shared, now, deadline).await;
        let mut again = SmallVec::new();
        for (&sent, report) in delivery.reports() {
            let report = self.in_time(report);
            if report.as_ref().is_err_and(Error::may_be_a_neighbours) {
                again.push(sent);
            } else {
                verdicts[sent.record] = Some(verdict(&submission.records[sent.record], report));
            }
        }
        if !again.is_empty() {
            self.send_again_alone(&submission, again, deadline, &mut verdicts).await;
        }
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| Err(no_verdict()))).collect())
    }

    fn limits(&self, arrival: Arrival) -> RecordLimits {
        RecordLimits { max_record_bytes: self.settings.max_record_bytes, now_ms: arrival.millis }
    }

    /// Room for all of them or for none. A request that can never fit is told so.
    fn reserve(&self, admitted: &[Admitted]) -> Result<(), Error> {
        let cost = admitted.iter().map(|record| record.reserved).sum();
        let limit = self.records.limit_for(cost);
        if cost > limit {
            return Err(Error::BatchTooLarge { cost, limit });
        }
        if self.records.reserve_records(cost, admitted.len()) {
            return Ok(());
        }
        Err(Error::Overloaded { used: self.records.used(), limit })
    }

    /// Enqueues in order and in steps, then waits once, to the deadline at most.
    async fn send(
        &self,
        submission: &Arc<Submission>,
        admitted: SmallVec<[Admitted; 1]>,
        batching: Batching,
        now: Instant,
        deadline: Instant,
    ) -> Delivery {
        let steps = admitted.len().div_ceil(STEP);
        let delivery = Delivery::new(submission, admitted, Arc::clone(&self.records), now.into_std());
        let mut rest = Rest(delivery.outgoing(submission));
        for step in 0..steps {
            if step > 0 {
                yield_now().await;
            }
            self.producer.enqueue(&mut rest.0.by_ref().take(STEP), batching);
        }
        drop(rest);
        // the reports that came in time count, whether or not the last one did
        let _ = timeout_at(deadline, delivery.resolved()).await;
        delivery
    }

    fn enqueue(
        &self,
        submission: &Arc<Submission>,
        admitted: SmallVec<[Admitted; 1]>,
        batching: Batching,
        now: Instant,
    ) -> Delivery {
        let delivery = Delivery::new(submission, admitted, Arc::clone(&self.records), now.into_std());
        self.producer.enqueue(&mut delivery.outgoing(submission), batching);
        delivery
    }

    /// A record without a report at the deadline is unknown.
    fn in_time(&self, report: Option<&Report>) -> Report {
        report.cloned().unwrap_or_else(|| Err(self.timed_out()))
    }

    fn timed_out(&self) -> Error {
        let timeout_ms = u64::try_from(self.settings.delivery_timeout.as_millis()).unwrap_or(u64::MAX);
        Error::DeliveryTimeout { timeout_ms }
    }

    /// The second and last try of records that failed for their neighbours in a batch.
    async fn send_again_alone(
        &self,
        submission: &Arc<Submission>,
        again: SmallVec<[Admitted; 1]>,
        deadline: Instant,
        verdicts: &mut [Option<Verdict>],
    ) {
        if let Err(error) = self.reserve(&again) {
            again.iter().for_each(|sent| verdicts[sent.record] = Some(Err(error.clone())));
            return;
        }
        let delivery = self.send(submission, again, Batching::Alone, Instant::now(), deadline).await;
        for (&Admitted { record, .. }, report) in delivery.reports() {
            verdicts[record] = Some(verdict(&submission.records[record], self.in_time(report)));
        }
    }
}

/// What is still to be enqueued. Each is reported on also where the client goes away meanwhile.
struct Rest<I: Iterator<Item = Outgoing>>(I);

impl<I: Iterator<Item = Outgoing>> Drop for Rest<I> {
    fn drop(&mut self) {
        self.0.by_ref().for_each(drop);
    }
}

fn verdict(record: &Record, report: Report) -> Verdict {
    let written = report?;
    let receipt = written.receipt(record.topic.clone(), record.timestamp);
    if tracing::enabled!(target: RECORD_LOG, tracing::Level::DEBUG) {
        log_record(record, &receipt);
    }
    Ok(Accepted::Written(receipt))
}

/// The log target of one line a record, for development: it shows payloads.
const RECORD_LOG: &str = "kafka_inlet::record";

fn log_record(record: &Record, receipt: &Receipt) {
    let text = |bytes: &Option<bytes::Bytes>| match bytes {
        Some(bytes) => one_line(&String::from_utf8_lossy(bytes)),
        None => "null".to_owned(),
    };
    let offset = receipt.offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    tracing::debug!(
        target: RECORD_LOG,
        "{}[{}]@{offset} {} {}",
        receipt.topic,
        receipt.partition,
        text(&record.key),
        text(&record.value)
    );
}

/// The text without what would break the line or command a terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (escaped, kept) =
                if c.is_control() { (Some(c.escape_default()), None) } else { (None, Some(c)) };
            escaped.into_iter().flatten().chain(kept)
        })
        .collect()
}

fn no_verdict() -> Error {
    Error::Internal("a record was left without a verdict".into())
}

#[cfg(test)]
mod tests;
