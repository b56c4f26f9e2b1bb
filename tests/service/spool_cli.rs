//! Records that Kafka refuses for ever after they were accepted: nothing is dropped but by an operator, who lists,
//! retries and drops with `kafka-inlet spool`, or finds them in the dead letter topic.

use crate::support::{
    app::{Run, Service, run},
    consumer, eventually,
    mock::Mock,
    spool::stored_one,
};
use rdkafka::types::RDKafkaRespErr;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tempfile::TempDir;

/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(20);
const TOPIC: &str = "orders";
const TOO_LARGE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;

/// A durable service on a mock cluster that has the topic, and its spool.
struct Durable {
    mock: Mock,
    service: Service,
    directory: TempDir,
}

impl Durable {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let mock = Mock::start(1);
        mock.create_topic(TOPIC, 1);
        // a short path: sockets cannot have long ones
        let directory = tempfile::tempdir().unwrap();
        let all = [
            &spool(directory.path())[..],
            &[("KAFKA_BROKERS", mock.bootstrap()), ("SHUTDOWN_DELAY_MS", "0")],
            variables,
        ];
        let service = Service::ready(&all.concat()).await;
        Self { mock, service, directory }
    }

    /// `kafka-inlet spool` with the service's settings.
    async fn spool(&self, arguments: &[&str]) -> Run {
        run(&[&["spool"], arguments].concat(), &spool(self.directory.path())).await
    }

    /// Accepts a record that Kafka then refuses, once in company and once alone; its receipt.
    async fn refused(&self, key: &str) -> String {
        self.mock.repeated_produce_error(TOO_LARGE, 2);
        let receipt = self.stored(key).await;
        self.failed(&receipt).await;
        receipt
    }

    /// Stores a record without an attempt; its receipt.
    async fn stored(&self, key: &str) -> String {
        let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
        stored_one(&self.service.client().send("POST", "/produce", &headers, body(key)).await)
    }

    /// What became of a record.
    async fn state(&self, receipt: &str, wait: &str) -> Value {
        self.service.client().get(&format!("/receipts/{receipt}?wait={wait}")).await.json()
    }

    /// Waits until the record has failed, on the disk too.
    async fn failed(&self, receipt: &str) -> Value {
        let state = self.state(receipt, "20s").await;
        assert_eq!(state["state"], "failed", "{state}\n{}", self.service.logs());
        eventually("the record is listed", LIMIT, async || {
            self.spool(&["list"]).await.output.contains(receipt).then_some(())
        })
        .await;
        state
    }

    async fn metric(&self, sample: &str) {
        let client = self.service.client();
        eventually(sample, LIMIT, async || {
            client.get("/metrics").await.body.lines().any(|line| line == sample).then_some(())
        })
        .await;
    }

    async fn stop(&self) {
        self.service.signal("TERM");
        let (status, _) = self.service.wait_exit(LIMIT).await;
        assert!(status.success(), "{}", self.service.logs());
    }

    fn records(&self, topic: &str) -> Vec<consumer::ReadRecord> {
        consumer::read_all(self.mock.bootstrap(), topic)
    }
}

fn spool(directory: &Path) -> [(&str, &str); 3] {
    [("DELIVERY", "durable"), ("SPOOL_DIR", directory.to_str().unwrap()), ("INSTANCE_ID", "one")]
}

fn body(key: &str) -> String {
    json!({"topic": TOPIC, "key": key, "message": {"n": 1}}).to_string()
}

#[track_caller]
fn fine(run: &Run) {
    assert_eq!(run.status.code(), Some(0), "{}", run.output);
}

#[tokio::test]
async fn a_record_accepted_while_kafka_was_away_and_then_refused_is_counted_logged_and_listed() {
    let durable = Durable::start(&[]).await;
    durable.mock.broker_down(1);
    let receipt = stored_one(&durable.service.client().post("/produce", body("42")).await);
    durable.mock.repeated_produce_error(TOO_LARGE, 2);
    durable.mock.broker_up(1);
    let state = durable.failed(&receipt).await;
    assert_eq!((&state["error"], state.get("dead_letter")), (&json!("record_too_large"), None), "{state}");
    durable.metric("inlet_spool_failed_records 1").await;
    let logs = durable.service.logs();
    let told = logs.lines().find(|line| line.contains("ERROR") && line.contains(&receipt));
    assert!(told.is_some_and(|line| line.contains("kafka-inlet spool list")), "{logs}");
    assert_eq!(durable.records(TOPIC), []);

    let running = durable.spool(&["list"]).await;
    durable.stop().await;
    assert!(!durable.directory.path().join("control.sock").exists(), "it outlives the service");
    let stopped = durable.spool(&["list"]).await;
    for list in [&running, &stopped] {
        fine(list);
        for said in [&receipt, TOPIC, "key \"42\"", "record_too_large", "failed: 1; waiting to be sent: 0"] {
            assert!(list.output.contains(said), "{said}: {}", list.output);
        }
    }
    assert_eq!(running.output, stopped.output);
}

#[tokio::test]
async fn a_retried_record_reaches_kafka_as_a_declared_duplicate() {
    let durable = Durable::start(&[]).await;
    let receipt = durable.refused("42").await;
    let retry = durable.spool(&["retry", &receipt]).await;
    fine(&retry);
    assert!(retry.output.contains(&format!("retried {receipt}")), "{}", retry.output);
    eventually("it is written", LIMIT, async || {
        (durable.state(&receipt, "5s").await["state"] == "written").then_some(())
    })
    .await;
    let records = durable.records(TOPIC);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].header("receipt"), Some(receipt.as_str()));
    assert_eq!(records[0].header("receipt-replayed"), Some("true"));
    assert_eq!(records[0].key.as_deref(), Some(&b"42"[..]));
    durable.metric("inlet_spool_failed_records 0").await;
    let again = durable.spool(&["retry", &receipt]).await;
    assert_eq!(again.status.code(), Some(1), "{}", again.output);
    assert!(again.output.contains("it is in Kafka"), "{}", again.output);
    // its line is free: what comes next goes to Kafka at once
    let next = durable.service.client().post("/produce", body("42")).await.written();
    assert!(next["offset"].is_i64(), "{next}");
}

#[tokio::test]
async fn what_is_retried_while_no_service_runs_is_sent_by_the_next_start() {
    let durable = Durable::start(&[]).await;
    let receipts = [durable.refused("1").await, durable.refused("2").await];
    // a crash leaves its socket behind
    durable.service.kill();
    assert!(durable.directory.path().join("control.sock").exists());
    let retry = durable.spool(&["retry", "--all"]).await;
    fine(&retry);
    assert!(retry.output.contains("by the next start of the service"), "{}", retry.output);
    durable.service.restart().await;
    for receipt in &receipts {
        eventually("it is written", LIMIT, async || {
            (durable.state(receipt, "5s").await["state"] == "written").then_some(())
        })
        .await;
    }
    eventually("nothing is left", LIMIT, async || {
        let list = durable.spool(&["list"]).await;
        fine(&list);
        list.output.starts_with("failed: 0; waiting to be sent: 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dropped_record_is_gone_and_its_receipt_goes_on_saying_why() {
    let durable = Durable::start(&[]).await;
    let (first, second) = (durable.refused("1").await, durable.refused("2").await);
    let drop = durable.spool(&["drop", &first]).await;
    fine(&drop);
    assert!(drop.output.contains(&format!("dropped {first}")), "{}", drop.output);
    assert!(!drop.output.contains(&second), "{}", drop.output);
    durable.metric("inlet_spool_failed_records 1").await;
    let state = durable.state(&first, "0s").await;
    assert_eq!((&state["state"], &state["error"]), (&json!("failed"), &json!("record_too_large")), "{state}");
    fine(&durable.spool(&["drop", "--all"]).await);
    durable.metric("inlet_spool_failed_records 0").await;
    durable.metric("inlet_spool_bytes 0").await;
    assert_eq!(durable.records(TOPIC), []);
}

#[tokio::test]
async fn records_that_wait_for_a_mistyped_topic_are_dropped_and_new_ones_are_taken_again() {
    for is_running in [true, false] {
        let durable = Durable::start(&[("SPOOL_MAX_AGE", "1s")]).await;
        let client = durable.service.client();
        durable.mock.broker_down(1);
        let record = |topic: &str| json!({"topic": topic, "key": "42", "message": {"n": 1}});
        let batch = json!([record("ordres"), record(TOPIC), record("ordres")]).to_string();
        let stored = client.post("/produce/batch", batch).await.json();
        let receipt = |at: usize| stored["results"][at]["receipt"].as_str().unwrap().to_owned();
        durable.mock.broker_up(1);
        assert_eq!(durable.state(&receipt(1), "20s").await["state"], "written");
        let full = |status: u16| {
            let (client, body) = (durable.service.client(), body("43"));
            let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
            async move { (client.send("POST", "/produce", &headers, body).await.status == status).then_some(()) }
        };
        eventually("everybody is refused", LIMIT, async || full(503).await).await;
        if !is_running {
            durable.service.kill();
        }
        let drop = durable.spool(&["drop", "--topic", "ordres"]).await;
        fine(&drop);
        for said in
            [&receipt(0), &receipt(2), "ordres key \"42\"", "2 records are dropped", "waiting to be sent: 0"]
        {
            assert!(drop.output.contains(said), "{said}: {}", drop.output);
        }
        assert!(!drop.output.contains(&receipt(1)), "{}", drop.output);
        let again = durable.spool(&["drop", "--topic", "ordres"]).await;
        assert_eq!(again.status.code(), Some(1), "{}", again.output);
        assert!(again.output.contains("ordres: no record waits for this topic"), "{}", again.output);
        if !is_running {
            durable.service.restart().await;
        }
        eventually("new ones are taken", LIMIT, async || full(202).await).await;
        let state = durable.state(&receipt(0), "0s").await;
        assert_eq!((&state["state"], &state["error"]), (&json!("failed"), &json!("dropped")), "{state}");
        assert!(state["reason"].as_str().unwrap().contains("an operator dropped"), "{state}");
        durable.metric("inlet_spool_records 0").await;
        durable.metric("inlet_spool_bytes 0").await;
        durable.metric("inlet_spool_failed_records 0").await;
        let of_batch = |record: &consumer::ReadRecord| record.key.as_deref() == Some(&b"42"[..]);
        assert_eq!(durable.records(TOPIC).into_iter().filter(of_batch).count(), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_for_each_receipt() {
    let durable = Durable::start(&[]).await;
    let failed = durable.refused("1").await;
    let (unknown, elsewhere) = ("one-0000000000000001", "other-0000000000000001");
    let some = durable.spool(&["drop", unknown, elsewhere, &failed]).await;
    assert_eq!(some.status.code(), Some(1), "{}", some.output);
    assert!(some.output.contains(&format!("{unknown}: no record is known")), "{}", some.output);
    let another = format!("{elsewhere}: it is of another instance, and this is 'one'");
    assert!(some.output.contains(&another), "{}", some.output);
    assert!(some.output.contains(&format!("dropped {failed}")), "{}", some.output);
    let refused = durable.spool(&["retry", "one-1"]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.output);
    assert!(refused.output.contains("one-1") && refused.output.contains("no receipt"), "{}", refused.output);
    let direct = run(&["spool", "list"], &[]).await;
    assert_eq!(direct.status.code(), Some(64), "{}", direct.output);
    assert!(direct.output.contains("DELIVERY=durable"), "{}", direct.output);
    let empty = tempfile::tempdir().unwrap();
    let unused = run(&["spool", "list"], &spool(empty.path())).await;
    assert_eq!(unused.status.code(), Some(1), "{}", unused.output);
    assert!(unused.output.contains("holds no spool"), "{}", unused.output);
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "it left something");
}

#[tokio::test]
async fn a_renamed_instance_lists_and_retries_a_failed_record_by_its_old_receipt() {
    let durable = Durable::start(&[]).await;
    let receipt = durable.refused("42").await;
    durable.stop().await;
    // a command has the name of its own container, and leaves none behind
    let renamed = [&spool(durable.directory.path())[..2], &[("INSTANCE_ID", "two")]].concat();
    let stopped = run(&["spool", "list"], &renamed).await;
    fine(&stopped);
    assert!(stopped.output.contains(&receipt), "{}", stopped.output);

    let brokers = ("KAFKA_BROKERS", durable.mock.bootstrap());
    let service = Service::ready(&[&renamed[..], &[brokers]].concat()).await;
    let logs = service.logs();
    assert!(logs.lines().any(|line| line.contains("WARN") && line.contains("INSTANCE_ID")), "{logs}");
    let running = durable.spool(&["list"]).await;
    assert_eq!(running.output, stopped.output);
    fine(&durable.spool(&["retry", &receipt]).await);
    let state = service.client().get(&format!("/receipts/{receipt}?wait=20s")).await.json();
    assert_eq!(state["state"], "written", "{state}");
    let records = durable.records(TOPIC);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].header("receipt"), Some(receipt.as_str()));
}

#[tokio::test]
async fn a_refused_record_goes_to_the_dead_letter_topic() {
    let durable = Durable::start(&[("DEAD_LETTER_TOPIC", "{topic}.dlq")]).await;
    durable.mock.create_topic("orders.dlq", 1);
    durable.mock.repeated_produce_error(TOO_LARGE, 2);
    let receipt = durable.stored("42").await;
    let state = durable.state(&receipt, "20s").await;
    assert_eq!((&state["state"], &state["error"]), (&json!("failed"), &json!("record_too_large")), "{state}");
    assert_eq!(state["dead_letter"], json!({"topic": "orders.dlq", "partition": 0, "offset": 0}), "{state}");
    let letters = durable.records("orders.dlq");
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!((letter.key.as_deref(), &letter.json()["n"]), (Some(&b"42"[..]), &json!(1)));
    assert_eq!(letter.header("dead-letter-error"), Some("record_too_large"));
    assert_eq!(letter.header("dead-letter-topic"), Some(TOPIC));
    assert_eq!(letter.header("receipt"), Some(receipt.as_str()));
    assert_eq!(letter.header("dead-letter-reason"), state["reason"].as_str());
    let time = letter.header("dead-letter-time").unwrap();
    assert!(time.len() == "2026-11-21T09:30:00.123Z".len() && time.ends_with('Z'), "{time}");
    let list = durable.spool(&["list"]).await;
    fine(&list);
    assert!(!list.output.contains(&receipt), "{}", list.output);
    durable.metric("inlet_spool_failed_records 0").await;
}

#[tokio::test]
async fn without_its_dead_letter_topic_a_refused_record_stays_in_the_spool() {
    let durable = Durable::start(&[("DEAD_LETTER_TOPIC", "{topic}.dlq")]).await;
    let receipt = durable.refused("42").await;
    let state = durable.state(&receipt, "0s").await;
    assert_eq!(state.get("dead_letter"), None, "{state}");
    assert!(state["reason"].as_str().unwrap().contains("orders.dlq"), "{state}");
    durable.metric("inlet_spool_failed_records 1").await;
}

#[tokio::test]
async fn a_service_whose_socket_has_too_long_a_path_says_so_and_so_does_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(110));
    std::fs::create_dir(&deep).unwrap();
    let service = Service::spawn(&spool(&deep)).await;
    let warned =
        service.logs().lines().any(|line| line.contains("WARN") && line.contains("kafka-inlet spool"));
    assert!(warned, "{}", service.logs());
    let list = run(&["spool", "list"], &spool(&deep)).await;
    assert_eq!(list.status.code(), Some(1), "{}", list.output);
    assert!(list.output.contains("too long for a socket"), "{}", list.output);
    service.kill();
    fine(&run(&["spool", "list"], &spool(&deep)).await);
}
