//! The records of one request, with the topics that they go to.

use super::{Error, Record, Topic, TopicName};
use crate::telemetry::metrics::TopicMetrics;
use smallvec::SmallVec;
use std::{collections::HashMap, sync::Arc};

/// Records that are submitted together; one alone takes no allocation.
pub type Records = SmallVec<[Record; 1]>;

/// Shared by the request and by whoever sends its records.
pub struct Submission {
    pub records: Records,
    pub destinations: Arc<Destinations>,
}

/// Where each record of a submission goes. It outlives the records, until their last delivery report.
pub struct Destinations {
    topics: SmallVec<[Result<Found, Error>; 1]>,
    /// The index in `topics` by the record's index; empty where there is one topic.
    topic_of: Vec<usize>,
}

/// A topic that can be written to, with its share of the metrics.
#[derive(Clone)]
pub struct Found {
    pub topic: Arc<Topic>,
    pub metrics: Arc<TopicMetrics>,
}

/// A topic that records name.
pub struct AskedTopic<'a> {
    pub name: &'a TopicName,
    /// The highest partition that they name, −1 where they name none.
    pub highest_partition: i32,
}

impl Submission {
    /// `topics` and `topic_of` belong to the [`distinct_topics`] of the records: what was found of each topic, or why
    /// it cannot be written to.
    pub fn new(records: Records, topics: SmallVec<[Result<Found, Error>; 1]>, topic_of: Vec<usize>) -> Self {
        Self { records, destinations: Arc::new(Destinations { topics, topic_of }) }
    }

    /// All records go to the topic of the first, of which nothing but its name is known.
    #[cfg(test)]
    pub fn to_one_topic(records: Records) -> Self {
        let name =
            records.first().map_or_else(|| TopicName::parse("t").unwrap(), |record| record.topic.clone());
        let metrics = crate::telemetry::metrics::Metrics::for_tests().topic(name.as_str());
        let topic = Arc::new(Topic::new(name, 3));
        Self::new(records, smallvec::smallvec![Ok(Found { topic, metrics })], Vec::new())
    }
}

impl Destinations {
    /// Where the record at the index goes.
    pub fn of(&self, record: usize) -> Result<&Found, Error> {
        let topic = self.topic_of.get(record).copied().unwrap_or(0);
        self.topics[topic].as_ref().map_err(Error::clone)
    }
}

/// The topics that the records name, each once, and by the record's index which of them it names: nothing where all
/// name the same.
pub fn distinct_topics(records: &[Record]) -> (SmallVec<[AskedTopic<'_>; 1]>, Vec<usize>) {
    let mut asked: SmallVec<[AskedTopic<'_>; 1]> = SmallVec::new();
    let mut topic_of = Vec::new();
    let mut by_name = HashMap::new();
    let mut last = 0;
    for (index, record) in records.iter().enumerate() {
        if asked.get(last).is_none_or(|asked| *asked.name != record.topic) {
            if index > 0 && topic_of.is_empty() {
                // the second topic: all records so far are of the first
                topic_of = vec![0; index];
                by_name.insert(asked[0].name, 0);
            }
            last = if index == 0 { 0 } else { *by_name.entry(&record.topic).or_insert(asked.len()) };
            if last == asked.len() {
                asked.push(AskedTopic { name: &record.topic, highest_partition: -1 });
            }
        }
        if !topic_of.is_empty() {
            topic_of.push(last);
        }
        let highest = &mut asked[last].highest_partition;
        *highest = record.partition.unwrap_or(-1).max(*highest);
    }
    (asked, topic_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::fake::record;

    fn distinct(names: &[&str]) -> (Vec<String>, Vec<usize>) {
        let records: Vec<_> = names.iter().map(|name| record(name)).collect();
        let (asked, topic_of) = distinct_topics(&records);
        (asked.iter().map(|asked| asked.name.to_string()).collect(), topic_of)
    }

    #[test]
    fn one_topic_is_every_records() {
        assert_eq!(distinct(&["a", "a", "a"]), (vec!["a".into()], vec![]));
    }

    #[test]
    fn each_topic_is_there_once_in_the_order_of_its_first_record() {
        let (asked, topic_of) = distinct(&["b", "b", "a", "b", "c", "a"]);
        assert_eq!(asked, ["b", "a", "c"]);
        assert_eq!(topic_of, [0, 0, 1, 0, 2, 1]);
    }

    #[test]
    fn the_highest_partition_that_is_named_counts() {
        let records = [Some(1), None, Some(7), Some(3)].map(|partition| Record { partition, ..record("a") });
        assert_eq!(distinct_topics(&records).0[0].highest_partition, 7);
        assert_eq!(distinct_topics(&[record("a")]).0[0].highest_partition, -1);
    }
}
