//! What the topics of a request are: known already, or asked for.

use super::Pipeline;
use crate::produce::{
    Error, Topic, TopicName, Turn,
    submission::{AskedTopic, Found, Records, Submission, distinct_topics},
};
use futures_util::{StreamExt, stream::FuturesOrdered};
use smallvec::{SmallVec, smallvec};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// How long a topic's partition count is believed when a record asks for one beyond it.
const PARTITIONS_HOLD_FOR: Duration = Duration::from_secs(2);
/// Topics that one request asks for at once: the others of a large one wait here, and not where those of all requests do.
const ASKED_AT_ONCE: usize = 100;
/// Topics of one request that are asked for before those of which others have many.
const ASKED_FIRST: usize = 4;

/// Counts the topics that a request asks for.
#[derive(Default)]
struct Turns(AtomicUsize);

impl Turns {
    fn next(&self) -> Turn {
        if self.0.fetch_add(1, Relaxed) < ASKED_FIRST { Turn::First } else { Turn::Later }
    }
}

impl Pipeline {
    /// The records with their topics, the unknown ones looked up side by side within the deadline.
    pub(super) async fn find_topics(&self, records: Records, deadline: Instant) -> Submission {
        let (asked, topic_of) = distinct_topics(&records);
        let turns = Turns::default();
        let found = match asked.as_slice() {
            [one] => smallvec![self.find_topic(one, &turns, deadline).await],
            many => {
                // no more of them are made than are asked for: a batch may name ten thousand
                let (mut found, mut at_once) = (SmallVec::with_capacity(many.len()), FuturesOrdered::new());
                for asked in many {
                    if at_once.len() == ASKED_AT_ONCE {
                        found.extend(at_once.next().await);
                    }
                    at_once.push_back(self.find_topic(asked, &turns, deadline));
                }
                while let Some(next) = at_once.next().await {
                    found.push(next);
                }
                found
            }
        };
        drop(asked);
        Submission::new(records, found, topic_of)
    }

    /// The records with what is known of their topics; `unknown` is said of those of which nothing is.
    pub(super) fn known_topics(&self, records: Records, unknown: &Error) -> Submission {
        let (asked, topic_of) = distinct_topics(&records);
        let found = asked.iter().map(|asked| {
            let topic = self.producer.known_topic(asked.name).unwrap_or_else(|| Err(unknown.clone()))?;
            Ok(Found { topic, metrics: self.metrics.topic(asked.name.as_str()) })
        });
        let found = found.collect();
        drop(asked);
        Submission::new(records, found, topic_of)
    }

    async fn find_topic(
        &self,
        asked: &AskedTopic<'_>,
        turns: &Turns,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let topic = self.known_or_looked_up(asked.name, asked.highest_partition, turns, deadline).await?;
        Ok(Found { topic, metrics: self.metrics.topic(asked.name.as_str()) })
    }

    async fn known_or_looked_up(
        &self,
        name: &TopicName,
        highest_partition: i32,
        turns: &Turns,
        deadline: Instant,
    ) -> Result<Arc<Topic>, Error> {
        let known = match self.producer.known_topic(name) {
            // a partition that is not known may have been added since: worth a question now and then
            Some(Ok(topic))
                if highest_partition >= topic.partitions
                    && topic.learned.elapsed() >= PARTITIONS_HOLD_FOR =>
            {
                Some(topic)
            }
            Some(known) => return known,
            None => None,
        };
        let look_up = self.producer.look_up_topic(name, turns.next());
        let answer = timeout_at(deadline, look_up).await.unwrap_or_else(|_| {
            Err(Error::BrokerUnavailable { reason: format!("no answer about topic '{name}' in time") })
        });
        match (answer, known) {
            (Err(error), Some(topic)) if !matches!(error, Error::UnknownTopic(_)) => Ok(topic),
            (answer, _) => answer,
        }
    }
}
