//! The records and receipts that are kept on disk (`DELIVERY=durable`): how they are encoded, the store that holds
//! them, and the thread that commits what comes together with one fsync.
//!
//! A record's name is its [`Sequence`](crate::produce::Sequence). Records that come in together lie together, in a
//! *chunk* of contiguous sequences whose key is the first of them. A chunk leaves when all of its records are
//! resolved; what became of them stays, under the same key, as a *row* of receipts.

mod chunks;
pub mod codec;
pub mod control;
mod directory;
mod disk;
mod instances;
mod lanes;
mod lines;
mod pace;
mod refusing;
mod replay;
mod results;
mod room;
pub mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use codec::{Chunk, Corrupt, Encoded};
pub use control::{Request, Which};
pub use disk::{DiskSpool, Parts, StartError};
pub use instances::Instances;
pub use results::{Resolution, Resolved};
pub use store::{
    Change, CommitError, FailedRecord, Failure, Found, OpenError, ReadError, Receipts, Shortage, Store,
};
pub use writer::{Again, Committed, Finished, OnCommit, Settings, Writer};

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
