//! From records to receipts: check, admit, enqueue all in order, await every report to one deadline, apply policy.

use crate::produce::{
    BATCH_OVERHEAD, Batching, Budget, Delivery, Error, Producer, Receipt, Record, Topic, TopicName,
    admission::{HEADER_OVERHEAD, RECORD_OVERHEAD},
    batch_size,
    delivery::{Admitted, Report},
    submission::{AskedTopic, Found, Records, Submission, distinct_topics},
};
use crate::telemetry::metrics::Metrics;
use futures_util::future::join_all;
use smallvec::{SmallVec, smallvec};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// How long a topic's partition count is believed when a record asks for one beyond it.
const PARTITIONS_HOLD_FOR: Duration = Duration::from_secs(2);

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
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    settings: Settings,
}

/// The moment at which the whole body of a request had come, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    at: Instant,
    /// Milliseconds since the Unix epoch.
    pub millis: i64,
}

impl Arrival {
    pub fn now() -> Self {
        Self { at: Instant::now(), millis: jiff::Timestamp::now().as_millisecond() }
    }
}

/// What became of one record.
pub type Verdict = Result<Receipt, Error>;

impl Pipeline {
    /// Builds the one pipeline of the service.
    pub fn new(
        producer: Arc<dyn Producer>,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        Self { producer, budget, metrics, settings }
    }

    /// What bounds the bytes in flight, for request bodies too.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// One verdict a record, in order, no later than the delivery time-out after their arrival. An error of the
    /// whole means that nothing was written: no connection, or no room for all of the records.
    pub async fn submit(&self, records: impl Into<Records>, arrival: Arrival) -> Result<Vec<Verdict>, Error> {
        let records = records.into();
        if records.is_empty() {
            return Ok(Vec::new());
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
        for (index, record) in submission.records.iter().enumerate() {
            let checked = submission.destinations.of(index).and_then(|found| {
                let size = self.check(record, &found.topic, arrival.millis)?;
                let headers = record.headers.len() * HEADER_OVERHEAD;
                Ok(Admitted { record: index, reserved: size - BATCH_OVERHEAD + RECORD_OVERHEAD + headers })
            });
            verdicts.push(checked.map(|record| admitted.push(record)).err().map(Err));
        }
        self.reserve(&admitted)?;
        let delivery = self.send(&submission, admitted, Batching::Shared, now, deadline).await;
        let mut again = SmallVec::new();
        for (&Admitted { record, reserved }, report) in delivery.reports() {
            let report = self.in_time(report);
            if report.as_ref().is_err_and(failed_with_others) {
                again.push(Admitted { record, reserved });
            } else {
                verdicts[record] = Some(verdict(&submission.records[record], report));
            }
        }
        if !again.is_empty() {
            self.send_again_alone(&submission, again, deadline, &mut verdicts).await;
        }
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| Err(no_verdict()))).collect())
    }

    /// What is decided before anything is queued. The record's size, in bytes as [`batch_size`] counts.
    fn check(&self, record: &Record, topic: &Topic, now_ms: i64) -> Result<usize, Error> {
        if let Some(partition) = record.partition
            && partition >= topic.partitions
        {
            return Err(Error::InvalidPartition {
                topic: topic.name.clone(),
                partition,
                count: topic.partitions,
            });
        }
        let config = topic.config.as_ref();
        let limit = config.map_or(self.settings.max_record_bytes, |config| config.max_message_bytes);
        let size = batch_size(record);
        if size > limit {
            return Err(Error::RecordTooLarge { topic: topic.name.clone(), size, limit });
        }
        if let Some(config) = config {
            if config.compacted && record.key.is_none() {
                return Err(Error::KeyRequired(topic.name.clone()));
            }
            config.check_timestamp(&topic.name, record.timestamp, now_ms)?;
        }
        Ok(size)
    }

    /// Room for all of them or for none. A request that can never fit is told so.
    fn reserve(&self, admitted: &[Admitted]) -> Result<(), Error> {
        let cost = admitted.iter().map(|record| record.reserved).sum();
        let limit = self.budget.limit();
        if cost > limit {
            return Err(Error::BatchTooLarge { cost, limit });
        }
        if self.budget.reserve_records(cost, admitted.len()) {
            return Ok(());
        }
        Err(Error::Overloaded { used: self.budget.used(), limit })
    }

    /// Enqueues in order, then waits once, to the deadline at most.
    async fn send(
        &self,
        submission: &Arc<Submission>,
        admitted: SmallVec<[Admitted; 1]>,
        batching: Batching,
        now: Instant,
        deadline: Instant,
    ) -> Delivery {
        let budget = Arc::clone(&self.budget);
        let delivery = Delivery::new(submission, admitted, budget, now.into_std());
        self.producer.enqueue(&mut delivery.outgoing(submission), batching);
        // the reports that came in time count, whether or not the last one did
        let _ = timeout_at(deadline, delivery.resolved()).await;
        delivery
    }

    /// A record without a report at the deadline is unknown.
    fn in_time(&self, report: Option<&Report>) -> Report {
        report.cloned().unwrap_or_else(|| {
            let timeout_ms = u64::try_from(self.settings.delivery_timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Error::DeliveryTimeout { timeout_ms })
        })
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

    /// The records with their topics, the unknown ones looked up side by side within the deadline.
    async fn find_topics(&self, records: Records, deadline: Instant) -> Submission {
        let (asked, topic_of) = distinct_topics(&records);
        let found = match asked.as_slice() {
            [one] => smallvec![self.find_topic(one, deadline).await],
            many => join_all(many.iter().map(|asked| self.find_topic(asked, deadline))).await.into(),
        };
        drop(asked);
        Submission::new(records, found, topic_of)
    }

    async fn find_topic(&self, asked: &AskedTopic<'_>, deadline: Instant) -> Result<Found, Error> {
        let topic = self.known_or_looked_up(asked.name, asked.highest_partition, deadline).await?;
        Ok(Found { topic, metrics: self.metrics.topic(asked.name.as_str()) })
    }

    async fn known_or_looked_up(
        &self,
        name: &TopicName,
        highest_partition: i32,
        deadline: Instant,
    ) -> Result<Arc<Topic>, Error> {
        let known = match self.producer.known_topic(name) {
            // a partition that is not known may have been added since: worth a question now and then
            Some(Ok(topic))
                if highest_partition >= topic.partitions
                    && topic.learned.elapsed() >= PARTITIONS_HOLD_FOR =>
            {
                Some(topic)
            }
            Some(known) => return known,
            None => None,
        };
        let answer = timeout_at(deadline, self.producer.look_up_topic(name)).await.unwrap_or_else(|_| {
            Err(Error::BrokerUnavailable { reason: format!("no answer about topic '{name}' in time") })
        });
        match (answer, known) {
            (Err(error), Some(topic)) if !matches!(error, Error::UnknownTopic(_)) => Ok(topic),
            (answer, _) => answer,
        }
    }
}

/// True for a failure that may be a neighbour's. Where a broker refuses one record of a batch, librdkafka (2.12,
/// rd_kafka_interceptors_on_acknowledgement_queue) gives that record's error to all of them, so only a record
/// that was sent alone is known to be refused for itself.
fn failed_with_others(error: &Error) -> bool {
    matches!(
        error,
        Error::NeighbourRejected
            | Error::BatchRefusedAsTooLarge
            | Error::Rejected { .. }
            | Error::TimestampOutOfRange { .. }
    )
}

fn verdict(record: &Record, report: Report) -> Verdict {
    let receipt = report.map(|written| Receipt {
        topic: record.topic.clone(),
        partition: written.partition,
        offset: written.offset,
        timestamp: written.append_time.unwrap_or(record.timestamp),
    })?;
    if tracing::enabled!(target: RECORD_LOG, tracing::Level::DEBUG) {
        log_record(record, &receipt);
    }
    Ok(receipt)
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
