//! TLS and SASL against the broker's own listeners: what works, and what is said when it does not.

use crate::{
    kafka_or_skip,
    support::{
        app::{self, Service},
        broker::{self, Broker, Operation},
        consumer, eventually,
        java::{self, KEY_PASSWORD, RESTRICTED, WRITER},
    },
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

type Variables = Vec<(&'static str, String)>;

fn tls(bootstrap: String, ca: &Path) -> Variables {
    vec![
        ("KAFKA_BROKERS", bootstrap),
        ("KAFKA_SSL", "true".into()),
        ("KAFKA_SSL_CA_LOCATION", ca.to_str().unwrap().into()),
    ]
}

fn sasl(mechanism: &str, (username, password): (&str, &str)) -> Variables {
    vec![
        ("KAFKA_SASL_MECHANISM", mechanism.into()),
        ("KAFKA_SASL_USERNAME", username.into()),
        ("KAFKA_SASL_PASSWORD", password.into()),
    ]
}

async fn spawn(variables: &Variables) -> Service {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Service::spawn(&variables).await
}

/// Fails unless a service with these settings gets a record to Kafka.
async fn delivers(kafka: &Broker, variables: &Variables) {
    let topic = kafka.new_topic(1, &[]).await;
    let service = spawn(variables).await;
    service.wait_ready().await;
    service.client().post("/produce", body(&topic)).await.written();
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 1);
}

/// Waits until `/ready` and the log both give the reason, and returns it.
async fn reason_holding(service: &Service, part: &str) -> String {
    let client = service.client();
    eventually(&format!("/ready and the log say '{part}'"), Duration::from_secs(10), || async {
        let answer = client.get("/ready").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let reason = answer.json()["reason"].as_str().unwrap().to_owned();
        let lower = |text: &str| text.to_lowercase();
        (lower(&reason).contains(part) && lower(&service.logs()).contains(part)).then_some(reason)
    })
    .await
}

fn body(topic: &str) -> String {
    json!({"topic": topic, "value": 1, "project": "p"}).to_string()
}

#[tokio::test]
async fn records_go_through_tls() {
    let kafka = kafka_or_skip!();
    delivers(kafka, &tls(kafka.ssl_bootstrap(), &java::ca())).await;
}

#[tokio::test]
async fn each_sasl_mechanism_works_in_any_case_with_and_without_tls() {
    let kafka = kafka_or_skip!();
    for mechanism in ["PLAIN", "scram-sha-256", "Scram-Sha-512"] {
        let mut plain = sasl(mechanism, WRITER);
        plain.push(("KAFKA_BROKERS", kafka.sasl_plain_bootstrap()));
        delivers(kafka, &plain).await;
        let encrypted = [tls(kafka.sasl_ssl_bootstrap(), &java::ca()), sasl(mechanism, WRITER)].concat();
        delivers(kafka, &encrypted).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_named_in_readiness_and_log_and_never_shown() {
    let kafka = kafka_or_skip!();
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let mut variables = sasl(mechanism, (WRITER.0, "not-the-p4ssword"));
        variables.push(("KAFKA_BROKERS", kafka.sasl_plain_bootstrap()));
        variables.push(("LOG_LEVEL", "debug".into()));
        let service = spawn(&variables).await;
        let reason = reason_holding(&service, "authentication").await;
        assert!(!reason.contains("not-the-p4ssword"), "{reason}");
        assert!(!service.logs().contains("not-the-p4ssword"), "{}", service.logs());
        service.client().post("/logs", r#"{"value":1,"project":"p"}"#).await.problem(503, "not_ready");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_named() {
    let kafka = kafka_or_skip!();
    let service = spawn(&tls(kafka.ssl_bootstrap(), &java::wrong_ca())).await;
    reason_holding(&service, "certificate").await;
}

#[tokio::test]
async fn the_systems_certificates_are_the_default_and_do_not_trust_the_tests_broker() {
    let kafka = kafka_or_skip!();
    let mut variables = tls(kafka.ssl_bootstrap(), &PathBuf::new());
    variables.pop();
    let service = spawn(&variables).await;
    reason_holding(&service, "certificate").await;
}

/// A broker whose TLS listener asks for a certificate that the tests' authority has signed.
fn broker_that_asks_for_certificates() -> Option<Broker> {
    if !broker::startable() {
        return None;
    }
    let (authority, principals) = (java::ca(), format!("User:ANONYMOUS;User:{}", java::CLIENT));
    broker::own(&[
        ("listener.name.ssl.ssl.client.auth", "required"),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", authority.to_str().unwrap()),
        ("super.users", &principals),
    ])
}

fn client_certificate(key_password: &str) -> Variables {
    vec![
        ("KAFKA_SSL_CERTIFICATE_LOCATION", java::client_certificate().to_str().unwrap().into()),
        ("KAFKA_SSL_KEY_LOCATION", java::client_key().to_str().unwrap().into()),
        ("KAFKA_SSL_KEY_PASSWORD", key_password.into()),
    ]
}

#[tokio::test]
async fn mutual_tls_works_with_an_encrypted_key_and_the_lack_of_a_certificate_is_named() {
    let Some(kafka) = broker_that_asks_for_certificates() else { return };
    let tls = tls(kafka.ssl_bootstrap(), &java::ca());
    delivers(&kafka, &[tls.clone(), client_certificate(KEY_PASSWORD)].concat()).await;
    let service = spawn(&tls).await;
    let reason = reason_holding(&service, "certificate").await;
    assert!(reason.to_lowercase().contains("tls"), "{reason}");
}

#[tokio::test]
async fn a_wrong_password_of_the_clients_key_ends_the_start_and_is_not_shown() {
    if !broker::startable() {
        return;
    }
    let mut variables = tls("127.0.0.1:9".into(), &java::ca());
    variables.extend(client_certificate("not-the-p4ssword"));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let run = app::run(&[], &variables).await;
    assert!(!run.status.success());
    assert!(run.output.contains("ssl.key.location"), "{}", run.output);
    assert!(!run.output.contains("not-the-p4ssword"), "{}", run.output);
}

#[tokio::test]
async fn the_password_is_in_no_log_and_no_answer() {
    let kafka = kafka_or_skip!();
    let mut variables = sasl("SCRAM-SHA-512", WRITER);
    variables.extend([("KAFKA_BROKERS", kafka.sasl_plain_bootstrap()), ("LOG_LEVEL", "trace".into())]);
    let service = spawn(&variables).await;
    service.wait_ready().await;
    let client = service.client();
    for path in ["/", "/health", "/health/kafka", "/ready", "/metrics"] {
        assert!(!client.get(path).await.body.contains(WRITER.1), "{path}");
    }
    assert!(!service.logs().contains(WRITER.1));
}

#[tokio::test]
async fn a_topic_without_the_right_to_write_is_403() {
    let kafka = kafka_or_skip!();
    let (open, visible) = (kafka.new_topic(1, &[]).await, kafka.new_topic(1, &[]).await);
    let hidden = kafka.new_topic(1, &[]).await;
    kafka.allow_restricted(&open, Operation::Write).await;
    kafka.allow_restricted(&visible, Operation::Describe).await;
    let mut variables = sasl("PLAIN", RESTRICTED);
    variables.push(("KAFKA_BROKERS", kafka.sasl_plain_bootstrap()));
    let service = spawn(&variables).await;
    service.wait_ready().await;
    let client = service.client();
    for topic in [&visible, &hidden] {
        let problem = client.post("/produce", body(topic)).await.problem(403, "kafka_unauthorized");
        assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("not_written"), &json!(false)));
    }
    client.post("/produce", body(&visible)).await.problem(403, "kafka_unauthorized");
    client.post("/produce", body(&open)).await.written();
    // DescribeTopics tells, so that no batch was refused
    let metrics = client.get("/metrics").await.body;
    let refused =
        |line: &&str| line.starts_with("kafka_messages_sent_total{status=\"error\"") && !line.ends_with(" 0");
    assert_eq!(metrics.lines().find(refused), None);
    let logs = service.logs();
    let warnings = logs.lines().filter(|line| line.contains("WARN") && line.contains(&visible));
    assert_eq!(warnings.count(), 1, "{logs}");
}

#[tokio::test]
async fn without_the_right_to_read_configurations_a_poison_record_still_harms_no_neighbour() {
    let kafka = kafka_or_skip!();
    let topic = kafka.new_topic(1, &[("cleanup.policy", "compact")]).await;
    kafka.allow_restricted(&topic, Operation::Write).await;
    let mut variables = sasl("PLAIN", RESTRICTED);
    // long enough for all to share a batch
    variables.extend([("KAFKA_BROKERS", kafka.sasl_plain_bootstrap()), ("KAFKA_LINGER_MS", "100".into())]);
    let service = spawn(&variables).await;
    service.wait_ready().await;
    let client = service.client();
    let keyed = json!({"topic": topic, "value": 1, "project": "p", "key": "k"}).to_string();
    client.post("/produce", keyed.clone()).await.written();
    let (poison, good) = tokio::join!(
        client.post("/produce", body(&topic)),
        futures_util::future::join_all((0..20).map(|_| client.post("/produce", keyed.clone()))),
    );
    assert_eq!(poison.status, 400, "{poison:?}");
    assert_eq!(poison.json()["outcome"], "not_written");
    good.iter().for_each(|answer| drop(answer.written()));
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 21);
}
