//! Sends what is stored: one task, from the oldest chunk to the newest, and again from the oldest one that had to be
//! passed over.
//!
//! A chunk is read, and each of its records that may be sent now is handed to the producer. Its reports come back as
//! messages, and when nothing of the chunk is under way any more its results are committed, by which the chunk leaves
//! the store or is rewritten with what is left.
//!
//! A record is passed over, for now, where its topic is in [trouble](troubles), its partition is stuck, or an earlier
//! record of its line was passed over. Those cannot hold up others: the reading goes on behind them. Once something has
//! changed for the better, it begins again at the first record that was passed over. Nothing is remembered of records
//! that were passed over but that first one and a bit for each line, so that memory does not grow with the backlog.
//!
//! Within a line, records are handed to the producer in order, without waiting for each other's reports: the producer
//! keeps the order of a partition. That holds for one librdkafka client, so when it is replaced (a fatal error) nothing
//! is sent until every report of the old one has come.

mod commit;
mod dead_letters;
mod flight;
mod halt;
mod held;
mod reading;
mod refusals;
#[cfg(test)]
mod tests;
mod topics;
mod troubles;
mod window;

use super::{
    CommitError, Resolved, Store, Writer,
    lanes::Lanes,
    lines::{Line, LineSet, Lines},
    pace::{Pace, TURN},
};
use crate::{
    produce::{
        Budget, DeadLetterTopic, Error, Producer, Record, RecordLimits, Report, Sequence, Topic, TopicName,
        check_record,
    },
    telemetry::{
        metrics::Metrics,
        spool_metrics::{ReplayStatus, SpoolMetrics},
    },
};
use flight::Flight;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
pub use halt::Dropped;
use held::Held;
pub use held::{Kept, WithProducer};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use troubles::Troubles;
use window::{State, Waiting, Window};

/// Messages that are taken at once.
const MESSAGES: usize = 1024;
/// How often an idle spool is looked at.
const IDLE: Duration = Duration::from_secs(1);
/// How soon the reading may begin again at what was passed over.
const BETWEEN_REWINDS: Duration = Duration::from_millis(100);
/// How often what is passed over is looked at again without a reason.
const LONGEST_PASSED_OVER: Duration = Duration::from_secs(30);
/// So long nothing is sent after a failure that says nothing about its record, of a replaced producer for example.
const PAUSE: Duration = Duration::from_millis(200);
/// How soon the disk is tried again that could not be read or written.
const AFTER_A_FAULT: Duration = Duration::from_secs(1);

/// What the replay is told.
pub enum Message {
    /// Store records that were attempted, and answer when it is done.
    Keep { kept: Vec<Kept>, answer: oneshot::Sender<Result<(), CommitError>> },
    /// What became of a record that the producer had.
    Reported(Sequence, Report),
    /// Answer when the record is resolved.
    Await(Sequence, oneshot::Sender<Resolved>),
    /// These are in the store again, as records that wait.
    Retried(Vec<Sequence>),
    /// Read and send nothing until it is resumed, and answer with the chunks that are being sent.
    Halt { halted: oneshot::Sender<HashSet<Sequence>>, resumed: oneshot::Receiver<Dropped> },
    /// Send nothing more.
    Stop,
    /// Commit what is known, answer, and end.
    Close(oneshot::Sender<()>),
}

/// What the replay works with.
pub struct Parts {
    pub producer: Arc<dyn Producer>,
    pub store: Arc<Store>,
    pub writer: Arc<Writer>,
    pub lines: Arc<Lines>,
    pub lanes: Arc<Lanes>,
    pub pace: Arc<Pace>,
    /// What the producer may have of stored records, in bytes.
    pub max_in_flight_bytes: usize,
    pub dead_letter_topic: Option<DeadLetterTopic>,
    pub delivery_timeout: Duration,
    pub max_record_bytes: usize,
    pub metrics: Arc<Metrics>,
    pub spool_metrics: Arc<SpoolMetrics>,
}

/// Work that goes on beside the loop, and what it comes to.
type Work<T> = FuturesUnordered<BoxFuture<'static, T>>;

/// The task's state.
pub struct Replay {
    parts: Parts,
    /// To hear of reports by.
    sender: mpsc::UnboundedSender<Message>,
    window: Window,
    held: HashMap<Sequence, Held>,
    reading: reading::Reading,
    passed_over: PassedOver,
    troubles: Troubles,
    /// Records that must not share a batch again.
    alone: HashSet<Sequence>,
    flight: Flight,
    budget: Arc<Budget>,
    /// The producer's generation of all records under way.
    generation: u64,
    paused_until: Option<Instant>,
    keeping: Work<(Vec<Sequence>, Result<(), CommitError>)>,
    asking: topics::Asking,
    look_ups: Work<(TopicName, Result<Arc<Topic>, Error>)>,
    refusals: refusals::Refusals,
    commits: commit::Commits,
    waiters: HashMap<Sequence, Vec<oneshot::Sender<Resolved>>>,
    turn: Turn,
    halt: halt::Halt,
    is_stopping: bool,
}

/// What was not sent, and is to be looked at again.
#[derive(Default)]
struct PassedOver {
    first: Option<Sequence>,
    lines: LineSet,
    /// Something has changed for the better.
    is_due: bool,
    last_rewind: Option<Instant>,
    /// How far the reading had come then.
    reach: Sequence,
}

/// The time between two looks at everything.
struct Turn {
    due: Instant,
    sent: u64,
}

impl PassedOver {
    fn add(&mut self, chunk: Sequence, line: Option<Line>) {
        self.first = Some(self.first.map_or(chunk, |first| first.min(chunk)));
        if let Some(line) = line {
            self.lines.insert(line);
        }
    }
}

impl Replay {
    /// A replay that begins with the oldest record, and the way to talk to it.
    pub fn new(parts: Parts) -> (Self, mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>) {
        let (sender, messages) = mpsc::unbounded_channel();
        let replay = Self {
            sender: sender.clone(),
            window: Window::default(),
            held: HashMap::new(),
            reading: reading::Reading::default(),
            passed_over: PassedOver::default(),
            troubles: Troubles::default(),
            alone: HashSet::new(),
            flight: Flight::new(parts.max_in_flight_bytes),
            // what is in flight is bounded by partition: see `flight`
            budget: Budget::new(usize::MAX),
            generation: parts.producer.generation(),
            paused_until: None,
            keeping: Work::new(),
            asking: topics::Asking::default(),
            look_ups: Work::new(),
            refusals: refusals::Refusals::default(),
            commits: commit::Commits::default(),
            waiters: HashMap::new(),
            turn: Turn { due: Instant::now(), sent: 0 },
            halt: halt::Halt::default(),
            is_stopping: false,
            parts,
        };
        (replay, sender, messages)
    }

    /// Runs until it is told to close.
    pub async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let writer = Arc::clone(&self.parts.writer);
        let mut received = Vec::with_capacity(MESSAGES);
        loop {
            self.send_what_is_read();
            self.refuse_next();
            self.commit_settled();
            self.read_on();
            let due = self.turn.due.into();
            tokio::select! {
                biased;
                count = messages.recv_many(&mut received, MESSAGES) => {
                    if count == 0 {
                        return;
                    }
                    let now = Instant::now();
                    for message in received.drain(..) {
                        if let Message::Close(answer) = message {
                            self.close(&mut messages).await;
                            // nobody waits where the process ends already
                            let _ = answer.send(());
                            return;
                        }
                        self.hear(message, now);
                    }
                }
                finished = self.commits.next() => self.committed(finished),
                Some((kept, result)) = self.keeping.next() => self.kept(kept, result),
                read = self.reading.done() => self.read(read),
                Some((topic, answer)) = self.look_ups.next() => self.looked_up(topic, answer),
                refused = self.refusals.next() => self.refused(refused),
                dropped = self.halt.over() => self.resume(dropped),
                () = writer.stored().notified() => {
                    self.reading.there_is_more();
                    // it may have been idle
                    self.turn.due = self.turn.due.min(Instant::now() + TURN);
                }
                () = tokio::time::sleep_until(due) => self.take_turn(),
            }
        }
    }

    fn hear(&mut self, message: Message, now: Instant) {
        match message {
            Message::Keep { kept, answer } => self.keep(kept, answer),
            Message::Reported(sequence, report) => self.reported(sequence, report, now),
            Message::Await(sequence, answer) => self.await_result(sequence, answer),
            Message::Retried(sequences) => {
                for sequence in sequences {
                    self.passed_over.add(sequence, None);
                }
                self.passed_over.is_due = true;
            }
            Message::Halt { halted, resumed } => self.halt(halted, resumed),
            Message::Stop => self.is_stopping = true,
            // heard where messages come in
            Message::Close(_) => {}
        }
    }

    /// Whether anything may be sent now.
    fn may_send(&mut self) -> bool {
        let now = Instant::now();
        if self.is_stopping || self.halt.is_on() || self.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.parts.producer.unavailable().is_some() {
            return false;
        }
        let generation = self.parts.producer.generation();
        if generation != self.generation {
            if self.flight.records() > 0 {
                return false;
            }
            self.generation = generation;
        }
        true
    }

    fn reported(&mut self, sequence: Sequence, report: Report, now: Instant) {
        if self.held.contains_key(&sequence) {
            return self.reported_on_held(sequence, report);
        }
        let Some((first, index, chunk)) = self.window.find(sequence) else { return };
        let Some(State::Sent(sent)) = chunk.state(index) else { return };
        let sent = sent.clone();
        let was_alone = self.alone.remove(&sequence);
        // what is behind it in its line waits for its report
        self.passed_over.is_due |= self.flight.lands(&sent, now) || was_alone;
        match report {
            Ok(written) => {
                self.turn.sent += 1;
                self.parts.spool_metrics.replayed(ReplayStatus::Success, 1);
                self.topic_succeeds(&sent.topic);
                self.resolve(first, index, Resolved::Written(written.receipt(sent.topic, sent.timestamp)));
            }
            Err(error) if error.may_be_a_neighbours() && !was_alone => {
                self.alone.insert(sequence);
                self.troubles.tells_nothing(&sent.topic, sequence);
                self.comes_back(first, index, sent.line);
            }
            Err(error) if is_final(&error) => {
                self.passed_over.is_due |= self.troubles.tells_nothing(&sent.topic, sequence);
                self.refuse(first, index, sent.line, error);
            }
            Err(error) => {
                self.parts.spool_metrics.replayed(ReplayStatus::Retried, 1);
                self.comes_back(first, index, sent.line);
                if is_of_topic(&error) {
                    self.topic_fails(&sent.topic, &error);
                } else {
                    self.troubles.tells_nothing(&sent.topic, sequence);
                    self.paused_until = Some(now + PAUSE);
                }
            }
        }
    }

    /// The record is to be sent again, once its chunk is closed.
    fn comes_back(&mut self, first: Sequence, index: u32, line: Option<Line>) {
        self.passed_over.add(first, line);
        if let Some(chunk) = self.window.get_mut(first) {
            chunk.is_due = true;
        }
        self.set(first, index, State::Waiting(Waiting { line, obstacle: None }));
    }

    /// The record's end: its line moves up, and who waits for it is told.
    fn resolve(&mut self, first: Sequence, index: u32, resolved: Resolved) {
        self.tell_waiters(Sequence(first.0 + u64::from(index)), &resolved);
        let before = self.set(first, index, State::Resolved(resolved));
        if let Some(line) = before.and_then(State::line) {
            self.parts.lines.leave(line);
        }
    }

    fn tell_waiters(&mut self, sequence: Sequence, resolved: &Resolved) {
        let waiters = self.waiters.remove(&sequence).unwrap_or_default();
        // those that are gone need no answer
        waiters.into_iter().for_each(|waiter| drop(waiter.send(resolved.clone())));
    }

    fn set(&mut self, first: Sequence, index: u32, state: State) -> Option<State> {
        let chunk = self.window.get_mut(first)?;
        let before = chunk.replace(index, state);
        if chunk.is_settled() && !chunk.is_closing {
            chunk.is_closing = true;
            self.commits.add(first, chunk.records() + self.refusals.weight(first));
        }
        before
    }

    fn await_result(&mut self, sequence: Sequence, answer: oneshot::Sender<Resolved>) {
        if let Some((_, index, chunk)) = self.window.find(sequence)
            && let Some(State::Resolved(resolved)) = chunk.state(index)
        {
            let _ = answer.send(resolved.clone());
            return;
        }
        self.waiters.entry(sequence).or_default().push(answer);
    }

    /// What is passed over is looked at again now and then, and each second where nothing is under way that could say
    /// that something has changed: nothing may stay in the spool because a change was missed.
    fn look_again(&mut self, now: Instant) {
        if self.passed_over.first.is_none() || !self.reading.is_at_end() {
            return;
        }
        let is_idle = self.window.is_empty() && self.held.is_empty() && self.keeping.is_empty();
        let pause = if is_idle && !self.troubles.has_any() { IDLE } else { LONGEST_PASSED_OVER };
        self.passed_over.is_due |= self.passed_over.last_rewind.is_none_or(|last| now >= last + pause);
    }

    fn take_turn(&mut self) {
        let now = Instant::now();
        self.take_topics_turn(now);
        self.watch_dead_letters(now);
        self.look_again(now);
        let left = if self.reading.is_at_end() { 0 } else { self.parts.store.records() };
        self.parts.pace.turn(std::mem::take(&mut self.turn.sent), left);
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        let is_busy = self.parts.store.records() > 0 || self.flight.records() > 0;
        self.turn.due = now + if is_busy { TURN } else { IDLE };
    }
}

/// The bytes to reserve for a stored record. Whether it is too early or too late says the broker: this clock may be wrong
/// by now, at the start of a machine for example.
fn check(record: &Record, topic: &Topic, max_record_bytes: usize) -> Result<usize, Error> {
    check_record(record, topic, RecordLimits { max_record_bytes, now_ms: record.timestamp })
}

/// Whether Kafka will never take the record. A missing topic and a missing right can be mended.
fn is_final(error: &Error) -> bool {
    !error.is_retriable() && !is_of_topic(error)
}

/// Whether it is the topic that cannot be written to.
fn is_of_topic(error: &Error) -> bool {
    matches!(error, Error::UnknownTopic(_) | Error::TopicMissing(_) | Error::Unauthorized(_))
}
