//! From records to receipts: check, admit, enqueue all in order, await every report to one deadline, apply policy.

use crate::produce::{
    BATCH_OVERHEAD, Batching, Budget, Delivery, Error, Producer, Receipt, Record, Sending, Topic, TopicName,
    admission::{HEADER_OVERHEAD, RECORD_OVERHEAD},
    batch_size,
    delivery::Report,
};
use crate::telemetry::metrics::{Metrics, TopicMetrics};
use futures_util::future::join_all;
use std::{collections::HashMap, sync::Arc, time::Duration};
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

/// A record that passed every check, with what sending it needs.
struct Admitted<'a> {
    index: usize,
    found: &'a Found,
    reserved: usize,
}

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
    pub async fn submit(&self, records: &[Record], arrival: Arrival) -> Result<Vec<Verdict>, Error> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(error) = self.producer.unavailable() {
            return Err(error);
        }
        let deadline = arrival.at + self.settings.delivery_timeout;
        let topics = self.find_topics(records, deadline).await;
        let now = Instant::now();
        if now >= deadline {
            // what would be sent now could only be answered as unknown
            let reason = "no answer in time about a topic of the request".into();
            return Err(Error::BrokerUnavailable { reason });
        }
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(records.len());
        let mut admitted = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let checked = topics.of(index).and_then(|found| {
                let size = self.check(record, &found.topic, arrival.millis)?;
                let headers = record.headers.len() * HEADER_OVERHEAD;
                Ok(Admitted { index, found, reserved: size - BATCH_OVERHEAD + RECORD_OVERHEAD + headers })
            });
            verdicts.push(checked.map(|record| admitted.push(record)).err().map(Err));
        }
        self.reserve(&admitted)?;
        let delivery = self.send(records, &admitted, Batching::Shared, now, deadline).await;
        let mut again = Vec::new();
        for (slot, sent) in admitted.into_iter().enumerate() {
            let report = self.report(&delivery, slot);
            if report.as_ref().is_err_and(failed_with_others) {
                again.push(sent);
            } else {
                verdicts[sent.index] = Some(verdict(&records[sent.index], report));
            }
        }
        if !again.is_empty() {
            self.send_again_alone(records, again, deadline, &mut verdicts).await;
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
        records: &[Record],
        admitted: &[Admitted<'_>],
        batching: Batching,
        now: Instant,
        deadline: Instant,
    ) -> Delivery {
        let delivery = Delivery::new(admitted.len(), Arc::clone(&self.budget), now.into_std());
        let mut sending = admitted.iter().enumerate().map(|(slot, sent)| Sending {
            topic: &sent.found.topic,
            record: &records[sent.index],
            ack: delivery.ack(slot, sent.reserved, Arc::clone(&sent.found.metrics)),
        });
        self.producer.enqueue(&mut sending, batching);
        // the reports that came in time count, whether or not the last one did
        let _ = timeout_at(deadline, delivery.resolved()).await;
        delivery
    }

    /// A record without a report at the deadline is unknown.
    fn report(&self, delivery: &Delivery, slot: usize) -> Report {
        delivery.report(slot).cloned().unwrap_or_else(|| {
            let timeout_ms = u64::try_from(self.settings.delivery_timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Error::DeliveryTimeout { timeout_ms })
        })
    }

    /// The second and last try of records that failed for their neighbours in a batch.
    async fn send_again_alone(
        &self,
        records: &[Record],
        again: Vec<Admitted<'_>>,
        deadline: Instant,
        verdicts: &mut [Option<Verdict>],
    ) {
        let delivery = match self.reserve(&again) {
            Ok(()) => Ok(self.send(records, &again, Batching::Alone, Instant::now(), deadline).await),
            Err(error) => Err(error),
        };
        for (slot, sent) in again.into_iter().enumerate() {
            let report = match &delivery {
                Ok(delivery) => self.report(delivery, slot),
                Err(error) => Err(error.clone()),
            };
            verdicts[sent.index] = Some(verdict(&records[sent.index], report));
        }
    }

    /// Every topic of the request, the unknown ones looked up side by side within the deadline.
    async fn find_topics(&self, records: &[Record], deadline: Instant) -> Topics {
        let (asked, of_record) = distinct_topics(records);
        let found = match asked.as_slice() {
            [one] => vec![self.find_topic(one, deadline).await],
            many => join_all(many.iter().map(|asked| self.find_topic(asked, deadline))).await,
        };
        Topics { found, of_record }
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

/// A topic that can be written to, with its share of the metrics.
struct Found {
    topic: Arc<Topic>,
    metrics: Arc<TopicMetrics>,
}

/// A topic that records of the request name.
struct AskedTopic<'a> {
    name: &'a TopicName,
    /// The highest partition that they name, −1 where they name none.
    highest_partition: i32,
}

/// The topics of one request, or why each cannot be written to.
struct Topics {
    found: Vec<Result<Found, Error>>,
    /// The index in `found` by the record's index; empty where there is one topic.
    of_record: Vec<usize>,
}

impl Topics {
    fn of(&self, record: usize) -> Result<&Found, Error> {
        let topic = self.of_record.get(record).copied().unwrap_or(0);
        self.found[topic].as_ref().map_err(Error::clone)
    }
}

/// The topics that the records name, each once, and which of them each record names; see [`Topics`].
fn distinct_topics(records: &[Record]) -> (Vec<AskedTopic<'_>>, Vec<usize>) {
    let mut asked: Vec<AskedTopic<'_>> = Vec::with_capacity(1);
    let mut of_record = Vec::new();
    let mut by_name = HashMap::new();
    let mut last = 0;
    for (index, record) in records.iter().enumerate() {
        if asked.get(last).is_none_or(|asked| *asked.name != record.topic) {
            if index > 0 && of_record.is_empty() {
                // the second topic: all records so far are of the first
                of_record = vec![0; index];
                by_name.insert(asked[0].name, 0);
            }
            last = if index == 0 { 0 } else { *by_name.entry(&record.topic).or_insert(asked.len()) };
            if last == asked.len() {
                asked.push(AskedTopic { name: &record.topic, highest_partition: -1 });
            }
        }
        if !of_record.is_empty() {
            of_record.push(last);
        }
        let highest = &mut asked[last].highest_partition;
        *highest = record.partition.unwrap_or(-1).max(*highest);
    }
    (asked, of_record)
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
