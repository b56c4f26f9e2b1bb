//! Where records leave for librdkafka.

use super::{
    cluster::Cluster, error, metadata::Topics, native::topic::NativeTopic, partitioner,
    polled::PolledProducer,
};
use crate::{
    config::Partitioner,
    produce::{Ack, Error, Outgoing, Record, Topic},
};
use std::{sync::Arc, time::Instant};

/// Hands records to a producer.
pub struct Outlet {
    pub cluster: Arc<Cluster>,
    pub topics: Arc<Topics>,
    pub partitioner: Partitioner,
}

impl Outlet {
    /// Sends the records, in order, and returns their number. Each is reported on: here where librdkafka does not take
    /// it, else by the producer.
    pub fn send(&self, producer: &PolledProducer, records: impl Iterator<Item = Outgoing>) -> usize {
        let mut last = None;
        let mut count = 0;
        for outgoing in records {
            count += 1;
            if let Err((error, ack)) = self.send_one(producer, outgoing, &mut last) {
                ack.report(Err(error), Instant::now());
            }
        }
        count
    }

    /// `last` is the topic of the record before, which is mostly this one's as well.
    fn send_one(
        &self,
        producer: &PolledProducer,
        outgoing: Outgoing,
        last: &mut Option<Arc<NativeTopic>>,
    ) -> Result<(), (Error, Ack)> {
        let topic = match outgoing.found() {
            Ok(found) => &found.topic,
            Err(error) => return Err((error, outgoing.into_parts().1)),
        };
        let native = match last {
            Some(native) if *native.name() == topic.name => native,
            _ => match producer.topic(&topic.name) {
                Some(native) => last.insert(native),
                None => return Err((Error::UnknownTopic(topic.name.clone()), outgoing.into_parts().1)),
            },
        };
        let partition = self.partition(topic, outgoing.record());
        native.send(partition, outgoing).map_err(|(code, ack)| {
            if error::doubts_topic(code) {
                self.topics.forget(native.name());
                producer.forget_topic(native.name());
            }
            (error::of_enqueue(code, native.name(), partition), ack)
        })
    }

    fn partition(&self, topic: &Topic, record: &Record) -> Option<i32> {
        record.partition.or_else(|| match self.partitioner {
            Partitioner::Java => None,
            Partitioner::Tenant => partitioner::tenant(record, topic.partitions),
        })
    }
}
