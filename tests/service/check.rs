//! `kafka-inlet check` says line by line what works, and `health` asks the running service.

use crate::{
    kafka_or_skip,
    support::{
        app::{FIXED_TOPICS, Run, Service, create_fixed_topics, run},
        broker, consumer,
        java::{self, WRITER},
        port::ReservedPort,
    },
};

/// The report's lines that begin with this verdict.
fn lines<'a>(run: &'a Run, verdict: &str) -> Vec<&'a str> {
    run.output.lines().filter(|line| line.starts_with(verdict)).collect()
}

#[tokio::test]
async fn a_kafka_that_works_is_reported_line_by_line() {
    let kafka = kafka_or_skip!();
    create_fixed_topics(kafka).await;
    let check = run(&["check"], &[("KAFKA_BROKERS", &kafka.bootstrap())]).await;
    assert_eq!(check.status.code(), Some(0), "{}", check.output);
    let ok = lines(&check, "ok").join("\n");
    for said in ["name resolution", "TCP", "metadata", "bootstrap", "advertised"] {
        assert!(ok.contains(said), "{said}:\n{}", check.output);
    }
    for (_, topic) in FIXED_TOPICS {
        assert!(ok.contains(topic), "{topic}:\n{}", check.output);
    }
    assert!(lines(&check, "FAIL").is_empty(), "{}", check.output);
}

#[tokio::test]
async fn tls_and_authentication_are_reported() {
    let kafka = kafka_or_skip!();
    create_fixed_topics(kafka).await;
    let (bootstrap, ca) = (kafka.sasl_ssl_bootstrap(), java::ca());
    let mut variables = vec![
        ("KAFKA_BROKERS", bootstrap.as_str()),
        ("KAFKA_SSL", "true"),
        ("KAFKA_SSL_CA_LOCATION", ca.to_str().unwrap()),
        ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
        ("KAFKA_SASL_USERNAME", WRITER.0),
    ];
    let right = [variables.as_slice(), &[("KAFKA_SASL_PASSWORD", WRITER.1)]].concat();
    let check = run(&["check"], &right).await;
    assert_eq!(check.status.code(), Some(0), "{}", check.output);
    for said in ["TLS", "SCRAM-SHA-512"] {
        assert!(lines(&check, "ok").join("\n").contains(said), "{said}:\n{}", check.output);
    }
    assert!(!check.output.contains(WRITER.1), "{}", check.output);

    variables.push(("KAFKA_SASL_PASSWORD", "not-the-p4ssword"));
    let check = run(&["check"], &variables).await;
    assert_eq!(check.status.code(), Some(1), "{}", check.output);
    assert!(lines(&check, "FAIL").join("\n").to_lowercase().contains("authentication"), "{}", check.output);
    assert!(!check.output.contains("not-the-p4ssword"), "{}", check.output);
}

#[tokio::test]
async fn a_missing_topic_fails_the_check_and_is_named() {
    let kafka = kafka_or_skip!();
    let variables = [("KAFKA_BROKERS", kafka.bootstrap()), ("LOG_TOPIC", "not-there".to_owned())];
    let check = run(&["check"], &variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    assert_eq!(check.status.code(), Some(1), "{}", check.output);
    assert!(lines(&check, "FAIL").iter().any(|line| line.contains("not-there")), "{}", check.output);
}

#[tokio::test]
async fn topics_of_which_a_2xx_may_mean_one_copy_are_warned_of_and_pass() {
    let kafka = kafka_or_skip!();
    create_fixed_topics(kafka).await;
    let written = kafka.new_topic(1, &[("min.insync.replicas", "2")]).await;
    let check = run(&["check", "--write", &written], &[("KAFKA_BROKERS", &kafka.bootstrap())]).await;
    assert_eq!(check.status.code(), Some(0), "{}", check.output);
    let warned = lines(&check, "warn");
    for topic in FIXED_TOPICS.map(|(_, topic)| topic).into_iter().chain([written.as_str()]) {
        let line = warned.iter().find(|line| line.contains(&format!("copies of {topic}: ")));
        let line = line.unwrap_or_else(|| panic!("{topic}:\n{}", check.output));
        assert!(line.contains("one copy") && line.contains("min.insync.replicas=2"), "{line}");
    }
}

#[tokio::test]
async fn one_marked_record_is_written_on_request_and_none_without() {
    let kafka = kafka_or_skip!();
    create_fixed_topics(kafka).await;
    let topic = kafka.new_topic(1, &[]).await;
    let bootstrap = kafka.bootstrap();
    run(&["check"], &[("KAFKA_BROKERS", &bootstrap), ("LOG_TOPIC", &topic)]).await;
    assert_eq!(consumer::count(&bootstrap, &topic), 0);
    let check = run(&["check", "--write", &topic], &[("KAFKA_BROKERS", &bootstrap)]).await;
    assert_eq!(check.status.code(), Some(0), "{}", check.output);
    assert!(consumer::read_one(&bootstrap, &topic).text().contains("kafka-inlet"));
}

#[tokio::test]
async fn nobody_at_the_bootstrap_address_is_a_failure() {
    let port = ReservedPort::new();
    let nobody = port.address().to_string();
    let check = run(&["check"], &[("KAFKA_BROKERS", &nobody)]).await;
    assert_eq!(check.status.code(), Some(1), "{}", check.output);
    assert!(lines(&check, "FAIL").iter().any(|line| line.contains(&nobody)), "{}", check.output);
}

#[tokio::test]
async fn an_advertised_address_that_leads_nowhere_is_found() {
    let port = ReservedPort::new();
    let nowhere = port.address().to_string();
    let Some(kafka) = broker::own(&[("advertised.listeners", &format!("PLAINTEXT://{nowhere}"))]) else {
        return;
    };
    let check = run(&["check"], &[("KAFKA_BROKERS", &kafka.bootstrap())]).await;
    assert_eq!(check.status.code(), Some(1), "{}", check.output);
    let failed = lines(&check, "FAIL").join("\n");
    assert!(failed.contains(&nowhere) && failed.contains("advertised"), "{}", check.output);
}

#[tokio::test]
async fn health_asks_the_service_that_runs_with_the_same_settings() {
    let service = Service::spawn_with(&["--embedded"], &[]).await;
    let port = service.address().port().to_string();
    let health = run(&["health"], &[("HOST", "127.0.0.1"), ("PORT", &port)]).await;
    assert_eq!(health.status.code(), Some(0), "{}", health.output);
    let reserved = ReservedPort::new();
    let nobody = reserved.number().to_string();
    let health = run(&["health"], &[("HOST", "127.0.0.1"), ("PORT", &nobody)]).await;
    assert_eq!(health.status.code(), Some(1), "{}", health.output);
    assert!(health.output.contains(&nobody), "{}", health.output);
}
