//! Topics that cannot be written to for now, since they do not exist or this service has no right to: an operator can
//! mend that. Each is tried with one record, after a delay that doubles from one second to thirty.

use crate::produce::{Sequence, TopicName};
use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    time::{Duration, Instant},
};

pub const FIRST_DELAY: Duration = Duration::from_secs(1);
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Names that are remembered at most: clients choose them.
const NAMES: usize = 10_000;
/// Of the others, so many at once may be asked for.
const OTHERS: usize = 64;

/// Every topic in trouble.
#[derive(Default)]
pub struct Troubles {
    topics: HashMap<TopicName, Trouble>,
    /// Those that Kafka is to be asked for, in turn.
    to_ask: VecDeque<TopicName>,
    others: Others,
    /// Whose turn it is.
    is_others_turn: bool,
}

/// Names for which there is no room: some of all that are met, each as likely as the next, so that each is asked for in
/// the end.
#[derive(Default)]
struct Others {
    met: u64,
    names: Vec<TopicName>,
    dice: RandomState,
}

impl Others {
    fn meet(&mut self, topic: &TopicName) {
        if self.names.contains(topic) {
            return;
        }
        self.met += 1;
        let place = self.dice.hash_one(self.met) % self.met;
        if self.names.len() < OTHERS {
            self.names.push(topic.clone());
        } else if let Some(name) = self.names.get_mut(place as usize) {
            *name = topic.clone();
        }
    }

    fn take(&mut self) -> Option<TopicName> {
        let name = self.names.pop();
        if self.names.is_empty() {
            self.met = 0;
            self.dice = RandomState::new();
        }
        name
    }
}

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
    /// Whether records wait for a topic.
    pub fn has_any(&self) -> bool {
        !self.topics.is_empty()
    }

    pub fn way(&self, topic: &TopicName) -> Way {
        match self.topics.get(topic) {
            None => Way::Free,
            Some(Trouble { stage: Stage::Due, .. }) => Way::AsTrial,
            Some(_) => Way::Blocked,
        }
    }

    /// Kafka is to be asked for the topic, if it is not yet.
    pub fn asks(&mut self, topic: &TopicName) {
        let is_full = self.topics.len() >= NAMES;
        match self.topics.get_mut(topic) {
            Some(Trouble { stage: Stage::Asked, .. }) => return,
            Some(trouble) => trouble.stage = Stage::Asked,
            None if is_full => return self.others.meet(topic),
            None => {
                self.topics.insert(topic.clone(), Trouble { delay: FIRST_DELAY, stage: Stage::Asked });
            }
        }
        self.to_ask.push_back(topic.clone());
    }

    /// Kafka could not be asked, which says nothing of the topic: it has its turn again.
    pub fn asks_again(&mut self, topic: TopicName) {
        match self.topics.get(&topic) {
            Some(Trouble { stage: Stage::Asked, .. }) => self.to_ask.push_back(topic),
            Some(_) => {}
            None => self.others.meet(&topic),
        }
    }

    /// Whether a topic waits for its delay to be over.
    #[cfg(test)]
    pub fn has_failed(&self) -> bool {
        self.topics.values().any(|trouble| matches!(trouble.stage, Stage::Until(_)))
    }

    /// What Kafka is to be asked next.
    pub fn next_to_ask(&mut self) -> Option<TopicName> {
        self.is_others_turn = !self.is_others_turn;
        if self.is_others_turn
            && let Some(name) = self.others.take()
        {
            return Some(name);
        }
        self.to_ask.pop_front().or_else(|| self.others.take())
    }

    /// Whether there may be topics that are not remembered and not asked for, so that they are to be met again.
    pub fn lacks_others(&self) -> bool {
        self.topics.len() >= NAMES && self.others.names.is_empty()
    }

    /// Kafka says that the topic exists. One record will show whether it can be written to, if another has failed.
    pub fn exists(&mut self, topic: &TopicName) {
        match self.topics.get_mut(topic) {
            Some(trouble) if trouble.delay > FIRST_DELAY => trouble.stage = Stage::Due,
            _ => drop(self.topics.remove(topic)),
        }
    }

    /// The topic cannot be written to. Returns the time until it is tried again, `longest` at most, where this is news.
    pub fn fails(&mut self, topic: &TopicName, now: Instant, longest: Duration) -> Option<Duration> {
        if !self.topics.contains_key(topic) {
            if !self.makes_room() {
                return None;
            }
            self.topics.insert(topic.clone(), Trouble { delay: FIRST_DELAY, stage: Stage::Asked });
        }
        let trouble = self.topics.get_mut(topic)?;
        if matches!(trouble.stage, Stage::Until(_)) {
            return None;
        }
        let delay = trouble.delay.min(longest);
        trouble.stage = Stage::Until(now + delay);
        trouble.delay = trouble.delay.max((delay * 2).min(longest));
        Some(delay)
    }

    /// Forgets a topic that waits for its time, where there are too many: it is met again. False where none does.
    fn makes_room(&mut self) -> bool {
        if self.topics.len() < NAMES {
            return true;
        }
        let until = |trouble: &Trouble| matches!(trouble.stage, Stage::Until(_));
        let waits = self.topics.iter().find(|(_, trouble)| until(trouble)).map(|(name, _)| name.clone());
        waits.is_some_and(|name| self.topics.remove(&name).is_some())
    }

    /// This record is tried.
    pub fn tries(&mut self, topic: &TopicName, sequence: Sequence) {
        if let Some(trouble) = self.topics.get_mut(topic) {
            trouble.stage = Stage::Tried(sequence);
        }
    }

    /// The topic was written to. True where it was in trouble.
    pub fn succeeds(&mut self, topic: &TopicName) -> bool {
        !self.topics.is_empty() && self.topics.remove(topic).is_some()
    }

    /// The record has shown nothing of the topic. True where it was the trial, and another one is to be made.
    pub fn tells_nothing(&mut self, topic: &TopicName, sequence: Sequence) -> bool {
        let trial = self.topics.get_mut(topic).filter(|trouble| trouble.stage == Stage::Tried(sequence));
        trial.map(|trouble| trouble.stage = Stage::Due).is_some()
    }

    /// The topics whose delay is over. They are tried from now on.
    pub fn due(&mut self, now: Instant) -> Vec<TopicName> {
        let mut due = Vec::new();
        for (topic, trouble) in &mut self.topics {
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
        assert_eq!(troubles.fails(&topic(), now, LONGEST_DELAY), Some(Duration::from_secs(1)));
        assert_eq!(
            troubles.fails(&topic(), now, LONGEST_DELAY),
            None,
            "others of the same batch are no news"
        );
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        assert!(troubles.due(now).is_empty());
        assert_eq!(troubles.due(now + Duration::from_secs(1)), [topic()]);
        assert_eq!(troubles.way(&topic()), Way::AsTrial);
        troubles.tries(&topic(), Sequence(7));
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        assert_eq!(troubles.fails(&topic(), now, LONGEST_DELAY), Some(Duration::from_secs(2)));
        for _ in 0..10 {
            troubles.due(now + Duration::from_secs(3600));
            troubles.fails(&topic(), now, LONGEST_DELAY);
        }
        troubles.due(now + Duration::from_secs(3600));
        assert_eq!(troubles.fails(&topic(), now, LONGEST_DELAY), Some(LONGEST_DELAY));
    }

    #[test]
    fn a_topic_of_which_nothing_was_said_is_asked_for_again_before_long() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(troubles.fails(&topic(), now, FIRST_DELAY), Some(FIRST_DELAY));
            troubles.asks(&topic());
        }
        troubles.exists(&topic());
        assert_eq!(troubles.way(&topic()), Way::Free);
    }

    #[test]
    fn a_topic_that_is_written_to_again_is_free() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        troubles.fails(&topic(), now, LONGEST_DELAY);
        assert!(troubles.succeeds(&topic()));
        assert_eq!(troubles.way(&topic()), Way::Free);
        assert!(!troubles.succeeds(&topic()));
    }

    #[test]
    fn a_topic_that_was_only_asked_for_is_free_at_once_when_it_exists() {
        let mut troubles = Troubles::default();
        troubles.asks(&topic());
        assert_eq!(troubles.way(&topic()), Way::Blocked);
        troubles.exists(&topic());
        assert_eq!(troubles.way(&topic()), Way::Free);
    }

    #[test]
    fn a_trial_that_failed_for_another_reason_is_made_again() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        troubles.fails(&topic(), now, LONGEST_DELAY);
        troubles.due(now + FIRST_DELAY);
        troubles.tries(&topic(), Sequence(1));
        assert!(!troubles.tells_nothing(&topic(), Sequence(2)));
        assert!(troubles.tells_nothing(&topic(), Sequence(1)));
        assert_eq!(troubles.way(&topic()), Way::AsTrial);
    }

    fn numbered(number: usize) -> TopicName {
        TopicName::parse(&format!("t{number}")).unwrap()
    }

    #[test]
    fn a_topic_that_could_not_be_asked_for_has_its_turn_again_without_delay() {
        let mut troubles = Troubles::default();
        (0..3).for_each(|number| troubles.asks(&numbered(number)));
        troubles.asks(&numbered(1));
        let first = troubles.next_to_ask().unwrap();
        assert_eq!(first, numbered(0));
        troubles.asks_again(first);
        let next: Vec<_> = std::iter::from_fn(|| troubles.next_to_ask()).collect();
        assert_eq!(next, [1, 2, 0].map(numbered));
        troubles.exists(&numbered(0));
        assert_eq!(troubles.way(&numbered(0)), Way::Free);
    }

    #[test]
    fn however_many_names_there_are_few_are_remembered_and_each_is_asked_for() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let count = NAMES + 100;
        let mut asked = std::collections::HashSet::new();
        for _ in 0..2000 {
            if asked.len() == count {
                break;
            }
            for number in (0..count).filter(|number| *number < 5 || *number >= NAMES - 5 || asked.is_empty())
            {
                if troubles.way(&numbered(number)) == Way::Free {
                    troubles.asks(&numbered(number));
                }
            }
            while let Some(name) = troubles.next_to_ask() {
                troubles.fails(&name, now, LONGEST_DELAY);
                asked.insert(name);
            }
            assert!(troubles.topics.len() <= NAMES && troubles.to_ask.len() <= NAMES);
            assert!(troubles.others.names.len() <= OTHERS);
        }
        assert_eq!(asked.len(), count);
    }
}
