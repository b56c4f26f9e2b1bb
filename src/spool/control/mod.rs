//! The operator's hand on records that Kafka refused for ever: to list them, to have them sent again, to drop them
//! (`kafka-inlet spool`); and on what waits for a topic that never will be.
//!
//! The spool's file is locked by the service that uses it, so a running service does it, asked through a Unix domain
//! socket beside the file. Where none runs, the command opens the file itself. The same [`FailedRecords`] do the work
//! either way.

mod client;
mod command;
mod failed;
mod protocol;
mod server;
mod waiting;

pub use command::{CommandError, run};
pub use failed::{FailedRecords, Parts};
pub use protocol::{Answer, Entry, Request, Which};
pub use server::listen;

use std::path::{Path, PathBuf};

/// Where the service that uses this spool can be asked.
pub fn socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}
