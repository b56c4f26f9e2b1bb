//! The configured topics: whether they exist, have leaders, may be written to, and how many copies a 2xx means.

use super::{Line, Verdict, client::CheckClient};
use crate::{
    config::Config,
    kafka::{
        admin::Admin,
        client,
        native::describe::{Described, TopicDescription, describe_topics},
    },
    produce::TopicName,
};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::HashMap;
use tokio::runtime::Builder;

/// The lines on each configured topic and on `write`, as the broker with the id `broker` tells, and whether a
/// record may be tried on the latter.
pub(super) fn describe(
    client: &CheckClient,
    broker: i32,
    config: &Config,
    write: Option<&TopicName>,
) -> (Vec<Line>, bool) {
    let mut topics = config.topics.distinct();
    topics.extend(write.filter(|topic| !topics.contains(topic)).cloned());
    let descriptions = match describe_topics(client.client(), broker, &topics, client.timeout) {
        Ok(descriptions) => descriptions,
        Err(error) => {
            let finding = format!("the broker does not describe them: {error}");
            return (vec![Line::new(Verdict::Fail, "topics", finding)], false);
        }
    };
    let in_sync = min_insync_replicas(&topics, config);
    let mut writable = false;
    let mut lines = Vec::new();
    for description in &descriptions {
        let topic_lines = topic_lines(description, in_sync.get(&description.name).copied(), config);
        let failed = topic_lines.iter().any(|line| line.verdict == Verdict::Fail);
        writable |= !failed && write.is_some_and(|topic| topic.as_str() == description.name);
        lines.extend(topic_lines);
    }
    (lines, writable)
}

/// The setting of each topic that has it and lets this service read it, by the topic's name.
fn min_insync_replicas(topics: &[TopicName], config: &Config) -> HashMap<String, usize> {
    let Ok(runtime) = Builder::new_current_thread().build() else { return HashMap::new() };
    let admin = Admin::new(&client::admin(&config.kafka));
    let read = runtime.block_on(admin.min_insync_replicas(topics));
    read.into_iter().map(|(topic, count)| (topic.as_str().to_owned(), count)).collect()
}

fn topic_lines(
    description: &TopicDescription,
    min_insync_replicas: Option<usize>,
    config: &Config,
) -> Vec<Line> {
    let name = &description.name;
    let subject = format!("topic {name}");
    let line = match &description.described {
        Ok(described) => {
            return vec![
                partitions_line(subject, described),
                rights_line(name, described, config),
                copies_line(name, described.replicas, min_insync_replicas),
            ];
        }
        Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            missing(subject, config)
        }
        Err(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            let finding = format!("this service may not even see it; {}", grant(name, config));
            Line::new(Verdict::Fail, subject, finding)
        }
        Err(code) => Line::new(Verdict::Fail, subject, format!("the broker does not describe it: {code}")),
    };
    vec![line]
}

fn missing(subject: String, config: &Config) -> Line {
    let kafka = &config.kafka;
    if kafka.create_topics {
        let mut finding =
            "does not exist; the service makes it at its start, as KAFKA_CREATE_TOPICS says".to_owned();
        if kafka.topic_replication_factor == 1
            || kafka.topic_min_insync_replicas.is_none_or(|least| least < 2)
        {
            finding += "; a 2xx may mean one copy then: set KAFKA_TOPIC_REPLICATION_FACTOR=3 and \
                        KAFKA_TOPIC_MIN_INSYNC_REPLICAS=2";
        }
        return Line::new(Verdict::Warn, subject, finding);
    }
    if kafka.allow_auto_create_topics {
        let finding =
            "does not exist; the first record makes it, if the broker's auto.create.topics.enable is true";
        return Line::new(Verdict::Warn, subject, finding);
    }
    Line::new(
        Verdict::Fail,
        subject,
        "does not exist; create it, correct its name, or set KAFKA_CREATE_TOPICS=true",
    )
}

fn partitions_line(subject: String, described: &Described) -> Line {
    let count = described.partitions;
    if described.leaderless.is_empty() {
        return Line::new(Verdict::Ok, subject, format!("{count} partition(s), each with a leader"));
    }
    let numbers: Vec<String> = described.leaderless.iter().map(i32::to_string).collect();
    let finding = format!(
        "{} of {count} partitions have no leader and cannot be written to ({}); a broker is down",
        numbers.len(),
        numbers.join(", ")
    );
    Line::new(Verdict::Fail, subject, finding)
}

fn rights_line(name: &str, described: &Described, config: &Config) -> Line {
    let subject = format!("rights on {name}");
    let Some(operations) = &described.operations else {
        let finding = "the broker does not say what this service may do; `--write` tries it".to_owned();
        return Line::new(Verdict::NotTold, subject, finding);
    };
    let may = |operation: &str| operations.iter().any(|granted| granted == operation);
    let list = operations.join(", ");
    if !may("WRITE") {
        let finding = format!("WRITE is not among them ({list}); {}", grant(name, config));
        return Line::new(Verdict::Fail, subject, finding);
    }
    if !may("DESCRIBE_CONFIGS") {
        let finding = format!(
            "{list}; without DESCRIBE_CONFIGS the topic's max.message.bytes cannot be read, and MAX_RECORD_BYTES \
             stands for it"
        );
        return Line::new(Verdict::Warn, subject, finding);
    }
    Line::new(Verdict::Ok, subject, list)
}

/// How many copies a 2xx means. `replicas` is what each partition has at least.
fn copies_line(name: &str, replicas: usize, min_insync_replicas: Option<usize>) -> Line {
    let subject = format!("copies of {name}");
    let (verdict, finding) = match min_insync_replicas {
        // brokers since 3.7 count no more than there are (KAFKA-15583), older ones take nothing then
        Some(least) if least.min(replicas) >= 2 => {
            let copies = least.min(replicas);
            let finding = format!(
                "a 2xx means at least {copies} copies (replicas: {replicas}, min.insync.replicas={least})"
            );
            (Verdict::Ok, finding)
        }
        None if replicas >= 2 => {
            let finding = format!(
                "replicas: {replicas}, but min.insync.replicas cannot be read (DESCRIBE_CONFIGS); where it is 1, \
                 Kafka's default, a 2xx may mean one copy"
            );
            (Verdict::NotTold, finding)
        }
        _ => {
            let setting = min_insync_replicas.map_or_else(|| "unknown".to_owned(), |least| least.to_string());
            let finding = format!(
                "a 2xx may mean one copy, which is lost with its broker (replicas: {replicas}, \
                 min.insync.replicas={setting}); recommended are 3 replicas (kafka-reassign-partitions.sh) and 2 of \
                 them in sync: kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas=2"
            );
            (Verdict::Warn, finding)
        }
    };
    Line::new(verdict, subject, finding)
}

/// The command that grants what the service needs.
fn grant(name: &str, config: &Config) -> String {
    let user = config.kafka.sasl.as_ref().map_or("<this service's principal>", |sasl| &sasl.username);
    format!(
        "grant it: kafka-acls.sh --add --allow-principal 'User:{user}' --operation Write --operation Describe \
         --operation DescribeConfigs --topic {name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(described: Result<Described, RDKafkaErrorCode>) -> Vec<Line> {
        topic_lines(&TopicDescription { name: "rtmh.logs".into(), described }, None, &Config::default())
    }

    fn described() -> Described {
        Described { partitions: 3, replicas: 3, id: None, leaderless: vec![], operations: None }
    }

    fn with_operations(operations: Option<&[&str]>) -> Line {
        let operations = operations.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        lines(Ok(Described { operations, ..described() })).remove(1)
    }

    #[test]
    fn a_missing_topic_fails_with_the_ways_to_make_it() {
        let lines = lines(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert_eq!(lines[0].verdict, Verdict::Fail);
        assert!(lines[0].finding.contains("KAFKA_CREATE_TOPICS=true"), "{}", lines[0]);
    }

    #[test]
    fn a_missing_topic_that_the_service_will_make_is_a_warning() {
        let mut config = Config::default();
        config.kafka.create_topics = true;
        let line = missing("topic a".into(), &config);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.finding.contains("KAFKA_TOPIC_MIN_INSYNC_REPLICAS=2"), "{line}");
        (config.kafka.topic_replication_factor, config.kafka.topic_min_insync_replicas) = (3, Some(2));
        let line = missing("topic a".into(), &config);
        assert!(!line.finding.contains("one copy"), "{line}");
    }

    #[test]
    fn a_2xx_that_may_mean_one_copy_is_a_warning_with_what_to_do() {
        for (replicas, min_insync_replicas) in [(1, None), (1, Some(1)), (1, Some(2)), (3, Some(1))] {
            let line = copies_line("a", replicas, min_insync_replicas);
            assert_eq!(line.verdict, Verdict::Warn, "{line}");
            assert!(line.finding.contains("one copy"), "{line}");
            assert!(line.finding.contains("--topic a --add-config min.insync.replicas=2"), "{line}");
        }
        assert_eq!(copies_line("a", 3, None).verdict, Verdict::NotTold);
        let line = copies_line("a", 3, Some(2));
        assert!(line.verdict == Verdict::Ok && line.finding.contains("at least 2 copies"), "{line}");
        // brokers count no more than there are
        assert!(copies_line("a", 2, Some(3)).finding.contains("at least 2 copies"));
    }

    #[test]
    fn partitions_without_a_leader_fail_by_number() {
        let lines = lines(Ok(Described { leaderless: vec![0, 2], ..described() }));
        assert_eq!(lines[0].verdict, Verdict::Fail);
        assert!(lines[0].finding.contains("2 of 3") && lines[0].finding.contains("0, 2"), "{}", lines[0]);
    }

    #[test]
    fn a_silent_broker_is_not_taken_for_a_refusal() {
        assert_eq!(with_operations(None).verdict, Verdict::NotTold);
    }

    #[test]
    fn a_topic_that_may_not_be_written_to_fails_with_the_command_that_grants_it() {
        let line = with_operations(Some(&["READ", "DESCRIBE"]));
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.finding.contains("kafka-acls.sh --add"), "{line}");
    }

    #[test]
    fn the_right_to_write_is_enough() {
        assert_eq!(with_operations(Some(&["WRITE", "DESCRIBE"])).verdict, Verdict::Warn);
        assert_eq!(with_operations(Some(&["WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"])).verdict, Verdict::Ok);
    }
}
