//! What the pipeline needs of the spool: the local disk, where records are that Kafka could not take in time. The
//! adapter in `crate::spool` is the real one.

use super::{Error, InstanceId, Receipt, ReceiptId, Record, Report, Sequence, TopicName};
use std::{future::Future, pin::Pin, time::Duration};

/// What the disk says, in a while. Dropping it leaves what it was about as it is: under way.
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A record that was attempted, so that it may be in Kafka under the sequence that it has.
#[derive(Debug, Clone, Copy)]
pub struct Attempted<'a> {
    pub record: &'a Record,
    pub sequence: Sequence,
    /// Where it was sent to.
    pub partition: i32,
    /// The producer still has it: its report will be told by [`Spool::reported`]. Else it had one that says no.
    pub is_held: bool,
}

/// A record that is on the disk, and will be sent to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: ReceiptId,
    pub topic: TopicName,
    /// The record's, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// What became of a record that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiptState {
    /// It waits to be sent, or for Kafka to confirm it.
    Pending,
    Written(Receipt),
    Failed(Failure),
    /// Never stored, or forgotten: `RECEIPT_TTL` and `RECEIPT_MAX_BYTES` bound what is remembered.
    Unknown,
}

/// A record that Kafka refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error's stable name.
    pub error: String,
    pub reason: String,
    /// None where no dead letter topic is set, or it could not be written to.
    pub dead_letter: Option<DeadLetter>,
}

/// Where a refused record is, with headers that say why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub topic: TopicName,
    pub partition: i32,
    /// None where Kafka confirmed it but its offset was lost.
    pub offset: Option<i64>,
}

/// Keeps records on the local disk until Kafka has them, in order for each topic and key. Never blocks.
///
/// Records with the same topic and key stand in one line. While records of a line are in the spool, later ones have to
/// go through it as well.
pub trait Spool: Send + Sync {
    /// Whose records new ones are.
    fn instance(&self) -> &InstanceId;

    /// Whether it gave this id to a record, as far as the name and the sequence tell: the instance may have had another
    /// name then.
    fn gave(&self, id: &ReceiptId) -> bool;

    /// The first of `count` sequences in a row, which no other record has.
    fn next_sequences(&self, count: usize) -> Sequence;

    /// True where the record must not be sent before others that are stored: it has its place in the line then, and has
    /// to be [stored](Spool::store). `partition` is where it would go.
    fn joins_line(&self, record: &Record, partition: i32) -> bool;

    /// Gives the record its place in the line, to be stored whether or not others wait.
    fn join_line(&self, record: &Record);

    /// Stores records that have their place in the line and were not attempted. Resolves once they are on the disk, with
    /// the sequence of the first; the others have those that follow. On an error none is stored. Where they would have to
    /// wait for others, they do so for `patience` at most.
    fn store<'a>(
        &'a self,
        records: &mut dyn ExactSizeIterator<Item = &Record>,
        patience: Duration,
    ) -> SpoolFuture<'a, Result<Sequence, Error>>;

    /// Why so many records that are certainly not in Kafka are refused in place of being stored, where they are: others
    /// wait for too long already. What is [stored](Spool::store) is refused by itself then, what is [kept](Spool::keep)
    /// is not.
    fn refusal(&self, records: usize) -> Option<Error>;

    /// Stores records that were attempted, under the sequences that they have. All or none.
    fn keep<'a>(&'a self, attempted: &[Attempted<'_>]) -> SpoolFuture<'a, Result<(), Error>>;

    /// The delivery report on a record that was [kept](Spool::keep) while the producer had it. Any other is not listened
    /// to.
    fn reported(&self, sequence: Sequence, report: &Report);

    /// What became of the record; waits up to `patience` while it is pending.
    fn receipt(&self, sequence: Sequence, patience: Duration)
    -> SpoolFuture<'_, Result<ReceiptState, Error>>;
}
