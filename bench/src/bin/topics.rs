//! Makes and changes topics, counts and reads what is in them.
//!
//! `topics --bootstrap HOST:PORT --topic TOPIC --topics 1 --do DO`, where `DO` is
//!
//! - `create --partitions 3 --config NAME=VALUE,… --broker ID`: without the last, on whichever brokers
//! - `configure --config NAME=VALUE,…`: the topic has these settings then, and no others
//! - `count`: writes the sum of all high watermarks
//! - `values`: writes the values of all records, one a line

use kafka_inlet_bench::{Arguments, Outcome, topic_names};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    collections::HashSet,
    error::Error,
    io::{self, Write},
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
        "create" => create(&config, &topics, &arguments),
        "configure" => configure(&config, &topics, &settings(&arguments)?),
        "count" => {
            println!("{}", sum(&ends(&config, &topics)?)?);
            Ok(())
        }
        "values" => values(&config, &ends(&config, &topics)?),
        other => Err(format!("--do {other}: must be create, configure, count or values").into()),
    }
}

/// Names and values of `--config`.
fn settings(arguments: &Arguments) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let text: String = arguments.optional("config", String::new())?;
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("--config {pair}: must be NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[tokio::main(flavor = "current_thread")]
async fn create(config: &ClientConfig, topics: &[String], arguments: &Arguments) -> Outcome {
    let partitions: usize = arguments.required("partitions")?;
    let (settings, broker) = (settings(arguments)?, [arguments.optional("broker", -1)?]);
    let placed: Vec<&[i32]> = vec![&broker; partitions];
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
    for some in topics.chunks(250) {
        let new = some.iter().map(|topic| {
            let anywhere = broker[0] < 0;
            let replication =
                if anywhere { TopicReplication::Fixed(1) } else { TopicReplication::Variable(&placed) };
            let new = NewTopic::new(topic, partitions as i32, replication);
            settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        for result in admin.create_topics(&new, &options).await? {
            result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
    }
    // made is not yet ready to be written to
    ends(config, topics).map(|_| ())
}

#[tokio::main(flavor = "current_thread")]
async fn configure(config: &ClientConfig, topics: &[String], settings: &[(String, String)]) -> Outcome {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let changed: Vec<AlterConfig<'_>> = topics
        .iter()
        .map(|topic| {
            let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
            settings.iter().fold(change, |change, (name, value)| change.set(name, value))
        })
        .collect();
    for result in admin.alter_configs(&changed, &AdminOptions::new()).await? {
        result.map_err(|(resource, code)| format!("{resource:?}: {code}"))?;
    }
    Ok(())
}

/// Of the records that are there now.
fn values(config: &ClientConfig, ends: &TopicPartitionList) -> Outcome {
    let mut left = sum(ends)?;
    let mut from_the_start = TopicPartitionList::new();
    for end in ends.elements() {
        from_the_start.add_partition_offset(end.topic(), end.partition(), Offset::Offset(0))?;
    }
    let client: BaseConsumer = config.clone().set("group.id", "bench").create()?;
    client.assign(&from_the_start)?;
    let (start, mut output) = (Instant::now(), io::stdout().lock());
    while left > 0 {
        match client.poll(Duration::from_millis(200)) {
            Some(record) => {
                output.write_all(record?.payload().unwrap_or_default())?;
                output.write_all(b"\n")?;
                left -= 1;
            }
            None if start.elapsed() > LIMIT => return Err(format!("{left} records did not come").into()),
            None => {}
        }
    }
    Ok(())
}

/// Asked again while the broker does not know the answer: right after a topic was made, for one.
fn ends(config: &ClientConfig, topics: &[String]) -> Result<TopicPartitionList, Box<dyn Error>> {
    let client: BaseConsumer = config.create()?;
    let start = Instant::now();
    loop {
        match try_ends(&client, topics) {
            Ok(ends) => return Ok(ends),
            Err(error) if start.elapsed() > LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn try_ends(client: &BaseConsumer, topics: &[String]) -> Result<TopicPartitionList, Box<dyn Error>> {
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
    let ends = client.offsets_for_times(ends, LIMIT)?;
    sum(&ends)?;
    Ok(ends)
}

fn sum(ends: &TopicPartitionList) -> Result<i64, Box<dyn Error>> {
    let mut sum = 0;
    for end in ends.elements() {
        end.error()?;
        match end.offset() {
            Offset::Offset(offset) => sum += offset,
            unknown => return Err(format!("{} has its end at {unknown:?}", end.topic()).into()),
        }
    }
    Ok(sum)
}
