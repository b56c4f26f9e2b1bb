//! Reads the settings of topics that decide whether a record can be written, in the background.

use super::{admin::Admin, metadata::Topics};
use crate::produce::TopicName;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::mpsc;

/// Topics that are asked about at once.
const AT_ONCE: usize = 50;
/// Names that may wait in each queue.
const MAX_WAITING: usize = 10_000;

/// Takes the names of topics whose settings are to be read. Where too many wait, that is left to the next refresh.
pub struct ToRead {
    first: mpsc::Sender<TopicName>,
    others: mpsc::Sender<TopicName>,
}

/// The names in their order.
pub struct Names {
    first: mpsc::Receiver<TopicName>,
    others: mpsc::Receiver<TopicName>,
}

/// A queue for topics that somebody waits for, before one for all others.
pub fn queues() -> (ToRead, Names) {
    let ((first, first_names), (others, other_names)) =
        (mpsc::channel(MAX_WAITING), mpsc::channel(MAX_WAITING));
    (ToRead { first, others }, Names { first: first_names, others: other_names })
}

impl ToRead {
    /// Before all others.
    pub fn soon(&self, name: &TopicName) {
        let _ = self.first.try_send(name.clone());
    }

    /// When nobody waits.
    pub fn in_turn(&self, name: &TopicName) {
        let _ = self.others.try_send(name.clone());
    }
}

impl Names {
    /// The next ones; none once nobody can add to them.
    async fn next(&mut self) -> Vec<TopicName> {
        let (mut first, mut others) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            _ = self.first.recv_many(&mut first, AT_ONCE) => first,
            _ = self.others.recv_many(&mut others, AT_ONCE) => others,
        }
    }
}

/// Reads the settings of the topics until nobody can ask for that any more. Where the broker does not let us read them, the
/// service's own limit stands.
pub async fn read(admin: Arc<Admin>, topics: Arc<Topics>, mut names: Names) {
    loop {
        let mut names = names.next().await;
        if names.is_empty() {
            return;
        }
        // librdkafka refuses a question that has a name twice
        names.sort_unstable();
        names.dedup();
        let mut configs: HashMap<_, _> = admin.describe_topic_configs(&names).await.into_iter().collect();
        for name in names {
            topics.set_config(&name, configs.remove(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn topics_that_somebody_waits_for_are_read_before_all_others() {
        let (to_read, mut names) = queues();
        let known: Vec<_> =
            (0..AT_ONCE + 1).map(|n| TopicName::parse(&format!("known-{n}")).unwrap()).collect();
        let new = TopicName::parse("new").unwrap();
        known.iter().for_each(|name| to_read.in_turn(name));
        assert_eq!(names.next().await, known[..AT_ONCE]);
        to_read.soon(&new);
        assert_eq!(names.next().await, [new]);
        assert_eq!(names.next().await, known[AT_ONCE..]);
        drop(to_read);
        assert!(names.next().await.is_empty());
    }
}
