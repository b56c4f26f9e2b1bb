//! Records that were attempted before they were stored. While the producer has one, its delivery report decides what
//! comes next; until then it is not sent again.

use super::{
    Replay, is_final, is_of_topic,
    window::{OpenChunk, State},
};
use crate::{
    produce::{Report, Sequence, TopicName},
    spool::{CommitError, Encoded, Resolved, lanes::Lane, lines::Line},
};
use tokio::sync::oneshot;

/// An attempted record to store. It has its place in its line already.
pub struct Kept {
    pub sequence: Sequence,
    pub encoded: Encoded,
    pub line: Option<Line>,
    /// Where the producer has it; its partition is held already.
    pub with_producer: Option<WithProducer>,
}

/// What a report is put together with.
pub struct WithProducer {
    pub topic: TopicName,
    /// The record's, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub lane: Lane,
}

/// What is remembered of a kept record until the disk has it and the producer has it no longer.
pub struct Held {
    line: Option<Line>,
    with_producer: Option<WithProducer>,
    is_stored: bool,
    /// What came before the disk had it.
    report: Option<Report>,
}

impl Held {
    pub fn line(&self) -> Option<Line> {
        self.line
    }
}

impl Replay {
    pub(super) fn keep(&mut self, kept: Vec<Kept>, answer: oneshot::Sender<Result<(), CommitError>>) {
        let (mut sequences, mut records) = (Vec::new(), Vec::new());
        for Kept { sequence, encoded, line, with_producer } in kept {
            self.held.insert(sequence, Held { line, with_producer, is_stored: false, report: None });
            sequences.push(sequence);
            records.push((sequence, encoded));
        }
        let keeping = self.parts.writer.keep(records);
        self.keeping.push(Box::pin(async move {
            let result = keeping.await;
            // the client may be gone
            let _ = answer.send(result.clone());
            (sequences, result)
        }));
    }

    pub(super) fn kept(&mut self, sequences: Vec<Sequence>, result: Result<(), CommitError>) {
        for sequence in sequences {
            if result.is_err() {
                if let Some(held) = self.held.remove(&sequence) {
                    self.let_go(&held);
                    self.passed_over.is_due = true;
                    held.line.inspect(|line| self.parts.lines.leave(*line));
                }
                continue;
            }
            let Some(held) = self.held.get_mut(&sequence) else { continue };
            held.is_stored = true;
            if let Some(report) = held.report.take() {
                self.reported_on_held(sequence, report);
            } else if held.with_producer.is_none() {
                let line = held.line;
                self.held.remove(&sequence);
                self.passed_over.add(sequence, line);
                self.passed_over.is_due = true;
            }
        }
    }

    /// A report on a record that is in no open chunk. One that was never kept is nobody's concern.
    pub(super) fn reported_on_held(&mut self, sequence: Sequence, report: Report) {
        let Some(held) = self.held.get_mut(&sequence) else { return };
        if !held.is_stored {
            held.report = Some(report);
            return;
        }
        let Some(mut held) = self.held.remove(&sequence) else { return };
        self.let_go(&held);
        let Some(WithProducer { topic, timestamp, .. }) = held.with_producer.take() else { return };
        // whoever waited behind it may go on
        self.passed_over.is_due = true;
        match report {
            Ok(written) => {
                self.open_alone(sequence, held.line);
                self.resolve(sequence, 0, Resolved::Written(written.receipt(topic, timestamp)));
            }
            Err(error) if error.may_be_a_neighbours() => {
                self.alone.insert(sequence);
                self.passed_over.add(sequence, held.line);
            }
            Err(error) if is_final(&error) => {
                self.open_alone(sequence, held.line);
                self.refuse(sequence, 0, held.line, error);
            }
            Err(error) => {
                self.passed_over.add(sequence, held.line);
                if is_of_topic(&error) {
                    self.topic_fails(&topic, &error);
                }
            }
        }
    }

    fn let_go(&self, held: &Held) {
        if let Some(with_producer) = &held.with_producer {
            self.parts.lanes.release(with_producer.lane);
        }
    }

    fn open_alone(&mut self, sequence: Sequence, line: Option<Line>) {
        self.window.insert(sequence, OpenChunk::new(vec![(0, State::Refused(line))]));
    }

    /// The line of a record that must not be sent for now.
    pub(super) fn held_line(&self, sequence: Sequence) -> Option<Option<Line>> {
        self.held.get(&sequence).map(|held| held.line)
    }
}
