//! Durable delivery under each fault that a cluster may show: what clients are told, and what is in Kafka in the end.

use crate::support::{
    app::Service,
    eventually,
    mock::{Flapping, Mock},
    outcomes::{Duplicates, Outcome, Outcomes, Told},
    silent,
    spool::{self, metric, stored_one, wait_connected, wait_empty},
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

const TOPIC: &str = "topic";
/// Each has a key of its own.
const CLIENTS: u64 = 8;
/// More errors than a test's requests.
const ALL: usize = 10_000;

/// One row.
struct Fault {
    begins: fn(&Mock) -> Option<Flapping>,
    ends: fn(&Mock),
    /// What clients may be told meanwhile: `written`, `stored`, or the error's name.
    told: &'static [&'static str],
    /// How a record ends that was stored meanwhile without an attempt.
    stored_becomes: &'static str,
    /// The mock cluster takes a record again that it was sent again, where a broker knows that it has it. So
    /// duplicates are counted only where none of its answers comes late or is lost.
    loses_answers: bool,
}

fn refuses_with(mock: &Mock, code: Code) -> Option<Flapping> {
    mock.repeated_produce_error(code, ALL);
    None
}

fn accepts_again(mock: &Mock) {
    mock.clear_request_errors(RDKafkaApiKey::Produce);
}

/// Every client posts so many records, one after the other. What they were told is added to `all`, and returned by
/// name.
async fn post(service: &Service, all: &mut Vec<Outcome>, each: u64) -> BTreeSet<String> {
    let first = all.len() as u64;
    let clients = (0..CLIENTS).map(|client| async move {
        let (http, key) = (service.client(), format!("key-{client}"));
        let mut told = Vec::new();
        for turn in 0..each {
            let number = first + turn * CLIENTS + client;
            let body = json!({"topic": TOPIC, "key": key, "value": {"number": number}, "project": "p"});
            let answer = http.post("/produce", body.to_string()).await;
            let json = answer.json();
            let (name, told_now) = match (answer.status, json["stored"].as_str()) {
                (202, Some(_)) => ("stored", Told::Stored),
                (202, None) => ("written", Told::Written),
                _ if json["outcome"] == "unknown" => (json["error"].as_str().unwrap(), Told::Unknown),
                _ => (json["error"].as_str().unwrap(), Told::NotWritten),
            };
            let outcome = Outcome { number, key: Some(key.clone()), told: told_now, failure: None };
            told.push((outcome, name.to_owned()));
        }
        told
    });
    let told = futures_util::future::join_all(clients).await;
    let (outcomes, names): (Vec<_>, BTreeSet<_>) = told.into_iter().flatten().unzip();
    all.extend(outcomes);
    names
}

async fn is_alive_and_ready(service: &Service) {
    let client = service.client();
    assert_eq!(client.get("/health").await.status, 200);
    let ready = client.get("/ready").await;
    assert_eq!(ready.status, 200, "{ready:?}");
}

async fn check(fault: Fault) {
    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 3);
    let service = spool::ready(mock.bootstrap(), &[]).await;
    let client = service.client();
    let mut all = Vec::new();
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));

    let flapping = (fault.begins)(&mock);
    let told = post(&service, &mut all, 3).await;
    assert!(told.iter().all(|told| fault.told.contains(&&**told)), "{told:?}");
    is_alive_and_ready(&service).await;
    let number = all.len() as u64;
    let unwaited = [("content-type", "application/json"), ("prefer", "respond-async")];
    let body = json!({"topic": TOPIC, "key": "unwaited", "value": {"number": number}, "project": "p"});
    let receipt = stored_one(&client.send("POST", "/produce", &unwaited, body.to_string()).await);
    if fault.stored_becomes == "failed" {
        let receipt = spool::receipt(&client, &receipt).await;
        assert_eq!(receipt["state"], "failed", "{receipt}");
    } else {
        all.push(Outcome { number, key: Some("unwaited".into()), told: Told::Stored, failure: None });
    }

    drop(flapping);
    (fault.ends)(&mock);
    wait_connected(&client).await;
    wait_empty(&client).await;
    let end = spool::receipt(&client, &receipt).await;
    assert_eq!(end["state"], fault.stored_becomes, "{end}");
    eventually("records are written at once again", Duration::from_secs(20), || async {
        let mut more = Vec::new();
        let answer = client
            .post(
                "/produce",
                json!({"topic": TOPIC, "key": "probe", "value": {"number": 1_000_000}, "project": "p"})
                    .to_string(),
            )
            .await;
        more.push(answer.status);
        (answer.status == 202 && answer.json()["stored"].is_null()).then_some(())
    })
    .await;
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));
    is_alive_and_ready(&service).await;

    let outcomes = Outcomes::new(all, TOPIC);
    let landed = outcomes.read(mock.bootstrap());
    landed.every_accepted_is_in();
    landed.no_refused_is_in();
    landed.order_is_kept();
    if !fault.loses_answers {
        let Duplicates { undeclared, .. } = landed.duplicates();
        assert_eq!(undeclared, 0);
    }
}

#[tokio::test]
async fn a_broker_slower_than_the_deadline_has_records_stored_and_written() {
    check(Fault {
        begins: |mock| {
            mock.round_trip_time(1, Duration::from_millis(3500));
            None
        },
        ends: |mock| mock.round_trip_time(1, Duration::ZERO),
        told: &["stored"],
        stored_becomes: "written",
        loses_answers: true,
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_leads_no_partition_has_records_stored_and_written() {
    check(Fault {
        begins: |mock| refuses_with(mock, Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        ends: accepts_again,
        told: &["stored"],
        stored_becomes: "written",
        loses_answers: false,
    })
    .await;
}

#[tokio::test]
async fn too_few_in_sync_replicas_have_records_stored_and_written() {
    check(Fault {
        begins: |mock| refuses_with(mock, Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS),
        ends: accepts_again,
        told: &["stored"],
        stored_becomes: "written",
        loses_answers: false,
    })
    .await;
}

#[tokio::test]
async fn a_denied_topic_is_told_who_waits_and_waited_out_by_what_is_stored() {
    check(Fault {
        begins: |mock| refuses_with(mock, Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
        ends: accepts_again,
        told: &["kafka_unauthorized"],
        stored_becomes: "written",
        loses_answers: false,
    })
    .await;
}

#[tokio::test]
async fn a_record_too_large_for_the_broker_is_told_who_waits_and_kept_as_failed_where_nobody_does() {
    check(Fault {
        begins: |mock| refuses_with(mock, Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE),
        ends: accepts_again,
        told: &["record_too_large"],
        stored_becomes: "failed",
        loses_answers: false,
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_flaps_every_second_fails_no_request() {
    check(Fault {
        begins: |mock| Some(mock.flap(1, Duration::from_secs(1))),
        ends: |_| (),
        told: &["written", "stored"],
        stored_becomes: "written",
        loses_answers: true,
    })
    .await;
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_has_records_stored_for_the_next_one() {
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let variables = [("SPOOL_DIR", folder.path().to_str().unwrap())];
    let service = spool::spawn(&silent::listen(), &variables).await;
    let mut all = Vec::new();
    assert_eq!(post(&service, &mut all, 3).await, BTreeSet::from(["stored".into()]));
    spool::wait_storing(&service.client()).await;
    assert_eq!(post(&service, &mut all, 3).await, BTreeSet::from(["stored".into()]));
    is_alive_and_ready(&service).await;
    service.signal("TERM");
    assert!(service.wait_exit(Duration::from_secs(20)).await.0.success());

    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 3);
    let service = spool::ready(mock.bootstrap(), &variables).await;
    wait_empty(&service.client()).await;
    assert_eq!(metric(&service.client(), "inlet_spool_failed_records").await, 0.0);
    let outcomes = Outcomes::new(all, TOPIC);
    let landed = outcomes.read(mock.bootstrap());
    assert_eq!(landed.every_accepted_is_in() as u64, 6 * CLIENTS);
    assert_eq!(landed.order_is_kept() as u64, CLIENTS);
    assert_eq!(landed.duplicates(), Duplicates::default());
}
