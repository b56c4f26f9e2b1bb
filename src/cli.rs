//! Flags and subcommands.

use crate::{
    config::Overrides,
    produce::{ReceiptId, TopicName},
    spool::{Request, Which},
};
use lexopt::{
    Arg::{Long, Short, Value},
    ValueExt,
};
use std::ffi::OsString;

/// What `--help` prints.
pub const HELP: &str = "\
HTTP in, Kafka out: POST JSON, and the 2xx means that the record is acknowledged by Kafka.

Usage: kafka-inlet [--embedded]
       kafka-inlet check [--write TOPIC]
       kafka-inlet health
       kafka-inlet spool list [--limit N]
       kafka-inlet spool retry RECEIPT... | --all
       kafka-inlet spool drop RECEIPT... | --all | --topic NAME

Without a subcommand it serves until SIGTERM or SIGINT.

Subcommands:
  check             say, line by line, what works between here and Kafka with the current settings
    --write TOPIC   also write one marked record to this topic
  health            ask the service that runs here with the same settings for its /health
  spool             see to stored records that Kafka refused for ever (DELIVERY=durable), with the settings of the
                    service, which may run or not
    list            print them, the oldest first; --limit N: only so many
    retry           send these or all of them again
    drop            forget these or all of them, and print what is dropped
    drop --topic    forget what waits for this topic, which Kafka has not refused, and print it

Flags:
      --embedded    run a Kafka inside this process, for a trial; it keeps the newest 5 MiB of each partition, in
                    memory, until it ends
  -V, --version     print the version
  -h, --help        print this

Settings are environment variables, or lines of the file .env in the working directory; .env.example lists them
all, README.md explains them.

Exit codes:
  0   all is well
  1   check or health failed, spool could not do all of it, or the service could not run
  64  an unknown flag or a faulty setting
";

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Serve(Overrides),
    /// Says what works between here and Kafka; with a topic also writes one record to it.
    Check {
        write: Option<TopicName>,
    },
    /// Asks the running service for its `/health`.
    Health,
    /// Sees to failed records of the spool.
    Spool(Request),
    Version,
    Help,
}

/// Arguments that make no sense; the text says which.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see kafka-inlet --help")]
pub struct UsageError(String);

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

/// Takes the arguments without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut overrides = Overrides::default();
    let mut subcommand: Option<Command> = None;
    while let Some(argument) = parser.next()? {
        match (argument, &mut subcommand) {
            (Short('h') | Long("help"), _) => return Ok(Command::Help),
            (Short('V') | Long("version"), _) => return Ok(Command::Version),
            (Long("embedded"), None) => overrides.embedded = true,
            (Long("write"), Some(Command::Check { write })) => {
                *write = Some(topic("--write", parser.value()?)?);
            }
            (Value(name), None) if name == "check" => subcommand = Some(Command::Check { write: None }),
            (Value(name), None) if name == "health" => subcommand = Some(Command::Health),
            (Value(name), None) if name == "spool" => subcommand = Some(spool(&mut parser)?),
            (argument, _) => return Err(argument.unexpected().into()),
        }
    }
    match subcommand {
        Some(_) if overrides.embedded => {
            Err(UsageError("--embedded serves, and goes with no subcommand".into()))
        }
        Some(command) => Ok(command),
        None => Ok(Command::Serve(overrides)),
    }
}

/// What follows `spool`.
fn spool(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let missing = || UsageError("spool: say list, retry or drop".into());
    let action = match parser.next()?.ok_or_else(missing)? {
        Short('h') | Long("help") => return Ok(Command::Help),
        Value(action) => action.string()?,
        argument => return Err(argument.unexpected().into()),
    };
    let (mut limit, mut all, mut waiting, mut receipts) = (None, false, None, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("limit") if action == "list" => limit = Some(count(parser.value()?)?),
            Long("all") if action != "list" => all = true,
            Long("topic") if action == "drop" => waiting = Some(topic("--topic", parser.value()?)?),
            Value(text) if action != "list" => receipts.push(receipt(text)?),
            argument => return Err(argument.unexpected().into()),
        }
    }
    if let Some(topic) = waiting {
        return match (all, receipts.is_empty()) {
            (false, true) => Ok(Command::Spool(Request::DropWaiting(topic))),
            _ => Err(UsageError("spool drop: either --topic, or receipts, or --all".into())),
        };
    }
    let which = || match (all, receipts.is_empty()) {
        (true, true) => Ok(Which::All),
        (false, false) => Ok(Which::These(receipts)),
        (true, false) => Err(UsageError(format!("spool {action}: either receipts or --all"))),
        (false, true) => Err(UsageError(format!("spool {action}: name receipts, or say --all"))),
    };
    match action.as_str() {
        "list" => Ok(Command::Spool(Request::List { limit })),
        "retry" => which().map(Request::Retry).map(Command::Spool),
        "drop" => which().map(Request::Drop).map(Command::Spool),
        other => Err(UsageError(format!("spool {other:?}: say list, retry or drop"))),
    }
}

fn count(value: OsString) -> Result<u64, UsageError> {
    let text = value.string()?;
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| UsageError(format!("--limit {text:?}: it must be a number of records, at least 1")))
}

fn receipt(value: OsString) -> Result<ReceiptId, UsageError> {
    let text = value.string()?;
    let wrong = || UsageError(format!("{text:?} is no receipt: they look like inlet-0-18a3f2b1c4d5e6f7"));
    ReceiptId::parse(&text).ok_or_else(wrong)
}

fn topic(flag: &str, value: OsString) -> Result<TopicName, UsageError> {
    let name = value.string()?;
    TopicName::parse(&name).map_err(|error| UsageError(format!("{flag} {name:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn it_serves_unless_told_otherwise() {
        assert_eq!(parsed(&[]), Ok(Command::Serve(Overrides { embedded: false })));
        assert_eq!(parsed(&["--embedded"]), Ok(Command::Serve(Overrides { embedded: true })));
    }

    #[test]
    fn check_may_write_to_a_topic() {
        let topic = TopicName::parse("rtmh.logs").expect("a topic");
        assert_eq!(parsed(&["check"]), Ok(Command::Check { write: None }));
        assert_eq!(parsed(&["check", "--write", "rtmh.logs"]), Ok(Command::Check { write: Some(topic) }));
    }

    #[test]
    fn spool_lists_retries_and_drops() {
        let id = "inlet-0-18a3f2b1c4d5e6f7";
        let these = || Which::These(vec![ReceiptId::parse(id).expect("a receipt")]);
        for (arguments, request) in [
            (&["list"][..], Request::List { limit: None }),
            (&["list", "--limit", "20"], Request::List { limit: Some(20) }),
            (&["retry", id], Request::Retry(these())),
            (&["retry", "--all"], Request::Retry(Which::All)),
            (&["drop", id], Request::Drop(these())),
            (&["drop", "--all"], Request::Drop(Which::All)),
            (&["drop", "--topic", "t"], Request::DropWaiting(TopicName::parse("t").expect("a topic"))),
        ] {
            let parsed = parsed(&[&["spool"], arguments].concat());
            assert_eq!(parsed, Ok(Command::Spool(request)), "{arguments:?}");
        }
        assert_eq!(parsed(&["spool", "--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["spool", "drop", "-h"]), Ok(Command::Help));
    }

    #[test]
    fn health_version_and_help_are_known() {
        assert_eq!(parsed(&["health"]), Ok(Command::Health));
        assert_eq!(parsed(&["--version"]), Ok(Command::Version));
        assert_eq!(parsed(&["-V"]), Ok(Command::Version));
        assert_eq!(parsed(&["-h"]), Ok(Command::Help));
        assert_eq!(parsed(&["check", "--help"]), Ok(Command::Help));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (arguments, named) in [
            (&["--port"][..], "--port"),
            (&["serve"], "serve"),
            (&["--write", "t"], "--write"),
            (&["check", "--write"], "--write"),
            (&["check", "--write", "a b"], "a b"),
            (&["check", "--embedded"], "--embedded"),
            (&["--embedded", "check"], "--embedded"),
            (&["--embedded=yes"], "--embedded"),
            (&["health", "now"], "now"),
            (&["spool"], "list, retry or drop"),
            (&["spool", "purge"], "purge"),
            (&["spool", "list", "all"], "all"),
            (&["spool", "list", "--all"], "--all"),
            (&["spool", "list", "--limit", "0"], "0"),
            (&["spool", "retry"], "--all"),
            (&["spool", "drop", "a-ff"], "a-ff"),
            (&["spool", "drop", "--limit", "1"], "--limit"),
            (&["spool", "drop", "--all", "inlet-0-18a3f2b1c4d5e6f7"], "--all"),
            (&["spool", "drop", "--all", "--topic", "t"], "--topic"),
            (&["spool", "drop", "--topic", "a b"], "a b"),
            (&["spool", "retry", "--topic", "t"], "--topic"),
            (&["--embedded", "spool", "list"], "--embedded"),
        ] {
            let text = parsed(arguments).expect_err("a usage error");
            assert!(
                text.contains(named) && text.ends_with("see kafka-inlet --help"),
                "{arguments:?}: {text}"
            );
        }
    }
}
