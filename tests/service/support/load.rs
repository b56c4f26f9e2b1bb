//! Many clients that post at once, and the comparison of what they were told with what Kafka holds.

use super::{
    app::Service,
    client::{Answer, Client},
    consumer, eventually,
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Clients that each post one record after the other until they are stopped.
pub struct Load {
    clients: JoinSet<Vec<(u64, Told)>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    topic: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Written,
    NotWritten,
    Unknown,
    /// The connection was refused: the request never reached the service.
    NoConnection,
}

/// What all clients were told, by the number of the record.
pub struct Outcomes {
    told: HashMap<u64, Told>,
    topic: String,
}

impl Load {
    pub fn start(service: &Service, topic: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (next, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (client, topic) = (service.client(), topic.to_owned());
            let (stop, next, acknowledged) =
                (Arc::clone(&stop), Arc::clone(&next), Arc::clone(&acknowledged));
            tasks.spawn(async move {
                let mut all = Vec::new();
                while !stop.load(Relaxed) {
                    let number = next.fetch_add(1, Relaxed);
                    let told = post(&client, &topic, number).await;
                    all.push((number, told));
                    match told {
                        Told::Written => drop(acknowledged.fetch_add(1, Relaxed)),
                        // a refusal comes at once: not another one in a tight loop
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                all
            });
        }
        Self { clients: tasks, stop, acknowledged, topic: topic.to_owned() }
    }

    /// Waits until so many more records have been acknowledged.
    pub async fn wait_for(&self, more: u64) {
        let enough = self.acknowledged.load(Relaxed) + more;
        eventually("the load is under way", Duration::from_secs(20), || async {
            (self.acknowledged.load(Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// Lets every client finish its last request.
    pub async fn stop(mut self) -> Outcomes {
        self.stop.store(true, Relaxed);
        let mut told = HashMap::new();
        while let Some(client) = self.clients.join_next().await {
            told.extend(client.unwrap());
        }
        Outcomes { told, topic: self.topic }
    }
}

impl Outcomes {
    /// Each record that was acknowledged is in Kafka once, none is there that was called not written, and no
    /// record is there twice. Returns how many were acknowledged.
    pub fn verify(&self, bootstrap: &str) -> usize {
        let mut landed: HashMap<u64, usize> = HashMap::new();
        for record in consumer::read_all(bootstrap, &self.topic) {
            *landed.entry(record.json()["number"].as_u64().unwrap()).or_default() += 1;
        }
        let twice: Vec<_> = landed.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "written twice: {twice:?}");
        let lost = self.numbers(Told::Written).filter(|number| !landed.contains_key(number)).count();
        assert_eq!(lost, 0, "acknowledged and lost");
        for told in [Told::NotWritten, Told::NoConnection] {
            let wrong = self.numbers(told).filter(|number| landed.contains_key(number)).count();
            assert_eq!(wrong, 0, "{told:?}, but in Kafka");
        }
        self.numbers(Told::Written).count()
    }

    /// How many records were refused with certainty.
    pub fn not_written(&self) -> usize {
        self.numbers(Told::NotWritten).count()
    }

    fn numbers(&self, told: Told) -> impl Iterator<Item = u64> {
        self.told.iter().filter(move |(_, known)| **known == told).map(|(number, _)| *number)
    }
}

async fn post(client: &Client, topic: &str, number: u64) -> Told {
    let body = json!({"topic": topic, "value": {"number": number}, "project": "p"}).to_string();
    match client.try_send("POST", "/produce", &[("content-type", "application/json")], body).await {
        Ok(answer) => told(&answer),
        Err(error) if error.is_connect() => Told::NoConnection,
        Err(_) => Told::Unknown,
    }
}

fn told(answer: &Answer) -> Told {
    if answer.status == 202 {
        return Told::Written;
    }
    let problem = answer.json();
    assert!(answer.status == 503 || answer.status == 504, "{answer:?}");
    if problem["outcome"] == "unknown" { Told::Unknown } else { Told::NotWritten }
}
