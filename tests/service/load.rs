//! Many clients at once.

use crate::{
    kafka_or_skip,
    support::{app::Service, load::Load},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const DESCRIPTORS: u64 = 8192;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_are_served_and_every_acknowledged_record_is_in_kafka() {
    let kafka = kafka_or_skip!();
    // both ends of the connections of the clients
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), ..limit }).unwrap();
    }
    let topic = kafka.new_topic(6, &[]).await;
    let service = Service::on(kafka, &[]).await;
    let load = Load::start(&service, &topic, 1000);
    load.wait_for(5000).await;
    let outcomes = load.stop().await;
    assert!(outcomes.verify(&kafka.bootstrap()) >= 5000);
    assert_eq!(outcomes.not_written(), 0, "the budget is large enough for a thousand small records");
}
