//! `kafka-inlet spool`: asks the running service, or does it itself where none runs, and prints what was done.

use super::{
    client::{self, Unasked},
    failed::{FailedRecords, Parts},
    protocol::{Answer, Entry, Request},
};
use crate::{
    config::{self, Config},
    lifecycle::supervisor::Supervisor,
    spool::{OpenError, Settings, Store, Writer, lines::Lines},
};
use std::{
    io::{self, Write},
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};
use tokio::sync::mpsc;

/// Answers that wait to be printed.
const AHEAD: usize = 64;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the spool is not used: set DELIVERY=durable and SPOOL_DIR as the service has them")]
    Direct,
    #[error("SPOOL_DIR={0} holds no spool: no service has used it yet")]
    Empty(String),
    #[error("a running service uses SPOOL_DIR={directory}, and it cannot be asked: {why}")]
    Unreachable { directory: String, why: String },
    #[error("{0}")]
    Service(String),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    System(#[from] io::Error),
}

impl CommandError {
    /// True where the arguments or the settings have to be corrected first.
    pub fn is_of_usage(&self) -> bool {
        match self {
            Self::Direct => true,
            Self::Open(error) => error.is_of_settings(),
            Self::Empty(_) | Self::Unreachable { .. } | Self::Service(_) | Self::System(_) => false,
        }
    }
}

/// Does it and prints, a line for each record, what was done on stdout and what was not on stderr. True where all of
/// it was done.
///
/// # Errors
/// Where it was not done to the end. Lines that were printed stand.
pub fn run(config: &Config, request: Request) -> Result<bool, CommandError> {
    let spool = config.spool.as_ref().ok_or(CommandError::Direct)?;
    let mut printer =
        Printer { out: io::stdout().lock(), errors: io::stderr().lock(), told: Told::default() };
    let mut opened: Option<Opened> = None;
    for part in request.parts() {
        if opened.is_none() {
            match client::ask(&spool.directory, &part, |answer| printer.print(answer)) {
                Ok(()) => continue,
                Err(Unasked::Nobody(why)) => opened = Some(Opened::new(config, spool, why)?),
                Err(Unasked::Broken(reason)) => return Err(CommandError::Service(reason)),
                Err(Unasked::Unsaid(error)) => return Err(error.into()),
            }
        }
        if let Some(opened) = &opened {
            opened.perform(part, &mut printer)?;
        }
    }
    Ok(printer.finish(opened.is_some())?)
}

/// The spool of a service that does not run.
struct Opened {
    runtime: tokio::runtime::Runtime,
    failed: FailedRecords,
    writer: Arc<Writer>,
    _supervisor: Supervisor,
}

impl Opened {
    fn new(config: &Config, spool: &config::Spool, why: String) -> Result<Self, CommandError> {
        let directory = spool.directory.display().to_string();
        // opening it would make one, of this user
        if spool.directory.is_dir() && !Store::is_in(&spool.directory) {
            return Err(CommandError::Empty(directory));
        }
        let store = Store::open_for_command(&spool.directory, &config.instance_id, SystemTime::now());
        let store = match store {
            Err(OpenError::Locked(_)) => return Err(CommandError::Unreachable { directory, why }),
            opened => Arc::new(opened?),
        };
        let supervisor = Supervisor::new();
        let writer = Arc::new(Writer::start(
            Arc::clone(&store),
            Arc::new(AtomicU64::new(store.first_sequence().0)),
            Settings {
                max_bytes: spool.max_bytes,
                receipt_max_bytes: spool.receipt_max_bytes,
                receipt_ttl: spool.receipt_ttl,
            },
            Box::new(|_| {}),
            &supervisor.alarm(),
        )?);
        let failed = FailedRecords::new(Parts {
            store,
            writer: Arc::clone(&writer),
            lines: Arc::new(Lines::default()),
            replay: mpsc::unbounded_channel().0,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self { runtime, failed, writer, _supervisor: supervisor })
    }

    fn perform(&self, request: Request, printer: &mut Printer<impl Write, impl Write>) -> io::Result<()> {
        let (sender, mut answers) = mpsc::channel(AHEAD);
        let print = async move {
            while let Some(answer) = answers.recv().await {
                printer.print(answer)?;
            }
            Ok(())
        };
        self.runtime.block_on(async { tokio::join!(self.failed.perform(request, sender), print).1 })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.writer.close();
    }
}

/// Prints answers, and remembers what the last line and the exit code say.
struct Printer<O, E> {
    out: O,
    errors: E,
    told: Told,
}

#[derive(Default)]
struct Told {
    listed: u64,
    retried: u64,
    dropped: u64,
    went_wrong: bool,
    end: Option<(u64, u64)>,
}

impl<O: Write, E: Write> Printer<O, E> {
    fn print(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Failed(entry) => {
                self.told.listed += 1;
                writeln!(self.out, "{}", line(&entry))
            }
            Answer::Retried(entry) => {
                self.told.retried += 1;
                writeln!(self.out, "retried {}", line(&entry))
            }
            Answer::Dropped(entry) => {
                self.told.dropped += 1;
                writeln!(self.out, "dropped {}", line(&entry))
            }
            Answer::Refused { receipt, why } => {
                self.told.went_wrong = true;
                writeln!(self.errors, "{receipt}: {why}")
            }
            Answer::Error(reason) => {
                self.told.went_wrong = true;
                writeln!(self.errors, "{reason}")
            }
            Answer::End { failed, waiting } => {
                self.told.end = Some((failed, waiting));
                Ok(())
            }
        }
    }

    /// The last line; whether all went well.
    fn finish(mut self, by_itself: bool) -> io::Result<bool> {
        let Told { listed, retried, dropped, went_wrong, end } = self.told;
        let mut said = Vec::new();
        if retried > 0 {
            let when = if by_itself { ", by the next start of the service" } else { "" };
            said.push(format!("{} sent again{when}", records(retried, "is", "are")));
        }
        if dropped > 0 {
            said.push(format!("{} dropped", records(dropped, "is", "are")));
        }
        if let Some((failed, waiting)) = end {
            let shown =
                if listed > 0 && listed < failed { format!(" ({listed} shown)") } else { String::new() };
            said.push(format!("failed: {failed}{shown}"));
            said.push(format!("waiting to be sent: {waiting}"));
        }
        if !said.is_empty() {
            writeln!(self.out, "{}", said.join("; "))?;
        }
        self.out.flush()?;
        Ok(!went_wrong && end.is_some())
    }
}

fn records(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 record {one}") } else { format!("{count} records {many}") }
}

/// Receipt, time, topic, key, size, error and reason.
fn line(entry: &Entry) -> String {
    let Entry { receipt, failed_at, topic, key, size, error, reason } = entry;
    let time = jiff::Timestamp::from_millisecond(*failed_at).unwrap_or_default();
    let key = key.as_deref().map_or("without key".into(), |key| format!("key \"{key}\""));
    let reason = reason.replace(char::is_control, " ");
    format!("{receipt} {time:.3} {topic} {key} {size} bytes {error}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(receipt: &str) -> Entry {
        Entry {
            receipt: receipt.into(),
            failed_at: 1_795_228_481_123,
            topic: "orders".into(),
            key: Some("42".into()),
            size: 1_048_700,
            error: "record_too_large".into(),
            reason: "it is\ntoo large".into(),
        }
    }

    /// What is printed on stdout and stderr, and whether all went well.
    fn printed(answers: Vec<Answer>, by_itself: bool) -> (String, String, bool) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let mut printer = Printer { out: &mut out, errors: &mut errors, told: Told::default() };
        answers.into_iter().for_each(|answer| printer.print(answer).unwrap());
        let fine = printer.finish(by_itself).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap(), fine)
    }

    #[test]
    fn a_failed_record_is_one_line() {
        assert_eq!(
            line(&entry("a-00000000000000ff")),
            "a-00000000000000ff 2026-11-21T02:34:41.123Z orders key \"42\" 1048700 bytes record_too_large: it is too large"
        );
        let without_key = Entry { key: None, ..entry("a-00000000000000ff") };
        assert!(line(&without_key).contains(" orders without key 1048700 bytes "));
    }

    #[test]
    fn the_last_line_counts() {
        let end = Answer::End { failed: 7, waiting: 3 };
        let (out, _, fine) = printed(vec![Answer::Failed(entry("a")), end.clone()], false);
        assert!(out.ends_with("\nfailed: 7 (1 shown); waiting to be sent: 3\n") && fine, "{out}");
        let (out, _, _) = printed(vec![Answer::Retried(entry("a")), end.clone()], true);
        assert!(
            out.contains("\n1 record is sent again, by the next start of the service; failed: 7"),
            "{out}"
        );
        let (out, _, _) = printed(vec![Answer::Dropped(entry("a")), Answer::Dropped(entry("b")), end], false);
        assert!(out.contains("\n2 records are dropped; "), "{out}");
    }

    #[test]
    fn what_was_not_done_is_told_apart_and_is_no_success() {
        let end = Answer::End { failed: 0, waiting: 0 };
        let refused = Answer::Refused { receipt: "a-1".into(), why: "it is in Kafka".into() };
        let (_, errors, fine) = printed(vec![refused, end.clone()], false);
        assert_eq!((errors.as_str(), fine), ("a-1: it is in Kafka\n", false));
        assert!(!printed(vec![Answer::Error("the disk".into())], false).2);
        assert!(!printed(vec![], false).2);
        assert!(printed(vec![end], false).2);
    }
}
