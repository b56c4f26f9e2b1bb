//! The whole report, against librdkafka's mock cluster.

use super::*;
use crate::kafka::EmbeddedCluster;
use std::{net::TcpListener, time::Duration};

fn settings(broker: &str) -> Config {
    let mut config = Config::default();
    config.kafka.brokers = vec![broker.to_owned()];
    config.kafka.connection_timeout = Duration::from_secs(2);
    config
}

fn check(config: &Config, write: Option<&TopicName>) -> (bool, String) {
    let mut out = Vec::new();
    let ok = report(config, write, &mut out).unwrap();
    (ok, String::from_utf8(out).unwrap())
}

#[test]
fn a_cluster_with_the_configured_topics_passes() {
    let topics = Config::default().topics.distinct();
    let cluster = EmbeddedCluster::start(&topics, 2).unwrap();
    let (ok, text) = check(&settings(cluster.bootstrap_servers()), Some(&topics[0]));
    assert!(ok, "{text}");
    assert!(text.contains("ok        topic rtmh.logs: 2 partition(s), each with a leader"), "{text}");
    assert!(text.contains("ok        write to rtmh.logs: acknowledged"), "{text}");
}

#[test]
fn a_topic_that_is_missing_fails_and_is_not_written_to() {
    let cluster = EmbeddedCluster::start(&Config::default().topics.distinct(), 1).unwrap();
    let topic = TopicName::parse("absent").unwrap();
    let (ok, text) = check(&settings(cluster.bootstrap_servers()), Some(&topic));
    assert!(!ok, "{text}");
    assert!(text.contains("FAIL      topic absent: does not exist"), "{text}");
    assert!(text.contains("skipped   write to absent"), "{text}");
}

#[test]
fn a_dead_bootstrap_address_beside_a_live_one_is_a_warning() {
    let cluster = EmbeddedCluster::start(&Config::default().topics.distinct(), 1).unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = settings(cluster.bootstrap_servers());
    config.kafka.brokers.insert(0, dead.to_string());
    let (ok, text) = check(&config, None);
    assert!(ok, "{text}");
    assert!(text.contains(&format!("warn      TCP to {dead}")), "{text}");
}

#[test]
fn without_a_reachable_bootstrap_nothing_else_is_tried() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (ok, text) = check(&settings(&address.to_string()), None);
    assert!(!ok, "{text}");
    assert!(text.contains(&format!("FAIL      TCP to {address}")), "{text}");
    assert!(text.contains("skipped   TLS, authentication, metadata, topics"), "{text}");
}

#[test]
fn a_port_that_never_answers_fails_within_the_connection_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (ok, text) = check(&settings(&listener.local_addr().unwrap().to_string()), None);
    assert!(!ok, "{text}");
    assert!(text.contains("FAIL      metadata"), "{text}");
}

#[test]
fn embedded_mode_has_nothing_to_check() {
    let mut config = Config::default();
    config.kafka.embedded = true;
    let (ok, text) = check(&config, None);
    assert!(ok, "{text}");
    assert!(text.contains("nothing to check"), "{text}");
}
