//! What only the operator can put right about a topic: said in the log once a minute, because every request to the
//! topic finds it out again.

use crate::produce::{self, TopicName};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a topic is said.
const INTERVAL: Duration = Duration::from_secs(60);
/// Topics that are said in an interval: clients choose the names, which may be without number.
const MAX_TOPICS: usize = 100;

/// The two faults have no share in each other's limit, or foreign names could hide a configured topic.
#[derive(Default)]
pub struct TopicFaults {
    missing: Said,
    unauthorized: Said,
}

/// When each topic was said last.
#[derive(Default)]
struct Said(Mutex<HashMap<TopicName, Instant>>);

impl TopicFaults {
    /// Logs the error where it is the operator's to put right and was not said of late.
    pub fn log(&self, error: &produce::Error) {
        match error {
            produce::Error::TopicMissing(topic) if self.missing.is_due(topic, Instant::now()) => {
                tracing::error!(
                    %topic,
                    "a configured topic does not exist; create it or set KAFKA_CREATE_TOPICS=true"
                );
            }
            produce::Error::Unauthorized(topic) if self.unauthorized.is_due(topic, Instant::now()) => {
                tracing::warn!(%topic, "Kafka does not let this service write to a topic; grant it WRITE");
            }
            _ => {}
        }
    }
}

impl Said {
    fn is_due(&self, topic: &TopicName, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, last| now.duration_since(*last) < INTERVAL);
        if said.contains_key(topic) || said.len() >= MAX_TOPICS {
            return false;
        }
        said.insert(topic.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    #[test]
    fn a_topic_is_said_once_a_minute() {
        let (said, now) = (Said::default(), Instant::now());
        assert!(said.is_due(&topic("a"), now));
        assert!(!said.is_due(&topic("a"), now + INTERVAL / 2));
        assert!(said.is_due(&topic("b"), now + INTERVAL / 2));
        assert!(said.is_due(&topic("a"), now + INTERVAL));
    }

    #[test]
    fn names_without_number_do_not_flood_the_log() {
        let (said, now) = (Said::default(), Instant::now());
        let topics = (0..1000).filter(|number| said.is_due(&topic(&format!("t{number}")), now)).count();
        assert_eq!(topics, MAX_TOPICS);
    }
}
