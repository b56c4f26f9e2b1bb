//! What is done with failed records, whoever asks.

use super::protocol::{Answer, Entry, Request, Which};
use crate::{
    produce::{ReceiptId, Sequence},
    spool::{
        Again, Encoded, FailedRecord, Finished, Found, ReadError, Resolved, Store, Writer,
        lines::{Lines, Places},
        now_ms,
        replay::Message,
    },
};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::{Mutex, mpsc};

/// Records that are taken at once, at most.
const PAGE: usize = 512;

/// The failed records of an open store.
pub struct FailedRecords {
    pub(super) parts: Parts,
    /// One change at a time: what one has seen is not to be changed by another.
    pub(super) turn: Mutex<()>,
}

/// What they need.
pub struct Parts {
    pub store: Arc<Store>,
    pub writer: Arc<Writer>,
    pub lines: Arc<Lines>,
    /// Told of what waits again. May be closed where nothing is sent.
    pub replay: mpsc::UnboundedSender<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    List,
    Retry,
    Drop,
}

/// Why no more is done.
pub(super) enum Stop {
    /// Nobody listens.
    Unheard,
    Error(String),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Error(error.to_string())
    }
}

impl FailedRecords {
    pub fn new(parts: Parts) -> Self {
        Self { parts, turn: Mutex::default() }
    }

    /// Does what is asked and says so, record by record, with [`Answer::End`] or [`Answer::Error`] as the last word. It
    /// ends early where nobody takes the answers. Not to be dropped before its end: a record may be between two tables.
    pub async fn perform(&self, request: Request, answers: mpsc::Sender<Answer>) {
        let done = match request {
            Request::List { limit } => self.all(Act::List, limit, &answers).await,
            Request::Retry(Which::All) => self.all(Act::Retry, None, &answers).await,
            Request::Drop(Which::All) => self.all(Act::Drop, None, &answers).await,
            Request::Retry(Which::These(ids)) => self.these(Act::Retry, ids, &answers).await,
            Request::Drop(Which::These(ids)) => self.these(Act::Drop, ids, &answers).await,
            Request::DropWaiting(topic) => self.drop_waiting(&topic, &answers).await,
        };
        let last = match done {
            Ok(()) => {
                let (failed, waiting) = (self.parts.store.failed_records(), self.parts.store.records());
                Answer::End { failed, waiting }
            }
            Err(Stop::Error(reason)) => Answer::Error(reason),
            Err(Stop::Unheard) => return,
        };
        // who is gone needs no answer
        let _ = answers.send(last).await;
    }

    async fn all(&self, act: Act, limit: Option<u64>, answers: &mpsc::Sender<Answer>) -> Result<(), Stop> {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut from = Sequence::default();
        while left > 0 {
            let turn = self.turn.lock().await;
            let count = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let page = self.read(move |store| store.failed(from, count)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            // what fails again is not met again
            let next = last.sequence.0.checked_add(1);
            left -= page.len() as u64;
            let done = self.act(act, page).await?;
            drop(turn);
            say(done, answers).await?;
            let Some(next) = next else { return Ok(()) };
            from = Sequence(next);
        }
        Ok(())
    }

    async fn these(&self, act: Act, ids: Vec<ReceiptId>, answers: &mpsc::Sender<Answer>) -> Result<(), Stop> {
        let mut seen = HashSet::new();
        for id in ids {
            let instances = self.parts.store.instances();
            if !instances.gave(&id) {
                let why = match instances.latest() {
                    here if id.instance == *here => why_not(&Found::Unknown).to_owned(),
                    here => format!("it is of another instance, and this is '{here}'"),
                };
                say([Answer::Refused { receipt: id.to_string(), why }], answers).await?;
                continue;
            }
            if !seen.insert(id.sequence) {
                continue;
            }
            let turn = self.turn.lock().await;
            let sequence = id.sequence;
            let mut found = self.read(move |store| store.failed(sequence, 1)).await?;
            found.retain(|failed| failed.sequence == sequence);
            let done = if found.is_empty() {
                let found = self.read(move |store| store.find(sequence)).await?;
                vec![Answer::Refused { receipt: id.to_string(), why: why_not(&found).into() }]
            } else {
                self.act(act, found).await?
            };
            drop(turn);
            say(done, answers).await?;
        }
        Ok(())
    }

    async fn act(&self, act: Act, records: Vec<FailedRecord>) -> Result<Vec<Answer>, Stop> {
        match act {
            Act::List => Ok(records.iter().map(|failed| Answer::Failed(self.entry(failed))).collect()),
            Act::Retry => self.retry(records).await,
            Act::Drop => {
                let unfailed = records.iter().map(|failed| failed.sequence).collect();
                self.finish(Finished { unfailed, ..Finished::default() }).await?;
                tracing::warn!(records = records.len(), "failed records were dropped, as an operator asked");
                Ok(records.iter().map(|failed| Answer::Dropped(self.entry(failed))).collect())
            }
        }
    }

    async fn retry(&self, records: Vec<FailedRecord>) -> Result<Vec<Answer>, Stop> {
        let sequences: Vec<_> = records.iter().map(|failed| failed.sequence).collect();
        let look = move |store: &Store| -> Result<Vec<(bool, Option<i64>)>, ReadError> {
            let look = |&at: &Sequence| Ok((store.has_neighbours(at)?, store.next_stored_at(at)?));
            sequences.iter().map(look).collect()
        };
        let around = self.read(look).await?;
        let now = now_ms();
        let mut finished = Finished::default();
        let mut places = Places::new(Arc::clone(&self.parts.lines));
        let mut answers = Vec::with_capacity(records.len());
        for (failed, (has_neighbours, next_stored_at)) in records.iter().zip(around) {
            let entry = self.entry(failed);
            if has_neighbours {
                // a chunk of its own would lie among the sequences of theirs, or replace it
                let why =
                    "records that were stored together with it wait still; try again when they are sent";
                answers.push(Answer::Refused { receipt: entry.receipt, why: why.into() });
                continue;
            }
            let record = &failed.record;
            if let Some(line) = self.parts.lines.of(record.topic.as_str(), record.key.as_deref()) {
                self.parts.lines.join(line);
                places.add(line);
            }
            let mut encoded = Encoded::default();
            encoded.push(record);
            finished.unfailed.push(failed.sequence);
            let stored_at = next_stored_at.map_or(now, |next| next.min(now));
            finished.kept.push(Again { sequence: failed.sequence, record: encoded, stored_at });
            answers.push(Answer::Retried(entry));
        }
        let sequences = finished.unfailed.clone();
        if sequences.is_empty() {
            return Ok(answers);
        }
        self.finish(finished).await?;
        places.stay();
        tracing::info!(records = sequences.len(), "failed records are sent again, as an operator asked");
        // without a replay the next start sends them
        let _ = self.parts.replay.send(Message::Retried(sequences));
        Ok(answers)
    }

    pub(super) async fn finish(&self, finished: Finished) -> Result<(), Stop> {
        self.parts.writer.finish(finished).await.map_err(|error| Stop::Error(error.to_string()))
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Stop> {
        let store = Arc::clone(&self.parts.store);
        let read = tokio::task::spawn_blocking(move || read(&store)).await;
        Ok(read.map_err(|error| Stop::Error(error.to_string()))??)
    }

    pub(super) fn entry(&self, failed: &FailedRecord) -> Entry {
        Entry::of(failed, self.parts.store.instances())
    }
}

pub(super) async fn say(
    done: impl IntoIterator<Item = Answer>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), Stop> {
    for answer in done {
        answers.send(answer).await.map_err(|_| Stop::Unheard)?;
    }
    Ok(())
}

/// Why nothing can be done for a record that is not among the failed ones.
fn why_not(found: &Found) -> &'static str {
    match found {
        Found::Pending => "it has not failed: it waits to be sent",
        Found::Resolved(Resolved::Written(_)) => "it has not failed: it is in Kafka",
        Found::Resolved(Resolved::Failed { dead_letter: Some(_), .. }) => "it is in the dead letter topic",
        Found::Resolved(Resolved::Failed { dead_letter: None, .. }) => {
            "it is not among the failed records any more"
        }
        Found::Failed { .. } => "it has failed only now; try again",
        Found::Unknown => "no record is known by this receipt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lifecycle::supervisor::Supervisor,
        produce::{InstanceId, Record, fake::record},
        spool::{Change, Failure, Settings, codec},
    };
    use bytes::Bytes;
    use std::{
        sync::atomic::AtomicU64,
        time::{Duration, SystemTime},
    };

    struct Desk {
        failed: Arc<FailedRecords>,
        store: Arc<Store>,
        lines: Arc<Lines>,
        told: mpsc::UnboundedReceiver<Message>,
        _supervisor: Supervisor,
        _directory: tempfile::TempDir,
    }

    fn failure(sequence: u64) -> Failure {
        let key = Some(Bytes::from(format!("key-{sequence}")));
        let record = Record { key, ..record("t") };
        let (error, reason) = ("record_too_large".to_owned(), "too large".to_owned());
        Failure { sequence: Sequence(sequence), record, error, reason, failed_at: 5 }
    }

    /// A store in which these records have failed.
    fn desk(failed: impl IntoIterator<Item = u64>) -> Desk {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(
            Store::open(directory.path(), &InstanceId::parse("a").unwrap(), SystemTime::now()).unwrap(),
        );
        let fail = failed.into_iter().map(failure).collect();
        store.commit(&Change { fail, ..Change::default() }).unwrap();
        let settings = Settings {
            max_bytes: u64::MAX,
            receipt_max_bytes: u64::MAX,
            receipt_ttl: Duration::from_secs(3600),
        };
        let supervisor = Supervisor::new();
        let sequences = Arc::new(AtomicU64::new(store.first_sequence().0));
        let writer =
            Writer::start(Arc::clone(&store), sequences, settings, Box::new(|_| {}), &supervisor.alarm());
        let (replay, told) = mpsc::unbounded_channel();
        let lines = Arc::new(Lines::default());
        let failed = Arc::new(FailedRecords::new(Parts {
            store: Arc::clone(&store),
            writer: Arc::new(writer.unwrap()),
            lines: Arc::clone(&lines),
            replay,
        }));
        Desk { failed, store, lines, told, _supervisor: supervisor, _directory: directory }
    }

    impl Desk {
        async fn ask(&self, request: Request) -> Vec<Answer> {
            let (sender, mut answers) = mpsc::channel(1);
            let failed = Arc::clone(&self.failed);
            let heard = async {
                let mut heard = Vec::new();
                while let Some(answer) = answers.recv().await {
                    heard.push(answer);
                }
                heard
            };
            tokio::join!(failed.perform(request, sender), heard).1
        }

        fn waits_in_line(&self, key: &str) -> bool {
            self.lines.join_others(self.lines.of("t", Some(key.as_bytes())).unwrap())
        }
    }

    fn these(ids: &[(&str, u64)]) -> Which {
        let id = |(instance, sequence): &(&str, u64)| ReceiptId {
            instance: InstanceId::parse(instance).unwrap(),
            sequence: Sequence(*sequence),
        };
        Which::These(ids.iter().map(id).collect())
    }

    #[tokio::test]
    async fn all_are_listed_in_order_however_many_there_are() {
        let count = 2 * PAGE as u64 + 1;
        let desk = desk((1..=count).rev());
        let answers = desk.ask(Request::List { limit: None }).await;
        assert_eq!(answers.len() as u64, count + 1);
        assert_eq!(answers.last(), Some(&Answer::End { failed: count, waiting: 0 }));
        let Answer::Failed(entry) = &answers[0] else { panic!("{:?}", answers[0]) };
        assert_eq!((entry.receipt.as_str(), entry.topic.as_str()), ("a-0000000000000001", "t"));
        assert_eq!((entry.key.as_deref(), entry.failed_at), (Some("key-1"), 5));
        assert_eq!(desk.ask(Request::List { limit: Some(3) }).await.len(), 4);
    }

    #[tokio::test]
    async fn a_retried_record_waits_in_its_line_and_the_replay_is_told() {
        let mut desk = desk([1, 2]);
        let answers = desk.ask(Request::Retry(these(&[("a", 2), ("a", 2)]))).await;
        assert!(
            matches!(&answers[..], [Answer::Retried(_), Answer::End { failed: 1, waiting: 1 }]),
            "{answers:?}"
        );
        assert_eq!(desk.store.find(Sequence(2)), Ok(Found::Pending));
        assert!(desk.waits_in_line("key-2") && !desk.waits_in_line("key-1"));
        assert!(matches!(desk.told.try_recv(), Ok(Message::Retried(of)) if of == [Sequence(2)]));
    }

    #[tokio::test]
    async fn a_retried_record_does_not_make_the_oldest_that_waits_look_younger() {
        let desk = desk([1, 20]);
        let record: Encoded = [&record("t")].into_iter().collect();
        let bytes: Vec<u8> = record.records().flatten().copied().collect();
        let insert = vec![(Sequence(10), codec::chunk(7, 1, &bytes))];
        desk.store.commit(&Change { insert, ..Change::default() }).unwrap();
        let before = now_ms();
        desk.ask(Request::Retry(Which::All)).await;
        assert_eq!(desk.store.oldest_stored_at(), Some(7));
        // what was stored before them has left
        let remove = vec![Sequence(1), Sequence(10)];
        desk.store.commit(&Change { remove, ..Change::default() }).unwrap();
        assert!(desk.store.oldest_stored_at().unwrap() >= before, "it waits since its retry");
    }

    #[tokio::test]
    async fn all_are_retried_once_in_pages() {
        let count = PAGE as u64 + 10;
        let desk = desk(1..=count);
        let answers = desk.ask(Request::Retry(Which::All)).await;
        assert_eq!(answers.last(), Some(&Answer::End { failed: 0, waiting: count }));
        assert_eq!(desk.ask(Request::Retry(Which::All)).await.len(), 1);
    }

    #[tokio::test]
    async fn a_dropped_record_is_said_and_gone() {
        let desk = desk([1, 2]);
        let answers = desk.ask(Request::Drop(these(&[("a", 1)]))).await;
        assert!(
            matches!(&answers[..], [Answer::Dropped(_), Answer::End { failed: 1, waiting: 0 }]),
            "{answers:?}"
        );
        assert_eq!(desk.store.find(Sequence(1)), Ok(Found::Unknown));
    }

    #[tokio::test]
    async fn a_receipt_that_has_not_failed_is_refused_and_the_others_are_seen_to() {
        let desk = desk([5]);
        let answers = desk.ask(Request::Drop(these(&[("a", 4), ("b", 5), ("a", 5)]))).await;
        let [
            Answer::Refused { receipt, .. },
            Answer::Refused { why, .. },
            Answer::Dropped(_),
            Answer::End { .. },
        ] = &answers[..]
        else {
            panic!("{answers:?}")
        };
        assert_eq!(receipt, "a-0000000000000004");
        assert!(why.contains("another instance"), "{why}");
    }

    #[tokio::test]
    async fn a_record_is_not_retried_while_others_wait_in_its_chunk() {
        let desk = desk([9, 10, 11, 12]);
        let records: Encoded = [&record("t"), &record("t")].into_iter().collect();
        let bytes: Vec<u8> = records.records().flatten().copied().collect();
        let insert = vec![(Sequence(10), codec::chunk(1, 2, &bytes))];
        desk.store.commit(&Change { insert, ..Change::default() }).unwrap();
        let answers = desk.ask(Request::Retry(Which::All)).await;
        use Answer::{End, Refused, Retried};
        assert!(
            matches!(
                &answers[..],
                [Retried(_), Refused { .. }, Refused { .. }, Retried(_), End { failed: 2, waiting: 4 }]
            ),
            "{answers:?}"
        );
        assert!(desk.waits_in_line("key-9") && !desk.waits_in_line("key-10"));
    }

    #[tokio::test]
    async fn nothing_is_done_for_who_has_gone() {
        let desk = desk(1..=2000);
        let (sender, answers) = mpsc::channel(1);
        drop(answers);
        desk.failed.perform(Request::Drop(Which::All), sender).await;
        assert_eq!(desk.store.failed_records(), 2000 - PAGE as u64);
    }
}
