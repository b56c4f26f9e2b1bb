//! The `check` subcommand: what works between here and Kafka, line by line, the first thing an operator runs.
//!
//! Each step returns its lines and decides nothing else; a step that cannot work because an earlier one
//! failed says so instead of failing too.

mod client;
mod connection;
mod line;
mod network;
mod topics;
mod write;

use self::{
    client::CheckClient,
    line::{Line, Verdict},
};
use crate::{config::Config, produce::TopicName};
use std::io::{self, Write};

/// Checks the settings against the Kafka they name and prints what it finds on stdout. With `write` it also
/// produces one marked record to that topic. True where nothing failed.
pub fn run(config: &Config, write: Option<TopicName>) -> bool {
    // a reader that went away takes the verdict with it
    report(config, write.as_ref(), &mut io::stdout().lock()).unwrap_or(false)
}

fn report(config: &Config, write: Option<&TopicName>, out: &mut impl Write) -> io::Result<bool> {
    let mut report = Report { out, ok: true };
    if config.kafka.embedded {
        report.lines([Line::new(
            Verdict::Ok,
            "embedded",
            "Kafka is this process's own mock cluster, which keeps nothing: there is nothing to check",
        )])?;
        return Ok(true);
    }
    check_kafka(config, write, &mut report)?;
    let verdict = if report.ok { "Nothing failed." } else { "Something failed: see the lines with FAIL." };
    writeln!(report.out, "\n{verdict}")?;
    Ok(report.ok)
}

fn check_kafka<W: Write>(
    config: &Config,
    write: Option<&TopicName>,
    report: &mut Report<'_, W>,
) -> io::Result<()> {
    let tried: Vec<Vec<Line>> =
        config.kafka.brokers.iter().map(|bootstrap| network::bootstrap(bootstrap)).collect();
    let reachable = tried.iter().any(|lines| network::is_reachable(lines));
    for lines in tried {
        // one address that answers is enough to find the others
        let tolerable = reachable && !network::is_reachable(&lines);
        report.lines(lines.into_iter().map(|line| if tolerable { line.into_warning() } else { line }))?;
    }
    if !reachable {
        return report.lines([Line::new(
            Verdict::Skipped,
            "TLS, authentication, metadata, topics",
            "not tried, no bootstrap address accepts connections",
        )]);
    }
    let client = match CheckClient::new(config) {
        Ok(client) => client,
        Err(line) => return report.lines([line]),
    };
    let (lines, brokers) = client.connect(&config.kafka);
    report.lines(lines)?;
    if brokers.is_empty() {
        return report.lines([Line::new(
            Verdict::Skipped,
            "brokers, topics",
            "not tried, Kafka does not answer",
        )]);
    }
    let mut reachable = None;
    for broker in &brokers {
        let lines = network::advertised(broker.id, &broker.host, broker.port);
        if network::is_reachable(&lines) {
            reachable = reachable.or(Some(broker.id));
        }
        report.lines(lines)?;
    }
    let Some(broker) = reachable else {
        return report.lines([Line::new(
            Verdict::Skipped,
            "topics",
            "not tried, no broker can be reached at its advertised address",
        )]);
    };
    let (lines, writable) = topics::describe(&client, broker, config, write);
    report.lines(lines)?;
    match write {
        Some(topic) if writable => report.lines([write::one_record(&client, config, topic)]),
        Some(topic) => {
            let subject = format!("write to {topic}");
            report.lines([Line::new(Verdict::Skipped, subject, "not tried, see the topic's own lines")])
        }
        None => Ok(()),
    }
}

/// Prints each line as soon as it is known: some steps take seconds.
struct Report<'a, W> {
    out: &'a mut W,
    ok: bool,
}

impl<W: Write> Report<'_, W> {
    fn lines(&mut self, lines: impl IntoIterator<Item = Line>) -> io::Result<()> {
        for line in lines {
            self.ok &= line.verdict != Verdict::Fail;
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
