//! Many clients that post at once, until they are stopped.

use super::{
    app::Service,
    broker::Broker,
    client::{Answer, Client},
    eventually,
    outcomes::{Outcome, Outcomes, Place, Told, place},
};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// How many refusals each client keeps in full; a long outage has very many.
const FAILURES_KEPT: usize = 5;
/// Records of a batch.
const BATCH: usize = 10;
/// How long accepted records may be waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Clients that each post one record after the other until they are stopped. Records are numbered as they are
/// sent, so those of one client have rising numbers in the order of its answers.
pub struct Load {
    clients: JoinSet<Vec<Outcome>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    pub clients: usize,
    /// How many keys each client has for itself and takes in turn; without any, records have no key.
    pub keys: usize,
    pub requests: Requests,
}

/// How the records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    Single,
    /// With `Prefer: respond-async`: nobody waits for Kafka.
    Unwaited,
    /// Several to a request.
    Batch,
}

impl Requests {
    /// All that direct mode knows.
    pub const DIRECT: [Self; 2] = [Self::Single, Self::Batch];
    /// All that durable mode knows.
    pub const DURABLE: [Self; 3] = [Self::Single, Self::Batch, Self::Unwaited];
}

/// What the clients have in common.
struct Shared {
    address: SocketAddr,
    topic: String,
    options: LoadOptions,
    stop: AtomicBool,
    next: AtomicU64,
    accepted: AtomicU64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { clients: 32, keys: 0, requests: Requests::Single }
    }
}

impl Load {
    /// Clients of this service, whose records have no key.
    pub fn start(service: &Service, topic: &str, clients: usize) -> Self {
        Self::start_with(service.address(), topic, LoadOptions { clients, ..LoadOptions::default() })
    }

    /// Clients of any address: that of the service, or of what stands before it.
    pub fn start_with(address: SocketAddr, topic: &str, options: LoadOptions) -> Self {
        let shared = Arc::new(Shared {
            address,
            topic: topic.to_owned(),
            options,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let mut clients = JoinSet::new();
        for client in 0..options.clients {
            clients.spawn(run(client, Arc::clone(&shared)));
        }
        Self { clients, shared }
    }

    /// Waits until so many more records have been accepted.
    pub async fn wait_for(&self, more: u64) {
        let accepted = || self.shared.accepted.load(Relaxed);
        let enough = accepted() + more;
        let what = format!("{more} more records are accepted ({:?})", self.shared.options.requests);
        eventually(&what, LIMIT, || async { (accepted() >= enough).then_some(()) }).await;
    }

    /// Lets every client finish its last request.
    pub async fn stop(mut self) -> Outcomes {
        self.shared.stop.store(true, Relaxed);
        let mut all = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            all.extend(client.unwrap());
        }
        Outcomes::new(all, &self.shared.topic)
    }
}

/// A load of each of some kinds on one service, at the same time, each with a topic of its own.
pub struct Loads(Vec<Load>);

impl Loads {
    /// Topics of three partitions.
    pub async fn start(service: &Service, kafka: &Broker, kinds: &[Requests], options: LoadOptions) -> Self {
        let mut loads = Vec::new();
        for requests in kinds {
            let topic = kafka.new_topic(3, &[]).await;
            loads.push(Load::start_with(
                service.address(),
                &topic,
                LoadOptions { requests: *requests, ..options },
            ));
        }
        Self(loads)
    }

    /// Waits until so many more records of each have been accepted.
    pub async fn wait_for(&self, more: u64) {
        futures_util::future::join_all(self.0.iter().map(|load| load.wait_for(more))).await;
    }

    /// Lets every client finish its last request; in the order of the kinds.
    pub async fn stop(self) -> Vec<Outcomes> {
        futures_util::future::join_all(self.0.into_iter().map(Load::stop)).await
    }
}

/// One client.
async fn run(index: usize, shared: Arc<Shared>) -> Vec<Outcome> {
    let client = Client::new(shared.address);
    let keys: Vec<_> = (0..shared.options.keys).map(|key| format!("{index}-{key}")).collect();
    let mut turn = keys.iter().cycle();
    let (mut all, mut failures) = (Vec::new(), 0);
    let count = if shared.options.requests == Requests::Batch { BATCH } else { 1 };
    while !shared.stop.load(Relaxed) {
        let first = shared.next.fetch_add(count as u64, Relaxed);
        let records: Vec<_> =
            (first..).take(count).map(|number| (number, turn.next().map(String::as_str))).collect();
        let (told, failure) = post(&client, &shared, &records).await;
        let accepted = told.iter().filter(|(told, _)| told.is_accepted()).count();
        shared.accepted.fetch_add(accepted as u64, Relaxed);
        if accepted < count {
            failures += 1;
            // a refusal comes at once: not another one in a tight loop
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut failure = failure.filter(|_| failures <= FAILURES_KEPT);
        for ((number, key), (told, place)) in records.into_iter().zip(told) {
            let failure = if told.is_accepted() { None } else { failure.take() };
            all.push(Outcome { number, key: key.map(str::to_owned), told, place, failure });
        }
    }
    all
}

/// What the client is told of each of its records, and in full what it got where not all were accepted.
async fn post(
    client: &Client,
    shared: &Shared,
    records: &[(u64, Option<&str>)],
) -> (Vec<(Told, Option<Place>)>, Option<String>) {
    let body = |&(number, key): &(u64, Option<&str>)| {
        let mut body = json!({"topic": shared.topic, "value": {"number": number}, "project": "p"});
        if let Some(key) = key {
            body["key"] = key.into();
        }
        body
    };
    let prefer = [("content-type", "application/json"), ("prefer", "respond-async")];
    let (path, headers, body) = match shared.options.requests {
        Requests::Single => ("/produce", &prefer[..1], body(&records[0])),
        Requests::Unwaited => ("/produce", &prefer[..], body(&records[0])),
        Requests::Batch => ("/produce/batch", &prefer[..1], records.iter().map(body).collect()),
    };
    let all = |told| vec![(told, None); records.len()];
    let (told, failure) = match client.try_send("POST", path, headers, body.to_string()).await {
        Ok(answer) => (told(&answer, records.len()), format!("{answer:?}")),
        Err(error) if error.is_connect() => (all(Told::NoConnection), format!("{error:?}")),
        Err(error) => (all(Told::Unknown), format!("{error:?}")),
    };
    let failed = told.iter().any(|(told, _)| !told.is_accepted());
    (told, failed.then_some(failure))
}

/// With where each record is.
fn told(answer: &Answer, records: usize) -> Vec<(Told, Option<Place>)> {
    let content_type = answer.header("content-type").unwrap_or_default();
    if !["application/json", "application/problem+json"].contains(&content_type) {
        // what stands before the service speaks for itself and cannot know
        return vec![(Told::Unknown, None); records];
    }
    assert!([202, 207, 503, 504].contains(&answer.status), "{answer:?}");
    let json = answer.json();
    let told: Vec<_> = match json["results"].as_array() {
        Some(results) => results.iter().map(|result| (Told::of(result), place(result))).collect(),
        None => vec![(Told::of(&json), place(&json)); records],
    };
    assert_eq!(told.len(), records, "{answer:?}");
    told
}
