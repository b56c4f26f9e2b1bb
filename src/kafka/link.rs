//! The link to Kafka: a probe every second while it is up, jittered backoff while it is down, for ever. It
//! alone turns readiness, and it replaces a producer that had a fatal error.

use super::{cluster::Cluster, configured_topics::Looks, sender::Sender};
use crate::{
    lifecycle::{readiness::Readiness, supervisor::Alarm},
    produce::TopicName,
    telemetry::{metrics::Metrics, silence::Silence},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

const PROBE_EVERY: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Log lines about the same outage back off to this pace; the probes do not.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// A cluster that takes no producer has each new one lost.
const LOST_SILENCE: Duration = Duration::from_secs(30);
/// How often the configured topics are looked for.
const TOPICS_EVERY: Duration = Duration::from_secs(30);
/// How long the first connection is kept back for topics that are being made: whoever waits for `/ready` finds them.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What the link works on.
pub struct Link {
    pub cluster: Arc<Cluster>,
    pub looks: Looks,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    pub alarm: Alarm,
    pub settings: LinkSettings,
}

pub struct LinkSettings {
    /// The topics of the fixed routes, at least one.
    pub topics: Vec<TopicName>,
    pub base_delay: Duration,
    /// Attempts at the first connection; None for ever.
    pub retries: Option<u32>,
}

/// Ends the link's thread when it is dropped.
pub struct LinkHandle {
    is_stopped: Arc<AtomicBool>,
    thread: Thread,
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.is_stopped.store(true, Release);
        self.thread.unpark();
    }
}

impl Link {
    pub fn start(self) -> io::Result<LinkHandle> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stop, cluster) = (Arc::clone(&is_stopped), Arc::clone(&self.cluster));
        let watch = self.alarm.watch("the kafka-link thread");
        let link = thread::Builder::new().name("kafka-link".into()).spawn(move || {
            self.run(&stop);
            watch.finished();
        })?;
        let thread = link.thread().clone();
        cluster.set_link(thread.clone());
        Ok(LinkHandle { is_stopped, thread })
    }

    fn run(self, is_stopped: &AtomicBool) {
        let mut backoff = Backoff::new(self.settings.base_delay);
        let mut outage: Option<Outage> = None;
        let mut failures = 0;
        let mut connected_before = false;
        let mut topics_due = Instant::now();
        let mut lost = Silence::of(LOST_SILENCE);
        loop {
            let pause = match self.probe(&mut lost) {
                Ok(()) => {
                    if !self.readiness.is_connected() || topics_due <= Instant::now() {
                        let end = self.looks.ask();
                        if !connected_before {
                            let _ = end.recv_timeout(FIRST_LOOK);
                        }
                        topics_due = Instant::now() + TOPICS_EVERY;
                    }
                    self.up(outage.take());
                    connected_before = true;
                    backoff.reset();
                    PROBE_EVERY
                }
                Err(reason) => {
                    self.down(&reason, outage.get_or_insert_with(Outage::new));
                    failures += 1;
                    if !connected_before && self.settings.retries.is_some_and(|most| failures >= most) {
                        let reason =
                            format!("no connection in KAFKA_CONNECT_RETRIES={failures} attempts: {reason}");
                        self.alarm.raise("the first connection to Kafka", reason);
                        return;
                    }
                    backoff.next()
                }
            };
            // sooner where a client cannot wait to be replaced
            thread::park_timeout(pause);
            if is_stopped.load(Acquire) {
                return;
            }
        }
    }

    fn probe(&self, lost: &mut Silence) -> Result<(), String> {
        for sender in self.cluster.senders() {
            self.see_to(&sender, lost)?;
        }
        match self.settings.topics.first() {
            Some(topic) => self.cluster.probe(topic),
            None => Err("no topic is configured".into()),
        }
    }

    /// Replaces the sender's client where it can send no more, or not for much longer.
    fn see_to(&self, sender: &Sender, lost: &mut Silence) -> Result<(), String> {
        if let Some(reason) = sender.fatal_error() {
            if let Some(others) = lost.breaks(Instant::now()) {
                tracing::error!(reason, others, "the producer is lost and will be replaced");
            }
            sender.replace(true).map_err(|error| format!("{reason}; no new producer: {error}"))?;
            return Err(reason);
        }
        if let Some((epoch, is_refused)) = sender.spent_epoch() {
            let reason = if is_refused {
                "brokers refuse the producer's epoch"
            } else {
                "half of the producer's epochs are used up"
            };
            tracing::warn!(epoch, "{reason}, by batches that were refused; another producer takes its place");
            if is_refused {
                self.readiness.link_down(reason);
            }
            sender.replace(false).map_err(|error| format!("{reason}; no new producer: {error}"))?;
        }
        Ok(())
    }

    fn up(&self, outage: Option<Outage>) {
        self.metrics.set_connected(true);
        if self.readiness.link_up() {
            let after_seconds = outage.map(|outage| outage.since.elapsed().as_secs_f32());
            tracing::info!(after_seconds, "connected to Kafka");
        }
    }

    fn down(&self, reason: &str, outage: &mut Outage) {
        self.metrics.set_connected(false);
        self.readiness.link_down(reason);
        if outage.is_worth_a_line() {
            let for_seconds = outage.since.elapsed().as_secs();
            tracing::warn!(reason, for_seconds, "no connection to Kafka; trying again until there is one");
        }
    }
}

/// One time without a link.
struct Outage {
    since: Instant,
    next_line: Instant,
    silence: Duration,
}

impl Outage {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, next_line: now, silence: Duration::from_secs(2) }
    }

    fn is_worth_a_line(&mut self) -> bool {
        let due = self.next_line <= Instant::now();
        if due {
            self.next_line = Instant::now() + self.silence;
            self.silence = (self.silence * 2).min(LONGEST_SILENCE);
        }
        due
    }
}

/// Doubling delays with jitter: each is between half of its step and the whole of it.
struct Backoff {
    base: Duration,
    step: Duration,
}

impl Backoff {
    fn new(base: Duration) -> Self {
        let base = base.min(LONGEST_BACKOFF);
        Self { base, step: base }
    }

    fn reset(&mut self) {
        self.step = self.base;
    }

    fn next(&mut self) -> Duration {
        let delay = self.step.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.step = (self.step * 2).min(LONGEST_BACKOFF);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_to_two_seconds_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(500));
        for step in [500, 1000, 2000, 2000] {
            let delay = backoff.next().as_millis();
            assert!((step / 2..=step).contains(&delay), "{delay} ms for the step of {step} ms");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(500));
    }

    #[test]
    fn an_outage_is_logged_at_once_and_then_ever_more_rarely() {
        let mut outage = Outage::new();
        assert!(outage.is_worth_a_line());
        assert!(!outage.is_worth_a_line());
        assert_eq!(outage.silence, Duration::from_secs(4));
    }
}
