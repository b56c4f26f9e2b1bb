//! Faulty settings and everything else that keeps the service from serving end it with words that help.

use crate::support::app::{Service, run};
use std::{net::TcpListener, time::Duration};

/// `EX_USAGE` of `sysexits.h`.
const FAULTY: i32 = 64;

#[tokio::test]
async fn every_fault_is_reported_in_one_run_by_the_variables_name() {
    let faults = [
        ("PORT", "high"),
        ("KAFKA_DELIVERY_TIMEOUT_MS", "soon"),
        ("KAFKA_COMPRESSION", "brotli"),
        ("LOG_TOPIC", "a b"),
        ("MAX_BODY_BYTES", "-1"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_PROPERTY_ACKS", "1"),
        ("PARTITIONER", "mine"),
        ("DELIVERY", "certain"),
        ("SPOOL_MAX_AGE", "3600"),
        ("DEAD_LETTER_TOPIC", "{topic}"),
        ("INSTANCE_ID", "one two"),
    ];
    let ended = run(&[], &faults).await;
    assert_eq!(ended.status.code(), Some(FAULTY), "{}", ended.output);
    for (name, _) in faults {
        assert!(ended.output.contains(name), "{name} is not named:\n{}", ended.output);
    }
}

#[tokio::test]
async fn a_property_that_librdkafka_refuses_is_a_fault_beside_the_others() {
    let faults = [("KAFKA_PROPERTY_NO_SUCH", "1"), ("KAFKA_PROPERTY_BATCH_SIZE", "many"), ("PORT", "high")];
    let ended = run(&[], &faults).await;
    assert_eq!(ended.status.code(), Some(FAULTY), "{}", ended.output);
    for (name, _) in faults {
        assert!(ended.output.contains(name), "{name} is not named:\n{}", ended.output);
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_faults() {
    for variables in [
        [("KAFKA_BROKERS", "a:9092"), ("KAFKA_BROKER", "b:9092")],
        [("SHUTDOWN_DELAY_MS", "10000"), ("SHUTDOWN_TIMEOUT_MS", "20000")],
        [("KAFKA_DELIVERY_TIMEOUT_MS", "15000"), ("SHUTDOWN_TIMEOUT_MS", "10000")],
        [("KAFKA_SSL_CERTIFICATE_LOCATION", "/cert.pem"), ("KAFKA_SSL", "true")],
        [("SPOOL_DIR", ""), ("DELIVERY", "durable")],
    ] {
        let ended = run(&[], &variables).await;
        assert_eq!(ended.status.code(), Some(FAULTY), "{variables:?}\n{}", ended.output);
        assert!(ended.output.contains(variables[0].0), "{}", ended.output);
    }
    let ended = run(&["--embedded"], &[("KAFKA_BROKERS", "a:9092")]).await;
    assert_eq!(ended.status.code(), Some(FAULTY), "{}", ended.output);
}

#[tokio::test]
async fn a_password_is_not_shown_with_its_fault() {
    let faults = [("KAFKA_SASL_PASSWORD", "hunter2-s3cret"), ("KAFKA_SASL_MECHANISM", "GSSAPI")];
    let ended = run(&[], &faults).await;
    assert_eq!(ended.status.code(), Some(FAULTY));
    assert!(!ended.output.contains("hunter2-s3cret"), "{}", ended.output);
}

#[tokio::test]
async fn a_port_in_use_ends_the_process_with_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&[], &[("HOST", "127.0.0.1"), ("PORT", &port)]).await;
    assert!(!ended.status.success());
    assert!(ended.output.contains(&port), "{}", ended.output);
    assert!(ended.output.to_lowercase().contains("in use"), "{}", ended.output);
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let service = Service::spawn(&[("KAFKA_BROKERS", ""), ("KAFKA_LINGER_MS", ""), ("LOG_LEVEL", "")]).await;
    assert_eq!(service.client().get("/health").await.status, 200);
}

#[tokio::test]
async fn an_unknown_name_that_begins_like_ours_is_warned_of() {
    let service =
        Service::spawn(&[("KAFKA_LINGERS_MS", "5"), ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092")]).await;
    crate::support::eventually("a warning", Duration::from_secs(5), || async {
        service.logs().contains("KAFKA_LINGERS_MS").then_some(())
    })
    .await;
    assert!(!service.logs().contains("KAFKA_PORT_9092_TCP"), "Kubernetes sets that: {}", service.logs());
}

#[tokio::test]
async fn the_command_line_helps() {
    let version = run(&["--version"], &[]).await;
    assert!(version.status.success());
    assert!(version.output.contains(env!("CARGO_PKG_VERSION")), "{}", version.output);
    let help = run(&["--help"], &[]).await;
    assert!(help.status.success());
    for word in ["--embedded", "--version", "check"] {
        assert!(help.output.contains(word), "{word}:\n{}", help.output);
    }
    let unknown = run(&["--nonsense"], &[]).await;
    assert!(!unknown.status.success());
    assert!(unknown.output.contains("--nonsense"), "{}", unknown.output);
}
