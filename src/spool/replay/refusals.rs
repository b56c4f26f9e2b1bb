//! What becomes of records that Kafka will never take: a dead letter, or a failed record that an operator sees to.

use super::{Replay, Work, window::State};
use crate::{
    produce::{
        Admitted, Batching, Budget, DeadLetterTopic, Delivery, Error, Found, Header, InstanceId, Producer,
        Receipt, Record, RecordLimits, Sequence, Submission, TopicName, check_record,
    },
    spool::{Chunk, Resolved, Store, lines::Line},
    telemetry::{metrics::Metrics, spool_metrics::ReplayStatus},
};
use smallvec::smallvec;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Dead letters that are written at once.
const AT_ONCE: usize = 64;
/// One line of log in this time, with the number of those that it stands for.
const SILENCE: Duration = Duration::from_secs(1);

/// Refused records that have not come to their end.
#[derive(Default)]
pub struct Refusals {
    waiting: VecDeque<Refusal>,
    writing: Work<Refused>,
    /// By the first sequence of their chunk, until that is committed.
    failed: HashMap<Sequence, Vec<FailedAt>>,
    last_line: Option<Instant>,
    silent: usize,
}

struct Refusal {
    first: Sequence,
    index: u32,
    error: Error,
}

/// A dead letter, or why there is none.
pub struct Refused {
    refusal: Refusal,
    dead_letter: Result<Receipt, String>,
}

/// A record that is to be moved to the failed ones.
#[derive(Debug, Clone)]
pub struct FailedAt {
    /// Of the record's chunk.
    pub first: Sequence,
    pub sequence: Sequence,
    pub error: String,
    pub reason: String,
}

impl Refusal {
    fn sequence(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.index))
    }
}

impl Refusals {
    /// The next one whose dead letter is written, or cannot be; never while there is none.
    pub async fn next(&mut self) -> Refused {
        use futures_util::StreamExt;
        match self.writing.next().await {
            Some(refused) => refused,
            None => std::future::pending().await,
        }
    }

    /// The failed records of these chunks.
    pub fn failures(&self, chunks: &[Sequence]) -> Vec<FailedAt> {
        if self.failed.is_empty() {
            return Vec::new();
        }
        chunks.iter().filter_map(|first| self.failed.get(first)).flatten().cloned().collect()
    }

    /// The chunk is committed.
    pub fn forget(&mut self, first: Sequence) {
        self.failed.remove(&first);
    }
}

impl Replay {
    /// Takes a record of an open chunk to its end that Kafka will never take.
    pub(super) fn refuse(&mut self, first: Sequence, index: u32, line: Option<Line>, error: Error) {
        self.set(first, index, State::Refused(line));
        self.refusals.waiting.push_back(Refusal { first, index, error });
        self.refuse_next();
    }

    fn refuse_next(&mut self) {
        while self.refusals.writing.len() < AT_ONCE {
            let Some(refusal) = self.refusals.waiting.pop_front() else { return };
            let writer = self.parts.dead_letter_topic.clone().map(|topic| DeadLetterWriter {
                topic,
                instance: self.parts.instance.clone(),
                producer: Arc::clone(&self.parts.producer),
                store: Arc::clone(&self.parts.store),
                budget: Arc::clone(&self.budget),
                metrics: Arc::clone(&self.parts.metrics),
                patience: self.parts.delivery_timeout,
                max_record_bytes: self.parts.max_record_bytes,
            });
            match writer {
                None => {
                    let dead_letter = Err("DEAD_LETTER_TOPIC is not set".into());
                    self.refused(Refused { refusal, dead_letter });
                }
                Some(writer) => self.refusals.writing.push(Box::pin(async move {
                    let dead_letter = writer.write(refusal.first, refusal.sequence(), &refusal.error).await;
                    Refused { refusal, dead_letter }
                })),
            }
        }
    }

    pub(super) fn refused(&mut self, refused: Refused) {
        let Refused { refusal, dead_letter } = refused;
        let sequence = refusal.sequence();
        let (error, mut reason) = (refusal.error.tag().to_owned(), refusal.error.to_string());
        let status = if dead_letter.is_ok() { ReplayStatus::DeadLettered } else { ReplayStatus::Failed };
        self.parts.spool_metrics.replayed(status, 1);
        let dead_letter = match dead_letter {
            Ok(receipt) => Some((receipt.topic, receipt.partition, receipt.offset)),
            Err(why) => {
                if self.parts.dead_letter_topic.is_some() {
                    reason = format!("{reason}; no dead letter was written: {why}");
                }
                let (first, error, reason) = (refusal.first, error.clone(), reason.clone());
                self.refusals.failed.entry(first).or_default().push(FailedAt {
                    first,
                    sequence,
                    error,
                    reason,
                });
                None
            }
        };
        self.tell(sequence, &error, &reason, dead_letter.as_ref().map(|(topic, ..)| topic));
        self.resolve(refusal.first, refusal.index, Resolved::Failed { error, reason, dead_letter });
        self.refuse_next();
    }

    fn tell(&mut self, sequence: Sequence, error: &str, reason: &str, dead_letter_topic: Option<&TopicName>) {
        let now = Instant::now();
        if self.refusals.last_line.is_some_and(|last| now < last + SILENCE) {
            self.refusals.silent += 1;
            return;
        }
        self.refusals.last_line = Some(now);
        let others = std::mem::take(&mut self.refusals.silent);
        let id = crate::produce::ReceiptId { instance: self.parts.instance.clone(), sequence };
        match dead_letter_topic {
            Some(topic) => {
                tracing::error!(receipt = %id, error, reason, dead_letter_topic = %topic, others,
                    "Kafka refused an accepted record for good; it is in the dead letter topic");
            }
            None => {
                tracing::error!(receipt = %id, error, reason, others,
                    "Kafka refused an accepted record for good; it stays in the spool: kafka-inlet spool list");
            }
        }
    }
}

struct DeadLetterWriter {
    topic: DeadLetterTopic,
    instance: InstanceId,
    producer: Arc<dyn Producer>,
    store: Arc<Store>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    patience: Duration,
    max_record_bytes: usize,
}

impl DeadLetterWriter {
    async fn write(self, first: Sequence, sequence: Sequence, error: &Error) -> Result<Receipt, String> {
        let record = self.letter(first, sequence, error).await?;
        let name = record.topic.clone();
        let topic = match self.producer.known_topic(&name) {
            Some(known) => known,
            None => self.producer.look_up_topic(&name).await,
        };
        let topic = topic.map_err(|error| error.to_string())?;
        let limits = RecordLimits { max_record_bytes: self.max_record_bytes, now_ms: super::now_ms() };
        let reserved = check_record(&record, &topic, limits).map_err(|error| error.to_string())?;
        let timestamp = record.timestamp;
        self.budget.reserve_records(reserved, 1);
        let found = Found { topic, metrics: self.metrics.topic(name.as_str()) };
        let submission = Arc::new(Submission::new(smallvec![record], smallvec![Ok(found)], Vec::new()));
        let delivery =
            Delivery::new(&submission, [Admitted { record: 0, reserved }], self.budget, Instant::now());
        // alone: it was refused once, and must not harm others
        self.producer.enqueue(&mut delivery.outgoing(&submission), Batching::Alone);
        let _ = timeout(self.patience, delivery.resolved()).await;
        match delivery.reports().next().and_then(|(_, report)| report) {
            Some(Ok(written)) => Ok(written.receipt(name, timestamp)),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("Kafka has not confirmed it within {} ms", self.patience.as_millis())),
        }
    }

    /// The record as it goes to the dead letter topic.
    async fn letter(&self, first: Sequence, sequence: Sequence, error: &Error) -> Result<Record, String> {
        let (store, instance) = (Arc::clone(&self.store), self.instance.clone());
        let read = move || {
            let found = store.chunk_at(first).map_err(|error| error.to_string())?;
            let value = found.ok_or("it is not in the spool any more")?;
            let records = Chunk::parse(first, value).and_then(|chunk| chunk.records(&instance));
            let records = records.map_err(|error| error.to_string())?;
            let record = records.into_iter().find(|(at, _)| *at == sequence);
            record.map(|(_, record)| record).ok_or_else(|| "it is not in the spool any more".to_owned())
        };
        let read = tokio::task::spawn_blocking(read).await;
        let record: Record = read.unwrap_or_else(|error| Err(error.to_string()))?;
        let topic = self.topic.of(&record.topic).map_err(|error| error.to_string())?;
        if topic == record.topic {
            return Err(format!("'{topic}' is the topic that refused it"));
        }
        let header = |name: &str, value: String| Header { name: name.into(), value: Some(value.into()) };
        let mut headers = record.headers;
        headers.extend([
            header("dead-letter-error", error.tag().into()),
            header("dead-letter-reason", error.to_string()),
            header("dead-letter-topic", record.topic.to_string()),
            header("dead-letter-time", format!("{:.3}", jiff::Timestamp::now())),
        ]);
        Ok(Record { topic, partition: None, headers, ..record })
    }
}
