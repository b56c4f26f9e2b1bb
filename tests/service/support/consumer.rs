//! Reads records back, as any other client of Kafka would.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// How long records that are in Kafka may take to be read.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// A record as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

impl From<&BorrowedMessage<'_>> for ReadRecord {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let owned = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
        };
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map_or(Vec::new(), |headers| headers.iter().map(owned).collect()),
            timestamp: message.timestamp().to_millis().unwrap(),
        }
    }
}

impl ReadRecord {
    /// The value as text; a tombstone fails.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// The only header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(known, _)| known == name);
        let (_, value) = all.next()?;
        assert!(all.next().is_none(), "header '{name}' is repeated");
        Some(std::str::from_utf8(value.as_deref().unwrap()).unwrap())
    }
}

/// The record that a receipt speaks of.
pub fn read_receipt(bootstrap: &str, receipt: &serde_json::Value) -> ReadRecord {
    let consumer = consumer(bootstrap);
    let number = |name: &str| receipt[name].as_i64().unwrap_or_else(|| panic!("no {name} in {receipt}"));
    let (topic, offset) = (receipt["topic"].as_str().unwrap(), number("offset"));
    let mut assignment = TopicPartitionList::new();
    let partition = i32::try_from(number("partition")).unwrap();
    assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.assign(&assignment).unwrap();
    let start = Instant::now();
    while start.elapsed() < READ_LIMIT {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let record = ReadRecord::from(&message.unwrap());
            assert_eq!(record.offset, offset, "there is no such record");
            return record;
        }
    }
    panic!("the record of {receipt} cannot be read");
}

/// Every record of the topic, by partition, then offset.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<ReadRecord> {
    let consumer = consumer(bootstrap);
    let ends = high_watermarks_with(&consumer, topic);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..ends.len() {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let expected = ends.iter().sum::<i64>() as usize;
    let start = Instant::now();
    let mut records = Vec::with_capacity(expected);
    while records.len() < expected {
        assert!(start.elapsed() < READ_LIMIT, "{} of {expected} records of '{topic}'", records.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        records.push(ReadRecord::from(&message.unwrap()));
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// The topic's only record.
pub fn read_one(bootstrap: &str, topic: &str) -> ReadRecord {
    let mut records = read_all(bootstrap, topic);
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

/// The offset after the last record, for each partition.
pub fn high_watermarks(bootstrap: &str, topic: &str) -> Vec<i64> {
    high_watermarks_with(&consumer(bootstrap), topic)
}

/// The offsets of the records that a partition still has.
pub fn offsets(bootstrap: &str, topic: &str, partition: i32) -> Range<i64> {
    let (first, end) =
        consumer(bootstrap).fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap();
    first..end
}

/// How many records the topic has got; the test's topics lose none.
pub fn count(bootstrap: &str, topic: &str) -> i64 {
    high_watermarks(bootstrap, topic).iter().sum()
}

fn high_watermarks_with(consumer: &BaseConsumer, topic: &str) -> Vec<i64> {
    let limit = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), limit).unwrap();
    let partitions = metadata.topics()[0].partitions().len() as i32;
    assert!(partitions > 0, "topic '{topic}' does not exist");
    (0..partitions).map(|partition| consumer.fetch_watermarks(topic, partition, limit).unwrap().1).collect()
}

fn consumer(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.max.ms", "200")
        .set("log_level", "0")
        .create()
        .unwrap()
}
