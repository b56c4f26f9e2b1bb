//! Many clients that post at once, until they are stopped.

use super::{
    app::Service,
    client::{Answer, Client},
    eventually,
    outcomes::{Outcome, Outcomes, Told},
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
    /// Request headers beside the content type.
    pub headers: &'static [(&'static str, &'static str)],
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
        Self { clients: 32, keys: 0, headers: &[] }
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
        eventually("the load is under way", Duration::from_secs(20), || async {
            (accepted() >= enough).then_some(())
        })
        .await;
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

/// One client.
async fn run(index: usize, shared: Arc<Shared>) -> Vec<Outcome> {
    let client = Client::new(shared.address);
    let keys: Vec<_> = (0..shared.options.keys).map(|key| format!("{index}-{key}")).collect();
    let mut turn = keys.iter().cycle();
    let (mut all, mut failures) = (Vec::new(), 0);
    while !shared.stop.load(Relaxed) {
        let number = shared.next.fetch_add(1, Relaxed);
        let key = turn.next().cloned();
        let (told, failure) = post(&client, &shared, number, key.as_deref()).await;
        if told.is_accepted() {
            shared.accepted.fetch_add(1, Relaxed);
        } else {
            failures += 1;
            // a refusal comes at once: not another one in a tight loop
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        all.push(Outcome { number, key, told, failure: failure.filter(|_| failures <= FAILURES_KEPT) });
    }
    all
}

/// What the client is told of its record, and in full what it got in place of an acceptance.
async fn post(client: &Client, shared: &Shared, number: u64, key: Option<&str>) -> (Told, Option<String>) {
    let mut body = json!({"topic": shared.topic, "value": {"number": number}, "project": "p"});
    if let Some(key) = key {
        body["key"] = key.into();
    }
    let headers = [&[("content-type", "application/json")], shared.options.headers].concat();
    match client.try_send("POST", "/produce", &headers, body.to_string()).await {
        Ok(answer) => {
            let told = told(&answer);
            (told, (!told.is_accepted()).then(|| format!("{answer:?}")))
        }
        Err(error) if error.is_connect() => (Told::NoConnection, Some(format!("{error:?}"))),
        Err(error) => (Told::Unknown, Some(format!("{error:?}"))),
    }
}

fn told(answer: &Answer) -> Told {
    if answer.status == 202 {
        return if answer.json()["stored"] == "spool" { Told::Stored } else { Told::Written };
    }
    if answer.header("content-type") != Some("application/problem+json") {
        // what stands before the service speaks for itself and cannot know
        return Told::Unknown;
    }
    assert!(answer.status == 503 || answer.status == 504, "{answer:?}");
    if answer.json()["outcome"] == "unknown" { Told::Unknown } else { Told::NotWritten }
}
