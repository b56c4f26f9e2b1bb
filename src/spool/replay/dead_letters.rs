//! Writes records that Kafka refused for good to the dead letter topic.

use super::{Parts, check, refusals::Refusal};
use crate::{
    produce::{
        Admitted, Batching, Budget, DeadLetterTopic, Delivery, Error, Found, Header, Producer, Receipt,
        Record, Report, Sequence, Submission, Turn,
    },
    spool::{Chunk, Store},
    telemetry::metrics::Metrics,
};
use smallvec::smallvec;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How soon a dead letter is tried again that failed for now.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A record that is being read.
type Reading = oneshot::Receiver<Result<Record, String>>;

/// What writes them.
#[derive(Clone)]
pub struct DeadLetters {
    topic: DeadLetterTopic,
    producer: Arc<dyn Producer>,
    store: Arc<Store>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    max_record_bytes: usize,
}

impl DeadLetters {
    pub fn new(topic: DeadLetterTopic, parts: &Parts, budget: &Arc<Budget>) -> Self {
        Self {
            topic,
            producer: Arc::clone(&parts.producer),
            store: Arc::clone(&parts.store),
            budget: Arc::clone(budget),
            metrics: Arc::clone(&parts.metrics),
            max_record_bytes: parts.max_record_bytes,
        }
    }

    /// Reads these records of a chunk, once for all of them.
    pub fn read(&self, first: Sequence, sequences: Vec<Sequence>) -> Vec<Reading> {
        let store = Arc::clone(&self.store);
        let (senders, readings): (HashMap<_, _>, Vec<_>) = sequences
            .into_iter()
            .map(|sequence| {
                let (sender, reading) = oneshot::channel();
                ((sequence, sender), reading)
            })
            .unzip();
        tokio::task::spawn_blocking(move || {
            let mut copies = copies(&store, first, |sequence| senders.contains_key(&sequence));
            for (sequence, sender) in senders {
                let gone = || Err("it is not in the spool any more".to_owned());
                let record = match &mut copies {
                    Ok(records) => records.remove(&sequence).map_or_else(gone, Ok),
                    Err(error) => Err(error.clone()),
                };
                // one that gave up does not listen
                let _ = sender.send(record);
            }
        });
        readings
    }

    /// Waits for the delivery report however long it takes, since a letter that is under way may be written yet. One that
    /// failed for now is written again: where it may have been written, the second one is a declared duplicate.
    pub async fn write(self, record: Reading, refusal: &Refusal) -> Result<Receipt, String> {
        let (record, error) = (self.record(record, refusal).await?, &refusal.error);
        let letter = self.letter(record, error)?;
        loop {
            match self.send(letter.clone()).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) if error.is_retriable() => tokio::time::sleep(AGAIN_AFTER).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// What was read, or is read once more: for as long as the file is opened anew after a fault of the disk, and once in
    /// any case, since it may be open by now.
    async fn record(&self, mut reading: Reading, refusal: &Refusal) -> Result<Record, String> {
        let mut is_first = true;
        loop {
            let why = match reading.await.map_err(|error| error.to_string())? {
                Ok(record) => return Ok(record),
                Err(why) if is_first || !self.store.is_open() => why,
                Err(why) => return Err(why),
            };
            is_first = false;
            tokio::time::sleep(AGAIN_AFTER).await;
            reading = self.read(refusal.first, vec![refusal.sequence()]).pop().ok_or(why)?;
        }
    }

    async fn send(&self, letter: Record) -> Result<Receipt, Error> {
        let (name, timestamp) = (letter.topic.clone(), letter.timestamp);
        let topic = match self.producer.known_topic(&name) {
            Some(known) => known,
            None => self.producer.look_up_topic(&name, Turn::First).await,
        }?;
        let reserved = check(&letter, &topic, self.max_record_bytes)?;
        self.budget.reserve_records(reserved, 1);
        let now = Instant::now();
        let partition = self.producer.partition(&letter, &topic, now);
        let found = Found { topic, metrics: self.metrics.topic(name.as_str()) };
        let submission = Arc::new(Submission::new(smallvec![letter], smallvec![Ok(found)], Vec::new()));
        let admitted = [Admitted { record: 0, partition, reserved }];
        let delivery = Delivery::new(&submission, admitted, Arc::clone(&self.budget), now);
        // alone: it was refused once, and must not harm others
        self.producer.enqueue(&mut delivery.outgoing(&submission), Batching::Alone);
        drop(submission);
        delivery.resolved().await;
        let report: Option<&Report> = delivery.reports().next().and_then(|(_, report)| report);
        match report {
            Some(Ok(written)) => Ok(written.clone().receipt(name, timestamp)),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::Internal("a dead letter has no report".into())),
        }
    }

    /// The record as it goes to the dead letter topic.
    fn letter(&self, record: Record, error: &Error) -> Result<Record, String> {
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

/// The records of the chunk that are wanted.
fn copies(
    store: &Store,
    first: Sequence,
    is_wanted: impl FnMut(Sequence) -> bool,
) -> Result<HashMap<Sequence, Record>, String> {
    let Some(value) = store.chunk_at(first).map_err(|error| error.to_string())? else {
        return Ok(HashMap::new());
    };
    let copies = Chunk::parse(first, value).and_then(|chunk| chunk.copies(store.instances(), is_wanted));
    Ok(copies.map_err(|error| error.to_string())?.into_iter().collect())
}
