//! What is known of the topics of stored records, and what Kafka is asked of them.

use super::{
    Replay, is_of_topic,
    troubles::{FIRST_DELAY, LONGEST_DELAY, Way},
};
use crate::{
    produce::{Error, Topic, TopicName, Turn},
    telemetry::silence::Silence,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Topics that are asked for at once. Requests have the first ones of theirs asked for in the same queue.
const AT_ONCE: usize = 100;
/// How soon it is tried again where too many are being asked for.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often everything is read again for topics that there is no room to remember.
const BETWEEN_OTHERS: Duration = Duration::from_secs(5);

/// When Kafka was asked, and what was said of it.
#[derive(Default)]
pub struct Asking {
    not_before: Option<Instant>,
    others_not_before: Option<Instant>,
    failures: Silence,
    recoveries: Silence,
}

impl Replay {
    /// The topic where it can be written to, or tried.
    pub(super) fn topic(&mut self, name: &TopicName) -> (Option<Arc<Topic>>, Way) {
        let way = self.troubles.way(name);
        if way == Way::Blocked {
            return (None, way);
        }
        match self.parts.producer.known_topic(name) {
            Some(Ok(topic)) => return (Some(topic), way),
            Some(Err(error)) => self.topic_fails(name, &error),
            None => {
                self.troubles.asks(name);
                self.ask_topics();
            }
        }
        (None, Way::Blocked)
    }

    /// Asks Kafka for the topics whose turn it is.
    pub(super) fn ask_topics(&mut self) {
        let now = Instant::now();
        let is_early = self.asking.not_before.is_some_and(|then| now < then);
        if is_early || self.is_stopping || self.parts.producer.unavailable().is_some() {
            return;
        }
        while self.look_ups.len() < AT_ONCE {
            let Some(name) = self.troubles.next_to_ask() else { return };
            let producer = Arc::clone(&self.parts.producer);
            self.look_ups.push(Box::pin(async move {
                let answer = producer.look_up_topic(&name, Turn::First).await;
                (name, answer)
            }));
        }
    }

    pub(super) fn looked_up(&mut self, topic: TopicName, answer: Result<Arc<Topic>, Error>) {
        match answer {
            Ok(_) => {
                self.troubles.exists(&topic);
                self.passed_over.is_due = true;
            }
            Err(Error::TooManyLookUps(_)) => {
                self.troubles.asks_again(topic);
                self.asking.not_before = Some(Instant::now() + AGAIN_AFTER);
            }
            Err(error) => self.topic_fails(&topic, &error),
        }
        self.ask_topics();
    }

    /// Sees to the topics whose time has come. One that Kafka does not know is asked for, without reading anything.
    pub(super) fn take_topics_turn(&mut self, now: Instant) {
        if self.parts.store.records() == 0 {
            return;
        }
        let due = self.troubles.due(now);
        if !due.is_empty() {
            tracing::debug!(topics = due.len(), "trying again to write stored records");
        }
        for topic in due {
            match self.parts.producer.known_topic(&topic) {
                Some(Ok(_)) => self.passed_over.is_due = true,
                Some(Err(_)) | None => self.troubles.asks(&topic),
            }
        }
        if self.troubles.lacks_others() && self.asking.others_not_before.is_none_or(|then| now >= then) {
            self.asking.others_not_before = Some(now + BETWEEN_OTHERS);
            self.passed_over.is_due = true;
        }
        self.ask_topics();
    }

    pub(super) fn topic_fails(&mut self, topic: &TopicName, error: &Error) {
        let now = Instant::now();
        // that Kafka does not answer says nothing of the topic
        let longest = if is_of_topic(error) { LONGEST_DELAY } else { FIRST_DELAY };
        if let Some(delay) = self.troubles.fails(topic, now, longest)
            && let Some(others) = self.asking.failures.breaks(now)
        {
            let (reason, again_in_s) = (error.to_string(), delay.as_secs());
            tracing::warn!(%topic, reason, again_in_s, others, "stored records cannot be written to the topic for now");
        }
    }

    pub(super) fn topic_succeeds(&mut self, topic: &TopicName) {
        if self.troubles.succeeds(topic) {
            self.passed_over.is_due = true;
            if let Some(others) = self.asking.recoveries.breaks(Instant::now()) {
                tracing::info!(%topic, others, "stored records are written to the topic again");
            }
        }
    }
}
