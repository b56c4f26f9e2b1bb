//! Topics that cannot be written to for now, since they do not exist or this service has no right to: an operator can
//! mend that. Each is tried with one record, after a delay that doubles from one second to thirty.

use crate::produce::{Sequence, TopicName};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Every topic in trouble.
#[derive(Default)]
pub struct Troubles(HashMap<TopicName, Trouble>);

struct Trouble {
    delay: Duration,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Kafka is being asked.
    Asked,
    Until(Instant),
    /// It is time to try one record.
    Due,
    /// This one is under way.
    Tried(Sequence),
}

/// Whether a record may be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    Free,
    /// As the one that shows whether the trouble is over.
    AsTrial,
    Blocked,
}

impl Troubles {
    pub fn way(&self, topic: &TopicName) -> Way {
        match self.0.get(topic) {
            None => Way::Free,
            Some(Trouble { stage: Stage::Due, .. }) => Way::AsTrial,
            Some(_) => Way::Blocked,
        }
    }

    /// The topic is asked for; False where it is already.
    pub fn asks(&mut self, topic: &TopicName) -> bool {
        match self.0.get_mut(topic) {
            Some(Trouble { stage: Stage::Asked, .. }) => false,
            Some(trouble) => {
                trouble.stage = Stage::Asked;
                true
            }
            None => {
                self.0.insert(topic.clone(), Trouble { delay: FIRST_DELAY, stage: Stage::Asked });
                true
            }
        }
    }

    /// Kafka says that the topic exists. One record will show whether it can be written to, if another has failed.
    pub fn exists(&mut self, topic: &TopicName) {
        match self.0.get_mut(topic) {
            Some(trouble) if trouble.delay > FIRST_DELAY => trouble.stage = Stage::Due,
            _ => drop(self.0.remove(topic)),
        }
    }

    /// The topic cannot be written to. Returns the time until it is tried again, where this is news.
    pub fn fails(&mut self, topic: &TopicName, now: Instant) -> Option<Duration> {
        let new = || Trouble { delay: FIRST_DELAY, stage: Stage::Asked };
        let trouble = self.0.entry(topic.clone()).or_insert_with(new);
        if matches!(trouble.stage, Stage::Until(_)) {
            return None;
        }
        let delay = trouble.delay;
        trouble.stage = Stage::Until(now + delay);
        trouble.delay = (delay * 2).min(LONGEST_DELAY);
        Some(delay)
    }

    /// This record is tried.
    pub fn tries(&mut self, topic: &TopicName, sequence: Sequence) {
        if let Some(trouble) = self.0.get_mut(topic) {
            trouble.stage = Stage::Tried(sequence);
        }
    }

    /// The topic was written to. True where it was in trouble.
    pub fn succeeds(&mut self, topic: &TopicName) -> bool {
        !self.0.is_empty() && self.0.remove(topic).is_some()
    }

    /// The record has shown nothing of the topic. True where it was the trial, and another one is to be made.
    pub fn tells_nothing(&mut self, topic: &TopicName, sequence: Sequence) -> bool {
        let trial = self.0.get_mut(topic).filter(|trouble| trouble.stage == Stage::Tried(sequence));
        trial.map(|trouble| trouble.stage = Stage::Due).is_some()
    }

    /// The topics whose delay is over. They are tried from now on.
    pub fn due(&mut self, now: Instant) -> Vec<TopicName> {
        let mut due = Vec::new();
        for (topic, trouble) in &mut self.0 {
            if matches!(trouble.stage, Stage::Until(until) if until <= now) {
                trouble.stage = Stage::Due;
                due.push(topic.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicName {
        TopicName::parse("t").unwrap()
    }

    #[test]
    fn a_topic_in_trouble_is_tried_with_one_record_after_a_doubling_delay() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        assert_eq!(troubles.way(&topic()), Way::Free);
        assert_eq!(troubles.fails(&topic(), now), Some(Duration::from_secs(1)));
        assert_eq!(troubles.fails(&topic(), now), None, "others of the same batch are no news");
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        assert!(troubles.due(now).is_empty());
        assert_eq!(troubles.due(now + Duration::from_secs(1)), [topic()]);
        assert_eq!(troubles.way(&topic()), Way::AsTrial);
        troubles.tries(&topic(), Sequence(7));
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        assert_eq!(troubles.fails(&topic(), now), Some(Duration::from_secs(2)));
        for _ in 0..10 {
            troubles.due(now + Duration::from_secs(3600));
            troubles.fails(&topic(), now);
        }
        troubles.due(now + Duration::from_secs(3600));
        assert_eq!(troubles.fails(&topic(), now), Some(LONGEST_DELAY));
    }

    #[test]
    fn a_topic_that_is_written_to_again_is_free() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        troubles.fails(&topic(), now);
        assert!(troubles.succeeds(&topic()));
        assert_eq!(troubles.way(&topic()), Way::Free);
        assert!(!troubles.succeeds(&topic()));
    }

    #[test]
    fn a_topic_that_was_only_asked_for_is_free_at_once_when_it_exists() {
        let mut troubles = Troubles::default();
        assert!(troubles.asks(&topic()));
        assert!(!troubles.asks(&topic()));
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        troubles.exists(&topic());
        assert_eq!(troubles.way(&topic()), Way::Free);
    }

    #[test]
    fn a_trial_that_failed_for_another_reason_is_made_again() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        troubles.fails(&topic(), now);
        troubles.due(now + FIRST_DELAY);
        troubles.tries(&topic(), Sequence(1));
        assert!(!troubles.tells_nothing(&topic(), Sequence(2)));
        assert!(troubles.tells_nothing(&topic(), Sequence(1)));
        assert_eq!(troubles.way(&topic()), Way::AsTrial);
    }
}
