//! Names of topics that wait to be asked about: each once, however many requests want the answer.

use super::{metadata::Answer, sync::lock};
use crate::produce::{Error, TopicName, Turn};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// The names, up to a bound for each turn: those of which few requests have many do not keep out the first ones of others.
pub struct LookUps {
    bound: usize,
    waiting: Mutex<Waiting>,
    is_any: Condvar,
}

/// One in so many names that are taken is kept for those whose turn is later, where some wait.
const SHARE_OF_LATER: usize = 5;

#[derive(Default)]
struct Waiting {
    first: Queue,
    later: Queue,
}

#[derive(Default)]
struct Queue {
    /// Names that nobody has taken yet, in the order in which they came.
    untaken: VecDeque<TopicName>,
    /// Who wants the answer, of each name that is untaken or being asked about.
    receivers: HashMap<TopicName, Vec<oneshot::Sender<Answer>>>,
}

impl LookUps {
    /// Beyond `bound` names of a turn others are refused.
    pub fn new(bound: usize) -> Self {
        Self { bound, waiting: Mutex::default(), is_any: Condvar::new() }
    }

    /// Waits for the answer, together with whoever wants it now.
    pub async fn answer(&self, name: &TopicName, turn: Turn) -> Answer {
        let (answer, receiver) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            let Waiting { first, later } = &mut *waiting;
            let queue = match turn {
                Turn::First => first,
                Turn::Later if first.receivers.contains_key(name) => first,
                Turn::Later => later,
            };
            if let Some(others) = queue.receivers.get_mut(name) {
                others.push(answer);
            } else if queue.receivers.len() >= self.bound {
                return Err(Error::TooManyLookUps(name.clone()));
            } else {
                queue.untaken.push_back(name.clone());
                queue.receivers.insert(name.clone(), vec![answer]);
                self.is_any.notify_one();
            }
        }
        let gone = || Err(Error::BrokerUnavailable { reason: "the service is shutting down".into() });
        receiver.await.unwrap_or_else(|_| gone())
    }

    /// Up to `most` names to ask about now, but for those that nobody waits for any more: after a time without answers
    /// that is most of them. Waits up to `patience` for the first.
    pub fn take(&self, most: usize, patience: Duration) -> Vec<TopicName> {
        let waiting = lock(&self.waiting);
        let (mut waiting, _) = self
            .is_any
            .wait_timeout_while(waiting, patience, |Waiting { first, later }| {
                first.untaken.is_empty() && later.untaken.is_empty()
            })
            .unwrap_or_else(PoisonError::into_inner);
        let Waiting { first, later } = &mut *waiting;
        let kept = later.untaken.len().min(most / SHARE_OF_LATER);
        let mut names = Vec::new();
        first.take(most - kept, later, &mut names);
        later.take(most, first, &mut names);
        // the kept places, where nobody wants the later ones any more
        first.take(most, later, &mut names);
        names
    }

    /// Gives the answer to all that wait for it.
    pub fn tell(&self, name: &TopicName, answer: &Answer) {
        let receivers = {
            let mut waiting = lock(&self.waiting);
            [waiting.first.receivers.remove(name), waiting.later.receivers.remove(name)]
        };
        for receiver in receivers.into_iter().flatten().flatten() {
            // one that gave up does not listen
            let _ = receiver.send(answer.clone());
        }
    }
}

impl Queue {
    /// Moves names that somebody wants until there are `most`, each once: it may be in the `other` queue, too.
    fn take(&mut self, most: usize, other: &Self, names: &mut Vec<TopicName>) {
        while names.len() < most
            && let Some(name) = self.untaken.pop_front()
        {
            let is_wanted =
                |receivers: &Vec<oneshot::Sender<_>>| receivers.iter().any(|one| !one.is_closed());
            if !self.receivers.get(&name).is_some_and(is_wanted) {
                self.receivers.remove(&name);
            } else if !(other.receivers.contains_key(&name) && names.contains(&name)) {
                names.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::Topic;
    use futures_util::FutureExt;
    use std::sync::Arc;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    #[test]
    fn a_name_waits_once_and_all_get_its_answer() {
        let (look_ups, t) = (LookUps::new(2), name("t"));
        let mut both =
            [Box::pin(look_ups.answer(&t, Turn::First)), Box::pin(look_ups.answer(&t, Turn::First))];
        assert!(both.iter_mut().all(|answer| answer.now_or_never().is_none()));
        assert_eq!(look_ups.take(10, Duration::ZERO), std::slice::from_ref(&t));
        assert!(look_ups.take(10, Duration::ZERO).is_empty());
        look_ups.tell(&t, &Ok(Arc::new(Topic::new(t.clone(), 3))));
        for answer in both {
            assert_eq!(answer.now_or_never().unwrap().unwrap().partitions, 3);
        }
    }

    #[test]
    fn beyond_the_bound_names_are_refused_and_those_that_wait_are_not() {
        let look_ups = LookUps::new(2);
        let names = ["a", "b", "c"].map(name);
        let mut waiting: Vec<_> =
            names.iter().map(|name| Box::pin(look_ups.answer(name, Turn::First))).collect();
        let answers: Vec<_> = waiting.iter_mut().map(|answer| answer.now_or_never()).collect();
        assert_eq!(answers, [None, None, Some(Err(Error::TooManyLookUps(names[2].clone())))]);
        assert!(look_ups.answer(&names[0], Turn::First).now_or_never().is_none(), "it waits already");
        assert_eq!(look_ups.take(1, Duration::ZERO), names[..1]);
    }

    #[test]
    fn a_name_that_nobody_waits_for_any_more_is_not_asked_about() {
        let (look_ups, t) = (LookUps::new(1), name("t"));
        assert!(look_ups.answer(&t, Turn::First).now_or_never().is_none());
        assert!(look_ups.take(1, Duration::ZERO).is_empty());
        assert!(look_ups.answer(&name("u"), Turn::First).now_or_never().is_none(), "there is room again");
    }

    #[test]
    fn many_names_of_one_request_keep_out_no_first_ones_and_are_not_starved_by_them() {
        let look_ups = LookUps::new(20);
        let all: Vec<_> = (0..41).map(|number| name(&format!("t{number}"))).collect();
        let ask = |name, turn| Box::pin(look_ups.answer(name, turn));
        let mut later: Vec<_> = all[..21].iter().map(|name| ask(name, Turn::Later)).collect();
        let mut first: Vec<_> = all[21..].iter().map(|name| ask(name, Turn::First)).collect();
        let refused = [&mut later, &mut first]
            .map(|answers| answers.iter_mut().filter_map(|answer| answer.now_or_never()).count());
        assert_eq!(refused, [1, 0], "each turn has its own bound");
        let taken = look_ups.take(10, Duration::ZERO);
        assert_eq!(taken, [&all[21..29], &all[..2]].concat());
    }
}
