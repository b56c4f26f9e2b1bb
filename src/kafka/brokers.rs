//! Which broker to ask.

use super::sync::lock;
use std::sync::Mutex;

/// Ids of the cluster's brokers: the one to ask first in front.
#[derive(Debug, Default)]
pub struct Brokers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: Vec<i32>,
    answered: Option<i32>,
}

impl Brokers {
    /// Takes note of `all` brokers, as the one that `answers` says. It is asked first, unless that is no news: then it may
    /// have been silent to others.
    pub fn learn(&self, answers: i32, all: &[i32]) {
        let mut known = lock(&self.0);
        known.ids.retain(|id| all.contains(id));
        let new: Vec<_> = all.iter().filter(|id| !known.ids.contains(id)).copied().collect();
        known.ids.extend(new);
        if known.answered.replace(answers) != Some(answers)
            && let Some(place) = known.ids.iter().position(|&id| id == answers)
        {
            known.ids[..=place].rotate_right(1);
        }
    }

    /// Up to `most`, in the order in which to ask them.
    pub fn first(&self, most: usize) -> Vec<i32> {
        lock(&self.0).ids.iter().take(most).copied().collect()
    }

    /// It did not answer: it is asked last from now on.
    pub fn is_silent(&self, broker: i32) {
        let mut known = lock(&self.0);
        if let Some(place) = known.ids.iter().position(|&id| id == broker) {
            known.ids[place..].rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_that_answers_is_asked_first_and_a_silent_one_last() {
        let brokers = Brokers::default();
        assert!(brokers.first(3).is_empty());
        brokers.learn(2, &[1, 2, 3, 4]);
        assert_eq!(brokers.first(3), [2, 1, 3]);
        brokers.is_silent(2);
        brokers.learn(2, &[1, 2, 3, 4]);
        assert_eq!(brokers.first(4), [1, 3, 4, 2], "it answers the probe, and not these questions");
        brokers.learn(3, &[2, 3, 5]);
        assert_eq!(brokers.first(4), [3, 2, 5], "brokers go and come");
    }
}
