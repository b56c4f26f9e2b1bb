//! [`crate::produce::Spool`] on the local disk.

use super::{
    CommitError, Encoded, Found, OpenError, ReadError, Resolved, Settings, Store, Writer,
    control::{self, FailedRecords},
    lanes::Lanes,
    lines::{Line, Lines, Places},
    pace::Pace,
    refusing::Refusing,
    replay::{self, Kept, Message, Replay, WithProducer},
    room::Room,
    writer::OnCommit,
};
use crate::{
    config,
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{
        Attempted, DeadLetter, Error, Failure, InstanceId, Producer, ReceiptId, ReceiptState, Record, Report,
        Sequence, Spool, SpoolFuture,
    },
    telemetry::{metrics::Metrics, spool_metrics::SpoolMetrics},
};
use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Bytes of chunks that are read at once to count the lines.
const READ: usize = 4 << 20;
/// How often what the metrics and the readiness say is brought up to date.
const LOOK: Duration = Duration::from_secs(1);

/// What the spool works with.
pub struct Parts {
    pub settings: config::Spool,
    pub producer: Arc<dyn Producer>,
    /// What the producer may have of stored records, in bytes.
    pub max_in_flight_bytes: usize,
    pub delivery_timeout: Duration,
    pub max_record_bytes: usize,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    pub spool_metrics: Arc<SpoolMetrics>,
}

/// Keeps records on the disk, and sends them.
pub struct DiskSpool {
    store: Arc<Store>,
    writer: Arc<Writer>,
    sequences: Arc<AtomicU64>,
    lines: Arc<Lines>,
    lanes: Arc<Lanes>,
    pace: Arc<Pace>,
    replay: mpsc::UnboundedSender<Message>,
    settings: config::Spool,
    metrics: Arc<SpoolMetrics>,
    room: Room,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no thread for the spool: {0}")]
    Thread(#[from] io::Error),
}

impl DiskSpool {
    /// Begins to send what is in the store, and to answer operators. Blocks while it reads all of it once. To be called
    /// in a runtime.
    pub fn start(store: Store, parts: Parts, supervisor: &mut Supervisor) -> Result<Arc<Self>, StartError> {
        let lines = Arc::new(Lines::default());
        count_lines(&store, &lines)?;
        let (left, failed) = (store.records(), store.failed_records());
        if left > 0 || failed > 0 {
            tracing::info!(records = left, failed, "the spool holds records of an earlier run");
        }
        let store = Arc::new(store);
        let sequences = Arc::new(AtomicU64::new(store.first_sequence().0));
        let limits = Settings {
            max_bytes: parts.settings.max_bytes,
            receipt_max_bytes: parts.settings.receipt_max_bytes,
            receipt_ttl: parts.settings.receipt_ttl,
        };
        let on_commit: OnCommit = {
            let metrics = Arc::clone(&parts.spool_metrics);
            Box::new(move |committed| {
                metrics.stored(committed.records);
                metrics.committed(committed.records, committed.took);
            })
        };
        let alarm = supervisor.alarm();
        let writer = Writer::start(Arc::clone(&store), Arc::clone(&sequences), limits, on_commit, &alarm)?;
        let writer = Arc::new(writer);
        let (lanes, pace) = (Arc::new(Lanes::default()), Arc::new(Pace::default()));
        let (replay, sender, messages) = Replay::new(replay::Parts {
            producer: parts.producer,
            store: Arc::clone(&store),
            writer: Arc::clone(&writer),
            lines: Arc::clone(&lines),
            lanes: Arc::clone(&lanes),
            pace: Arc::clone(&pace),
            max_in_flight_bytes: parts.max_in_flight_bytes,
            dead_letter_topic: parts.settings.dead_letter_topic.clone(),
            delivery_timeout: parts.delivery_timeout,
            max_record_bytes: parts.max_record_bytes,
            metrics: parts.metrics,
            spool_metrics: Arc::clone(&parts.spool_metrics),
        });
        supervisor.spawn_ending("the sending of stored records", replay.run(messages));
        let failed = FailedRecords::new(control::Parts {
            store: Arc::clone(&store),
            writer: Arc::clone(&writer),
            lines: Arc::clone(&lines),
            replay: sender.clone(),
        });
        match control::listen(&parts.settings.directory, Arc::new(failed)) {
            Ok(listening) => supervisor.spawn("the operator's socket", listening),
            Err(error) => tracing::warn!(
                path = %control::socket(&parts.settings.directory).display(), %error,
                "kafka-inlet spool cannot reach this service while it runs"
            ),
        }
        let room = Room::new(&store, &writer, &parts.settings, &parts.spool_metrics);
        let spool = Arc::new(Self {
            store,
            writer,
            sequences,
            lines,
            lanes,
            pace,
            replay: sender,
            settings: parts.settings,
            metrics: parts.spool_metrics,
            room,
        });
        parts.readiness.set_spool_room(spool.room.is_left());
        supervisor.spawn("the watch over the spool", Arc::clone(&spool).watch(parts.readiness));
        Ok(spool)
    }

    /// How many records wait to be sent.
    pub fn records(&self) -> u64 {
        self.store.records()
    }

    /// How many records Kafka refused for good, and wait for the operator.
    pub fn failed_records(&self) -> u64 {
        self.store.failed_records()
    }

    /// Sends nothing more. What is under way is still heard of.
    pub fn stop(&self) {
        self.tell(Message::Stop);
    }

    /// Commits what is known, and returns how many records remain to be sent by the next start.
    pub async fn close(&self) -> u64 {
        let (answer, closed) = oneshot::channel();
        self.tell(Message::Close(answer));
        // an error is a replay that has ended already
        let _ = closed.await;
        let (writer, store) = (Arc::clone(&self.writer), Arc::clone(&self.store));
        let closed = move || {
            writer.close();
            store.close();
        };
        if let Err(error) = tokio::task::spawn_blocking(closed).await {
            tracing::error!(%error, "the spool's writer did not end in order");
        }
        // while the directory is still this process's own
        let _ = std::fs::remove_file(control::socket(&self.settings.directory));
        self.store.records()
    }

    async fn watch(self: Arc<Self>, readiness: Arc<Readiness>) {
        let mut refusing = Refusing::default();
        loop {
            tokio::time::sleep(LOOK).await;
            self.metrics.set_size(self.store.records(), self.store.bytes());
            self.metrics.set_oldest(self.store.oldest_stored_at());
            self.metrics.set_failed(self.store.failed_records());
            self.metrics.set_held(self.lanes.all() as u64);
            self.metrics.set_receipts_bytes(self.store.receipt_bytes());
            self.room.look(&mut refusing);
            readiness.set_spool_room(self.room.is_left());
        }
    }

    #[cfg(test)]
    pub fn is_waited_behind(&self, record: &Record) -> bool {
        let waiting = self.line(record).filter(|line| self.lines.join_others(*line));
        waiting.inspect(|line| self.lines.leave(*line)).is_some()
    }

    #[cfg(test)]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    fn line(&self, record: &Record) -> Option<Line> {
        self.lines.of(record.topic.as_str(), record.key.as_deref())
    }

    fn tell(&self, message: Message) {
        // the replay ends with the process alone
        let _ = self.replay.send(message);
    }

    async fn find(&self, sequence: Sequence) -> Result<ReceiptState, Error> {
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || store.find(sequence)).await;
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        match found.map_err(|error| internal(&error))?.map_err(|error| internal(&error))? {
            Found::Pending => Ok(ReceiptState::Pending),
            Found::Resolved(resolved) => Ok(state(resolved)),
            Found::Failed { error, reason } => {
                Ok(ReceiptState::Failed(Failure { error, reason, dead_letter: None }))
            }
            Found::Unknown => Ok(ReceiptState::Unknown),
        }
    }
}

fn state(resolved: Resolved) -> ReceiptState {
    match resolved {
        Resolved::Written(receipt) => ReceiptState::Written(receipt),
        Resolved::Failed { error, reason, dead_letter } => {
            let dead_letter =
                dead_letter.map(|(topic, partition, offset)| DeadLetter { topic, partition, offset });
            ReceiptState::Failed(Failure { error, reason, dead_letter })
        }
    }
}

/// Gives every stored record its place in line.
fn count_lines(store: &Store, lines: &Lines) -> Result<(), ReadError> {
    let mut cursor = Sequence::default();
    loop {
        let chunks = store.chunks_from(cursor, READ)?;
        let Some((last, _)) = chunks.last() else { return Ok(()) };
        cursor = Sequence(last.0.saturating_add(1));
        for (first, value) in chunks {
            let chunk = super::Chunk::parse(first, value)?;
            chunk.for_each_key(|_, topic, key| {
                lines.of(topic, key).inspect(|line| lines.join(*line));
            })?;
        }
    }
}

impl Spool for DiskSpool {
    fn instance(&self) -> &InstanceId {
        self.store.instances().latest()
    }

    fn gave(&self, id: &ReceiptId) -> bool {
        self.store.instances().gave(id)
    }

    fn next_sequences(&self, count: usize) -> Sequence {
        Sequence(self.sequences.fetch_add(count as u64, Relaxed))
    }

    fn joins_line(&self, record: &Record, partition: i32) -> bool {
        let is_behind_others = || self.line(record).is_some_and(|line| self.lines.join_others(line));
        if !self.lines.are_empty() && is_behind_others() {
            return true;
        }
        let is_stuck = self.lanes.is_stuck(&record.topic, partition);
        if is_stuck {
            self.join_line(record);
        }
        is_stuck
    }

    fn join_line(&self, record: &Record) {
        self.line(record).inspect(|line| self.lines.join(*line));
    }

    fn store<'a>(
        &'a self,
        records: &mut dyn ExactSizeIterator<Item = &Record>,
        patience: Duration,
    ) -> SpoolFuture<'a, Result<Sequence, Error>> {
        let (mut encoded, mut places) = (Encoded::default(), Places::new(Arc::clone(&self.lines)));
        for record in records {
            encoded.push(record);
            self.line(record).inspect(|line| places.add(*line));
        }
        let count = u64::from(encoded.count());
        if let Some(error) = self.refusal(encoded.count() as usize) {
            return Box::pin(ready(Err(error)));
        }
        Box::pin(async move {
            self.pace.wait(count, patience).await;
            self.writer.store(encoded, places).await.map_err(|error| self.room.refused(&error, count))
        })
    }

    fn refusal(&self, records: usize) -> Option<Error> {
        self.room.refusal(records)
    }

    fn keep<'a>(&'a self, attempted: &[Attempted<'_>]) -> SpoolFuture<'a, Result<(), Error>> {
        let kept: Vec<_> = attempted.iter().map(|attempted| self.kept(attempted)).collect();
        let count = kept.len() as u64;
        // they have waited for Kafka already, and are to be stored in any case
        self.pace.counts(count);
        let (answer, answered) = oneshot::channel();
        self.tell(Message::Keep { kept, answer });
        Box::pin(async move {
            let ended = || Err(CommitError::Io("the service is stopping".into()));
            answered.await.unwrap_or_else(|_| ended()).map_err(|error| self.room.refused(&error, count))
        })
    }

    fn reported(&self, sequence: Sequence, report: &Report) {
        self.tell(Message::Reported(sequence, report.clone()));
    }

    fn receipt(
        &self,
        sequence: Sequence,
        patience: Duration,
    ) -> SpoolFuture<'_, Result<ReceiptState, Error>> {
        Box::pin(async move {
            let found = self.find(sequence).await?;
            if found != ReceiptState::Pending || patience.is_zero() {
                return Ok(found);
            }
            let (answer, resolved) = oneshot::channel();
            self.tell(Message::Await(sequence, answer));
            // it may have been resolved before the replay was asked
            let found = self.find(sequence).await?;
            if found != ReceiptState::Pending {
                return Ok(found);
            }
            Ok(match timeout(patience, resolved).await {
                Ok(Ok(resolved)) => state(resolved),
                Ok(Err(_)) | Err(_) => ReceiptState::Pending,
            })
        })
    }
}

impl DiskSpool {
    fn kept(&self, attempted: &Attempted<'_>) -> Kept {
        let Attempted { record, sequence, partition, is_held } = *attempted;
        let line = self.line(record);
        line.inspect(|line| self.lines.join(*line));
        let with_producer = is_held.then(|| {
            let lane = self.lanes.of(&record.topic, partition);
            self.lanes.hold(lane);
            WithProducer { topic: record.topic.clone(), timestamp: record.timestamp, lane }
        });
        let mut encoded = Encoded::default();
        encoded.push(record);
        Kept { sequence, encoded, line, with_producer }
    }
}
