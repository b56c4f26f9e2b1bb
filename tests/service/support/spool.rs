//! The service in durable mode, and what it says of its spool.

use super::{
    app::Service,
    client::{Answer, Client},
    consumer, eventually,
};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// A short time-out keeps the tests short.
const DELIVERY_TIMEOUT: (&str, &str) = ("KAFKA_DELIVERY_TIMEOUT_MS", "3000");
/// How often the service looks at its spool for the metrics, and a little more.
const LOOK: Duration = Duration::from_millis(1200);
/// How long a backlog of a test may stay as it is, or a receipt pending, on a busy machine.
const REPLAY_LIMIT: Duration = Duration::from_secs(60);

/// Durable delivery with the spool in the working directory, and these variables, which win.
pub async fn spawn(bootstrap: &str, variables: &[(&str, &str)]) -> Service {
    let durable = [
        ("KAFKA_BROKERS", bootstrap),
        ("DELIVERY", "durable"),
        ("SPOOL_DIR", "."),
        ("INSTANCE_ID", "one"),
        DELIVERY_TIMEOUT,
    ];
    Service::spawn(&[&durable, variables].concat()).await
}

/// As [`spawn`], once Kafka answers.
pub async fn ready(bootstrap: &str, variables: &[(&str, &str)]) -> Service {
    let service = spawn(bootstrap, variables).await;
    wait_connected(&service.client()).await;
    service
}

/// Until the service knows that Kafka answers.
pub async fn wait_connected(client: &Client) {
    eventually("Kafka answers the service", Duration::from_secs(20), || async {
        let answer = client.get("/ready").await;
        (answer.status == 200 && answer.json()["notice"].is_null()).then_some(())
    })
    .await;
}

/// Until the service knows that Kafka is away. It stays ready, and says where records go.
pub async fn wait_storing(client: &Client) {
    eventually("records are stored", Duration::from_secs(10), || async {
        let answer = client.get("/ready").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        json["notice"].as_str().is_some_and(|notice| notice.contains("stored on disk")).then_some(())
    })
    .await;
}

/// Until nothing is left to be sent. However much that is, it has to become less.
pub async fn wait_empty(client: &Client) {
    // what was stored a moment ago shows at the next look
    tokio::time::sleep(LOOK).await;
    let (mut least, mut since) = (f64::INFINITY, Instant::now());
    loop {
        let left = metric(client, "inlet_spool_records").await;
        if left == 0.0 {
            return;
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        assert!(
            since.elapsed() < REPLAY_LIMIT,
            "{left} records are left, and were {least} {REPLAY_LIMIT:?} ago"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Until this metric is at least so high.
pub async fn wait_metric(client: &Client, name: &str, least: f64) {
    eventually(name, Duration::from_secs(20), || async {
        (metric(client, name).await >= least).then_some(())
    })
    .await;
}

/// The value of a sample, by its name and labels as they are written.
pub async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.get("/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

/// The id of the receipt of one stored record.
#[track_caller]
pub fn stored(result: &Value) -> String {
    assert_eq!(result["stored"], "spool", "{result}");
    result["receipt"].as_str().unwrap().to_owned()
}

/// Fails unless the record was stored; the id of its receipt.
#[track_caller]
pub fn stored_one(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = stored(&answer.json());
    assert_eq!(answer.header("location"), Some(&*format!("/receipts/{id}")), "{answer:?}");
    id
}

/// The receipt once it is final.
pub async fn receipt(client: &Client, id: &str) -> Value {
    eventually("the receipt is final", REPLAY_LIMIT, || async {
        let answer = client.get(&format!("/receipts/{id}?wait=10s")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let receipt = answer.json();
        (receipt["state"] != "pending").then_some(receipt)
    })
    .await
}

/// Waits until the record is written, and reads it where its receipt says; its value.
pub async fn read_written(client: &Client, bootstrap: &str, id: &str) -> Value {
    let receipt = receipt(client, id).await;
    assert_eq!(receipt["state"], "written", "{receipt}");
    let record = consumer::read_receipt(bootstrap, &receipt);
    assert_eq!(record.header("receipt"), Some(id));
    record.json()
}

/// Asks for `/ready` all the time, until it is stopped.
pub struct ReadyWatch {
    stop: oneshot::Sender<()>,
    watch: JoinHandle<Vec<Answer>>,
}

impl ReadyWatch {
    pub fn start(service: &Service) -> Self {
        let client = service.client();
        let (stop, mut stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let watch = tokio::spawn(async move {
            let mut unready = Vec::new();
            while stopped.try_recv().is_err() {
                let answer = client.get("/ready").await;
                unready.extend((answer.status != 200).then_some(answer));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            unready
        });
        Self { stop, watch }
    }

    /// Fails unless every answer was 200.
    pub async fn always_ready(self) {
        self.stop.send(()).unwrap();
        let unready = self.watch.await.unwrap();
        assert!(unready.is_empty(), "{unready:?}");
    }
}

/// A record without a key, to post.
pub fn body(topic: &str, number: usize) -> String {
    json!({"topic": topic, "value": {"number": number}, "project": "p"}).to_string()
}

/// A record with a key, to post.
pub fn keyed_body(topic: &str, key: &str, number: usize) -> String {
    json!({"topic": topic, "value": {"number": number}, "project": "p", "key": key}).to_string()
}

/// The most memory that the process has had, in bytes.
pub fn peak_memory(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes = line.trim().strip_suffix(" kB").unwrap();
    kibibytes.trim().parse::<u64>().unwrap() * 1024
}
