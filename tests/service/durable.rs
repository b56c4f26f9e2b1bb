//! Durable delivery: what was accepted while Kafka was away, by a service that may die meanwhile, is in Kafka in the end.

use crate::{
    kafka_or_skip,
    support::{
        app::Service,
        broker::{self, Broker},
        consumer, eventually,
        load::{LoadOptions, Loads, Requests},
        mock::Mock,
        outcomes::{Duplicates, Outcome, Outcomes, Told},
        spool::{
            self, ReadyWatch, body, keyed_body, metric, stored, stored_one, wait_empty, wait_metric,
            wait_storing,
        },
    },
};
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};

/// How soon after Kafka's return records are written at once again. The clock starts once the broker has answered a
/// client of the test, and mostly it takes less than a second.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);
/// Clients of each kind, that each have two keys. Few, since what they store while a broker starts has to be sent.
const KEYED: LoadOptions = LoadOptions { clients: 3, keys: 2, requests: Requests::Single };
const KEYS: usize = 6;
const WITHOUT_IDEMPOTENCE: (&str, &str) = ("KAFKA_IDEMPOTENCE", "false");

/// What clients of every kind were told and what is in Kafka are the same, in order. How often records are there again.
fn landed(outcomes: &[Outcomes], kafka: &Broker) -> Duplicates {
    let mut all = Duplicates::default();
    for outcomes in outcomes {
        let landed = outcomes.read(&kafka.bootstrap());
        landed.every_accepted_is_in();
        landed.no_refused_is_in();
        assert_eq!(landed.order_is_kept(), KEYS);
        let Duplicates { declared, undeclared } = landed.duplicates();
        all.declared += declared;
        all.undeclared += undeclared;
    }
    all
}

/// Of every kind so many records at least were answered so.
fn each_was_told(outcomes: &[Outcomes], told: Told, least: usize) {
    for (outcomes, requests) in outcomes.iter().zip(Requests::DURABLE) {
        assert!(outcomes.count(told) >= least, "{requests:?}: {told:?} {} times", outcomes.count(told));
    }
}

/// No client was told that its record is not taken. A connection that breaks says nothing of it.
fn none_was_refused(outcomes: &[Outcomes]) {
    for outcomes in outcomes {
        assert_eq!(outcomes.not_written(), 0, "{:?}", outcomes.failures());
    }
}

/// Kills a broker and restarts it, under a load of every kind that does not notice. How often records are in Kafka again.
async fn killed_broker_is_not_noticed(variables: &[(&str, &str)]) -> Option<Duplicates> {
    let kafka = broker::own(&[])?;
    let known = kafka.new_topic(1, &[]).await;
    let service = spool::ready(&kafka.bootstrap(), variables).await;
    let client = service.client();
    let watch = ReadyWatch::start(&service);
    let loads = Loads::start(&service, &kafka, &Requests::DURABLE, KEYED).await;
    loads.wait_for(100).await;
    kafka.kill();
    wait_storing(&client).await;
    loads.wait_for(200).await;
    let known_key = keyed_body(&known, "known", 0);
    stored_one(&client.post("/produce", known_key.as_str()).await);
    wait_metric(&client, "inlet_spool_records", 600.0).await;

    kafka.restart();
    eventually("records are written at once again, also for a key that waited", RECOVERY_LIMIT, || async {
        let answer = client.post("/produce", known_key.as_str()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["offset"].as_i64()
    })
    .await;
    loads.wait_for(200).await;
    let outcomes = loads.stop().await;
    for outcomes in &outcomes {
        assert_eq!(outcomes.failures(), [""; 0]);
    }
    each_was_told(&outcomes, Told::Stored, 200);
    each_was_told(&outcomes[..2], Told::Written, 100);
    wait_empty(&client).await;
    watch.always_ready().await;
    Some(landed(&outcomes, &kafka))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_and_restarted_fails_no_request_and_loses_repeats_and_disorders_no_record() {
    let Some(duplicates) = killed_broker_is_not_noticed(&[]).await else { return };
    assert_eq!(duplicates, Duplicates::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_idempotence_a_killed_broker_loses_and_disorders_no_record_either() {
    // what is there twice says so or not
    killed_broker_is_not_noticed(&[WITHOUT_IDEMPOTENCE]).await;
}

/// SIGKILL and a start, which finds what was left. How many records that was.
async fn killed_with_a_backlog(service: &Service) -> u64 {
    service.kill();
    service.restart().await;
    let logs = service.logs();
    assert!(logs.contains("what had not been confirmed to anyone was cut off"), "{logs}");
    let left = logs.lines().find(|line| line.contains("the spool holds records of an earlier run"));
    let left: Value =
        serde_json::from_str(left.unwrap_or_else(|| panic!("nothing was left:\n{logs}"))).unwrap();
    left["records"].as_u64().or(left["fields"]["records"].as_u64()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_killed_in_an_outage_and_while_it_sends_the_backlog_repeats_only_what_it_declares() {
    let Some(kafka) = broker::own(&[]) else { return };
    // by which the backlog takes its time
    let slow = ("KAFKA_PROPERTY_BATCH_NUM_MESSAGES", "2");
    let service = spool::ready(&kafka.bootstrap(), &[slow]).await;
    let client = service.client();
    let loads = Loads::start(&service, &kafka, &Requests::DURABLE, KEYED).await;
    loads.wait_for(100).await;
    kafka.kill();
    wait_storing(&client).await;
    loads.wait_for(200).await;
    assert!(killed_with_a_backlog(&service).await >= 600);
    // before the first look of the link, too
    assert_eq!(client.get("/ready").await.status, 200);
    loads.wait_for(1000).await;
    kafka.restart();
    for _ in 0..2 {
        wait_metric(&client, r#"inlet_spool_replayed_total{status="success"}"#, 1.0).await;
        let left = killed_with_a_backlog(&service).await;
        assert!(left >= 100, "{left} were left: it was not killed while it sent them");
        loads.wait_for(50).await;
    }
    let outcomes = loads.stop().await;
    each_was_told(&outcomes, Told::Stored, 1200);
    each_was_told(&outcomes, Told::NoConnection, 1);
    none_was_refused(&outcomes);
    wait_empty(&client).await;
    let Duplicates { declared, undeclared } = landed(&outcomes, &kafka);
    assert_eq!(undeclared, 0, "{declared} are declared");
    assert!(declared > 0, "at neither kill had Kafka records that the spool had, too");
}

#[tokio::test]
async fn a_service_killed_while_kafka_is_healthy_repeats_no_record() {
    let kafka = kafka_or_skip!();
    let service = spool::ready(&kafka.bootstrap(), &[]).await;
    let waited_for = Loads::start(&service, kafka, &Requests::DURABLE[..2], KEYED).await;
    let unwaited = Loads::start(&service, kafka, &Requests::DURABLE[2..], KEYED).await;
    let more = async || tokio::join!(waited_for.wait_for(200), unwaited.wait_for(200));
    for _ in 0..2 {
        more().await;
        service.kill();
        service.restart().await;
        spool::wait_connected(&service.client()).await;
    }
    more().await;
    let (waited_for, unwaited) = tokio::join!(waited_for.stop(), unwaited.stop());
    none_was_refused(&waited_for);
    none_was_refused(&unwaited);
    wait_empty(&service.client()).await;
    assert_eq!(landed(&waited_for, kafka), Duplicates::default());
    // these go through the spool all the time, and are declared as any that do
    assert_eq!(landed(&unwaited, kafka).undeclared, 0);
}

#[tokio::test]
async fn what_a_frozen_broker_takes_in_the_end_is_not_sent_again() {
    const FROZEN: usize = 40;
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(2, &[]).await;
    let service = spool::ready(&kafka.bootstrap(), &[]).await;
    let client = service.client();
    client.post("/produce", body(&topic, 0)).await.written();
    kafka.freeze();
    let posts = (1..=FROZEN).map(|number| {
        let body = if number % 2 == 0 {
            body(&topic, number)
        } else {
            keyed_body(&topic, &format!("key-{number}"), number)
        };
        client.post("/produce", body)
    });
    let receipts: Vec<_> = futures_util::future::join_all(posts).await.iter().map(stored_one).collect();
    wait_metric(&client, "inlet_spool_held_records", FROZEN as f64).await;
    // behind one that librdkafka holds
    let behind = stored_one(&client.post("/produce", keyed_body(&topic, "key-1", FROZEN + 1)).await);
    let held = client.get(&format!("/receipts/{}", receipts[0])).await;
    assert_eq!(held.json()["state"], "pending", "{held:?}");

    kafka.thaw();
    for (id, number) in receipts.iter().chain([&behind]).zip(1..) {
        assert_eq!(spool::read_written(&client, &kafka.bootstrap(), id).await["number"], number);
    }
    wait_empty(&client).await;
    assert_eq!(metric(&client, "inlet_spool_held_records").await, 0.0);
    let records = consumer::read_all(&kafka.bootstrap(), &topic);
    assert_eq!(records.len(), FROZEN + 2, "one of them is there twice");
    let replayed = records.iter().filter(|record| record.header("receipt-replayed").is_some());
    assert_eq!(replayed.count(), 1, "only the one that was not attempted was sent from the spool");
    client.post("/produce", keyed_body(&topic, "key-1", 0)).await.written();
}

#[tokio::test]
async fn every_kind_of_request_is_stored_in_an_outage_and_its_receipts_tell_where_it_is_then() {
    if !broker::startable() {
        return;
    }
    let kafka = Broker::prepare(&[]);
    let service = spool::spawn(&kafka.bootstrap(), &[]).await;
    let client = service.client();
    let records: Vec<Value> = (0..6)
        .map(|number| json!({"topic": "kinds", "key": "k", "value": {"number": number}, "project": "p"}))
        .collect();
    let batch = client.post("/produce/batch", serde_json::to_vec(&records[..3]).unwrap()).await;
    let lines: Vec<_> = records[3..].iter().map(Value::to_string).collect();
    let ndjson = client.post_as("application/x-ndjson", "/produce/batch", lines.join("\n")).await;
    let mut receipts = Vec::new();
    for answer in [&batch, &ndjson] {
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = answer.json();
        assert_eq!((&answer["messages_sent"], &answer["messages_stored"]), (&json!(0), &json!(3)));
        receipts.extend(answer["results"].as_array().unwrap().iter().map(stored));
    }
    let unwaited = [("content-type", "application/json"), ("prefer", "respond-async")];
    let post_unwaited =
        async |number| client.send("POST", "/produce", &unwaited, keyed_body("kinds", "k", number)).await;
    receipts.push(stored_one(&post_unwaited(6).await));
    receipts.push(stored_one(&client.post("/produce", keyed_body("kinds", "k", 7)).await));
    assert_eq!(receipts.iter().collect::<HashSet<_>>().len(), 8, "each record has a receipt of its own");

    kafka.restart();
    kafka.create_topic("kinds", 1, &[]).await;
    let bootstrap = kafka.bootstrap();
    for (id, number) in receipts.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, &bootstrap, id).await["number"], number);
    }
    let answer = post_unwaited(8).await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"), "{answer:?}");
    let id = stored_one(&answer);
    assert_eq!(spool::read_written(&client, &bootstrap, &id).await["number"], 8);
    let numbers: Vec<_> = consumer::read_all(&bootstrap, "kinds")
        .iter()
        .map(|record| record.json()["number"].clone())
        .collect();
    assert_eq!(numbers, (0..9).map(Value::from).collect::<Vec<_>>(), "in the order of the requests, once");
}

#[tokio::test]
async fn a_service_that_is_told_to_end_with_a_backlog_says_so_and_sends_it_after_its_next_start() {
    let mock = Mock::start(1);
    mock.create_topic("topic", 1);
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[]).await;
    let client = service.client();
    let mut receipts = Vec::new();
    for number in 0..30 {
        receipts.push(stored_one(&client.post("/produce", keyed_body("topic", "k", number)).await));
    }
    service.signal("TERM");
    let (status, _) = service.wait_exit(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}\n{}", service.logs());
    eventually("the log says what remains", Duration::from_secs(5), || async {
        let logs = service.logs();
        let line = logs.lines().find(|line| line.contains("records remain in the spool"))?;
        assert!(line.contains(r#""records":30"#), "{line}");
        Some(())
    })
    .await;

    mock.broker_up(1);
    service.restart().await;
    assert!(!service.logs().contains("was not closed"), "{}", service.logs());
    for (id, number) in receipts.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, mock.bootstrap(), id).await["number"], number);
    }
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), 30);
}

#[tokio::test]
async fn a_service_that_is_told_to_end_while_librdkafka_has_stored_records_repeats_only_what_it_declares() {
    const HELD: u64 = 20;
    let Some(kafka) = broker::own(&[]) else { return };
    let topic = kafka.new_topic(2, &[]).await;
    let quick = [("SHUTDOWN_DELAY_MS", "0"), ("SHUTDOWN_TIMEOUT_MS", "3000")];
    let service = spool::ready(&kafka.bootstrap(), &quick).await;
    let client = service.client();
    client.post("/produce", keyed_body(&topic, "first", 1_000_000)).await.written();
    kafka.freeze();
    // each key's first record is held, its second waits behind it
    let mut all = Vec::new();
    for turn in 0..2 {
        let posts = (0..HELD).map(|key| {
            let number = turn * HELD + key;
            client.post("/produce", keyed_body(&topic, &format!("key-{key}"), number as usize))
        });
        for (answer, key) in futures_util::future::join_all(posts).await.iter().zip(0..) {
            stored_one(answer);
            let (number, key) = (turn * HELD + key, Some(format!("key-{key}")));
            all.push(Outcome { number, key, told: Told::Stored, place: None, failure: None });
        }
    }
    wait_metric(&client, "inlet_spool_held_records", HELD as f64).await;
    service.signal("TERM");
    let (status, _) = service.wait_exit(Duration::from_secs(25)).await;
    assert!(status.success(), "{status}\n{}", service.logs());

    // the broker finds what the old process had sent, and then the new one
    kafka.thaw();
    service.restart().await;
    wait_empty(&client).await;
    let outcomes = Outcomes::new(all, &topic);
    let landed = outcomes.read(&kafka.bootstrap());
    assert_eq!(landed.every_accepted_is_in() as u64, 2 * HELD);
    assert_eq!(landed.order_is_kept() as u64, HELD);
    let Duplicates { declared, undeclared } = landed.duplicates();
    assert_eq!(undeclared, 0, "{declared} are declared");
}
