//! Makes topics and counts what is in them.
//!
//! `topics --bootstrap HOST:PORT --topic TOPIC --topics 1 --do create --partitions 3`
//! `topics --bootstrap HOST:PORT --topic TOPIC --topics 1 --do count` writes the sum of all high watermarks.

use kafka_inlet_bench::{Arguments, Outcome, topic_names};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    collections::HashSet,
    error::Error,
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", arguments.required::<String>("bootstrap")?);
    // a broker that is not up yet is tried again soon, and without a line a try
    config.set("reconnect.backoff.max.ms", "200").set("log_level", "0");
    let topics = topic_names(&arguments.required::<String>("topic")?, arguments.optional("topics", 1)?);
    match arguments.required::<String>("do")?.as_str() {
        "create" => create(&config, &topics, arguments.required("partitions")?),
        "count" => {
            println!("{}", count(&config, &topics)?);
            Ok(())
        }
        other => Err(format!("--do {other}: must be create or count").into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn create(config: &ClientConfig, topics: &[String], partitions: i32) -> Outcome {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
    for some in topics.chunks(250) {
        let new: Vec<NewTopic<'_>> =
            some.iter().map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(1))).collect();
        for result in admin.create_topics(&new, &options).await? {
            result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
    }
    // made is not yet ready to be written to
    count(config, topics).map(|_| ())
}

/// Asked again while the broker does not know the answer: right after a topic was made, for one.
fn count(config: &ClientConfig, topics: &[String]) -> Result<i64, Box<dyn Error>> {
    let client: BaseConsumer = config.create()?;
    let start = Instant::now();
    loop {
        match try_count(&client, topics) {
            Ok(count) => return Ok(count),
            Err(error) if start.elapsed() > LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn try_count(client: &BaseConsumer, topics: &[String]) -> Result<i64, Box<dyn Error>> {
    let mut ends = TopicPartitionList::new();
    let only = topics.first().filter(|_| topics.len() == 1);
    let metadata = client.fetch_metadata(only.map(String::as_str), LIMIT)?;
    let wanted: HashSet<&str> = topics.iter().map(String::as_str).collect();
    for topic in metadata.topics().iter().filter(|topic| wanted.contains(topic.name())) {
        for partition in topic.partitions() {
            // in a question for offsets by time, the end of the partition (ListOffsets, KIP-79)
            ends.add_partition_offset(topic.name(), partition.id(), Offset::End)?;
        }
    }
    if ends.count() < topics.len() {
        return Err("not all topics are known yet".into());
    }
    let mut sum = 0;
    for end in client.offsets_for_times(ends, LIMIT)?.elements() {
        end.error()?;
        match end.offset() {
            Offset::Offset(offset) => sum += offset,
            unknown => return Err(format!("{} has its end at {unknown:?}", end.topic()).into()),
        }
    }
    Ok(sum)
}
