//! Both kinds of delivery under each fault that a cluster may show: what clients are told, and what is in Kafka in the end.

use crate::support::{
    app::Service,
    eventually,
    mock::{Flapping, Mock},
    outcomes::{Duplicates, Outcome, Outcomes, Told},
    proxy, silent,
    spool::{self, metric, stored_one, wait_connected, wait_empty},
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

const TOPIC: &str = "topic";
/// Each has a key of its own.
const CLIENTS: u64 = 8;
/// More errors than a test's requests.
const ALL: usize = 10_000;
const UNWAITED: [(&str, &str); 2] = [("content-type", "application/json"), ("prefer", "respond-async")];
/// The number of the first probe.
const PROBE: u64 = 1_000_000;

/// After the end of a fault: how soon records are written at once again. The clock starts when the mock cluster has been
/// told.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

/// One row.
#[derive(Clone, Copy)]
struct Fault {
    begins: fn(&Mock) -> Option<Flapping>,
    ends: fn(&Mock),
    /// Records are posted for at least so long.
    lasts: Duration,
    /// So many clients do not wait for Kafka with every other record.
    unwaiting: u64,
    /// What clients are told meanwhile, `written`, `stored`, or the error's name: all of these.
    durable_tells: &'static [&'static str],
    /// In direct mode: some of these.
    direct_tells: &'static [&'static str],
    /// How a record ends that was stored meanwhile without an attempt.
    stored_becomes: &'static str,
    /// The mock cluster takes a record again that it was sent again, where a broker knows that it has it. So
    /// duplicates are counted only where none of its answers comes late or is lost; a real broker counts the others,
    /// below.
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
    post_as(service, all, each, 0).await
}

/// As [`post`], where so many of the clients do not wait for Kafka with every other record.
async fn post_as(service: &Service, all: &mut Vec<Outcome>, each: u64, unwaiting: u64) -> BTreeSet<String> {
    let first = all.len() as u64;
    let clients = (0..CLIENTS).map(|client| async move {
        let (http, key) = (service.client(), format!("key-{client}"));
        let mut told = Vec::new();
        for turn in 0..each {
            let number = first + turn * CLIENTS + client;
            let body = json!({"topic": TOPIC, "key": key, "value": {"number": number}, "project": "p"});
            let waits = client >= unwaiting || turn % 2 == 0;
            let headers = if waits { &UNWAITED[..1] } else { &UNWAITED };
            let answer = http.send("POST", "/produce", headers, body.to_string()).await;
            let json = answer.json();
            let outcome = Outcome::of(number, Some(&key), &json);
            assert_eq!(outcome.told.is_accepted(), answer.status == 202, "{answer:?}");
            let name = match outcome.told {
                Told::Stored => "stored",
                Told::Written => "written",
                _ => json["error"].as_str().unwrap(),
            };
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

/// Posts until the fault has lasted, and clients were told all of these; what they were told.
async fn post_during(
    service: &Service,
    all: &mut Vec<Outcome>,
    fault: Fault,
    tells: &[&str],
) -> BTreeSet<String> {
    const LIMIT: Duration = Duration::from_secs(20);
    let (start, mut told) = (Instant::now(), BTreeSet::new());
    while start.elapsed() < LIMIT {
        told.extend(post_as(service, all, 3, fault.unwaiting).await);
        let is_told = |name: &&str| told.contains(*name);
        if start.elapsed() >= fault.lasts && tells.iter().all(is_told) {
            break;
        }
        if !fault.lasts.is_zero() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    told
}

/// Waits until a record is written at once.
async fn wait_recovered(service: &Service, what: &str) {
    let client = service.client();
    static NUMBERS: AtomicU64 = AtomicU64::new(PROBE);
    eventually(&format!("{what}: records are written at once again"), RECOVERY_LIMIT, async || {
        let number = NUMBERS.fetch_add(1, Relaxed);
        let probe = json!({"topic": TOPIC, "key": "probe", "value": {"number": number}, "project": "p"});
        let answer = client.post("/produce", probe.to_string()).await;
        (answer.status == 202 && answer.json()["stored"].is_null()).then_some(())
    })
    .await;
}

/// The fault's row: durable and direct delivery at the same time, each on a cluster of its own.
async fn check(fault: Fault) {
    tokio::join!(check_durable(fault), check_direct(fault));
}

async fn check_durable(fault: Fault) {
    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 3);
    let service = spool::ready(mock.bootstrap(), &[]).await;
    let client = service.client();
    let mut all = Vec::new();
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));

    let flapping = (fault.begins)(&mock);
    let told = post_during(&service, &mut all, fault, fault.durable_tells).await;
    assert_eq!(told.iter().collect::<Vec<_>>(), fault.durable_tells);
    is_alive_and_ready(&service).await;
    let number = all.len() as u64;
    let body = json!({"topic": TOPIC, "key": "unwaited", "value": {"number": number}, "project": "p"});
    // a right that a topic denies is known for two seconds, in which nothing is stored for it
    let receipt = eventually("what nobody waits for is stored", Duration::from_secs(10), async || {
        let answer = client.send("POST", "/produce", &UNWAITED, body.to_string()).await;
        (answer.status == 202).then(|| stored_one(&answer))
    })
    .await;
    if fault.stored_becomes == "failed" {
        let receipt = spool::receipt(&client, &receipt).await;
        assert_eq!(receipt["state"], "failed", "{receipt}");
    } else {
        let key = Some("unwaited".into());
        all.push(Outcome { number, key, told: Told::Stored, place: None, failure: None });
    }

    drop(flapping);
    (fault.ends)(&mock);
    wait_recovered(&service, "durable").await;
    wait_connected(&client).await;
    wait_empty(&client).await;
    let end = spool::receipt(&client, &receipt).await;
    assert_eq!(end["state"], fault.stored_becomes, "{end}");
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));
    is_alive_and_ready(&service).await;
    landed(all, &mock, fault);
}

async fn check_direct(fault: Fault) {
    let mock = Mock::start(1);
    mock.create_topic(TOPIC, 3);
    // each refusal makes librdkafka begin a new epoch, so that a verdict takes long behind many others
    let deadline = if fault.direct_tells.contains(&"delivery_timeout") { "3000" } else { "15000" };
    let variables = [("KAFKA_BROKERS", mock.bootstrap()), ("KAFKA_DELIVERY_TIMEOUT_MS", deadline)];
    let service = Service::ready(&variables).await;
    let mut all = Vec::new();
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));

    let flapping = (fault.begins)(&mock);
    let told = post_during(&service, &mut all, fault, &[]).await;
    assert!(told.iter().all(|told| fault.direct_tells.contains(&&**told)), "direct: {told:?}");
    assert_eq!(service.client().get("/health").await.status, 200);

    drop(flapping);
    (fault.ends)(&mock);
    wait_recovered(&service, "direct").await;
    service.wait_ready_within(RECOVERY_LIMIT).await;
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));
    landed(all, &mock, fault);
}

fn landed(all: Vec<Outcome>, mock: &Mock, fault: Fault) {
    let outcomes = Outcomes::new(all, TOPIC);
    let landed = outcomes.read(mock.bootstrap());
    landed.every_accepted_is_in();
    landed.no_refused_is_in();
    landed.order_is_kept();
    if !fault.loses_answers {
        assert_eq!(landed.duplicates().undeclared, 0);
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
        lasts: Duration::ZERO,
        unwaiting: 0,
        durable_tells: &["stored"],
        direct_tells: &["delivery_timeout", "broker_unavailable", "not_ready"],
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
        lasts: Duration::ZERO,
        unwaiting: 0,
        durable_tells: &["stored"],
        direct_tells: &["delivery_timeout", "broker_unavailable", "not_ready"],
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
        lasts: Duration::ZERO,
        unwaiting: 0,
        durable_tells: &["stored"],
        direct_tells: &["delivery_timeout", "broker_unavailable", "not_ready"],
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
        lasts: Duration::ZERO,
        unwaiting: 0,
        durable_tells: &["kafka_unauthorized"],
        direct_tells: &["kafka_unauthorized"],
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
        lasts: Duration::ZERO,
        unwaiting: 0,
        durable_tells: &["record_too_large"],
        direct_tells: &["record_too_large"],
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
        lasts: Duration::from_secs(5),
        // those who wait do so for less than the deadline
        unwaiting: 2,
        durable_tells: &["stored", "written"],
        direct_tells: &["written", "delivery_timeout", "broker_unavailable", "not_ready"],
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

/// The rows of the mock cluster that count no duplicates, with a broker that knows what it has.
#[tokio::test]
async fn a_real_broker_that_answers_late_or_comes_and_goes_has_no_undeclared_duplicate() {
    let Some((proxy, kafka)) = proxy::own() else { return };
    kafka.create_topic(TOPIC, 3, &[]).await;
    let service = spool::ready(&proxy.address(), &[]).await;
    let mut all = Vec::new();
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));

    proxy.delay(Duration::from_millis(3500));
    let told = post(&service, &mut all, 3).await;
    assert_eq!(told, BTreeSet::from(["stored".into()]));
    is_alive_and_ready(&service).await;
    proxy.delay(Duration::ZERO);
    wait_recovered(&service, "late answers").await;
    wait_connected(&service.client()).await;
    wait_empty(&service.client()).await;

    let flaps = async {
        for is_cut in [true, false, true, false, true, false] {
            if is_cut {
                proxy.cut()
            } else {
                proxy.mend()
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let posts = async {
        let (start, mut told) = (Instant::now(), BTreeSet::new());
        while start.elapsed() < Duration::from_secs(6) {
            told.extend(post_as(&service, &mut all, 2, 4).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told
    };
    let ((), told) = tokio::join!(flaps, posts);
    assert_eq!(told, BTreeSet::from(["stored".into(), "written".into()]));
    wait_recovered(&service, "flapping").await;
    wait_empty(&service.client()).await;
    assert_eq!(post(&service, &mut all, 2).await, BTreeSet::from(["written".into()]));
    let outcomes = Outcomes::new(all, TOPIC);
    let landed = outcomes.read(&kafka.bootstrap());
    landed.every_accepted_is_in();
    landed.no_refused_is_in();
    landed.order_is_kept();
    assert_eq!(landed.duplicates().undeclared, 0);
}
