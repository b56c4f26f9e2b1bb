//! Another client takes the place of one whose epoch brokers refuse, while records of it are under way.

use crate::support::{
    app::Service,
    broker::Broker,
    client::Answer,
    eventually,
    numbered::{Delivery, record},
    outcomes::{Outcome, Outcomes},
    proxy::{self, Fault, Proxy},
};
use std::{fs, time::Duration};

const NOT_ENOUGH_REPLICAS: i16 = 19;
const INVALID_PRODUCER_EPOCH: i16 = 47;
/// The number of the record that tells the partition of the producer.
const FIRST: u64 = 1_000_000;

/// A topic of one partition that the service has written to.
async fn topic(kafka: &Broker, service: &Service, config: &[(&str, &str)]) -> String {
    let topic = kafka.new_topic(1, config).await;
    service.client().post("/produce", record(&topic, 0, FIRST, 0).to_string()).await.written();
    topic
}

/// Posts a record after a while.
async fn post(service: &Service, topic: &str, number: u64, padding: usize, after_ms: u64) -> Answer {
    let body = record(topic, 0, number, padding).to_string();
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    service.client().post("/produce", body).await
}

/// A record whose batch is refused after a while, so that another client takes over.
async fn replace(proxy: &Proxy, service: &Service, topic: &str, after: Duration) -> Answer {
    proxy.delay_topic(topic, after);
    proxy.inject(topic, Fault::Refuse(INVALID_PRODUCER_EPOCH), 1);
    let answer = post(service, topic, FIRST, 0, 0).await;
    proxy.heal(topic);
    answer
}

#[tokio::test]
async fn a_record_in_flight_is_written_once_though_a_request_behind_it_is_only_partly_sent() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    // the proxy stops to read in the middle of a large request
    let variables = [("KAFKA_PROPERTY_SOCKET_SEND_BUFFER_BYTES", "65536"), ("KAFKA_COMPRESSION", "none")];
    let service = Delivery::Direct.start(&proxy.address(), &variables).await;
    let refused = topic(kafka, &service, &[]).await;
    let good = topic(kafka, &service, &[]).await;
    let large = topic(kafka, &service, &[("max.message.bytes", "8000000")]).await;
    proxy.delay_topic(&good, Duration::from_secs(4));
    proxy.stall_after(&good, Duration::from_secs(5));
    let (refused, good_answer, _, _, _) = tokio::join!(
        replace(proxy, &service, &refused, Duration::from_millis(1500)),
        post(&service, &good, 1, 0, 200),
        post(&service, &large, 1, 900_000, 500),
        post(&service, &large, 2, 900_000, 600),
        post(&service, &large, 3, 900_000, 700),
    );
    refused.written();
    let outcomes = Outcomes::new(vec![Outcome::of(1, None, &good_answer.json())], &good);
    assert_eq!(outcomes.read(&kafka.bootstrap()).duplicates().undeclared, 0);
}

#[tokio::test]
async fn records_of_a_partition_are_not_sent_by_two_clients_in_turn() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let variables = [("KAFKA_DELIVERY_TIMEOUT_MS", "20000")];
    let service = Delivery::Direct.start(&proxy.address(), &variables).await;
    let refused = topic(kafka, &service, &[]).await;
    for _ in 0..4 {
        let good = topic(kafka, &service, &[]).await;
        proxy.delay_topic(&good, Duration::from_millis(1500));
        proxy.inject(good.as_str(), Fault::Refuse(NOT_ENOUGH_REPLICAS), 1);
        let (_, first, second) = tokio::join!(
            replace(proxy, &service, &refused, Duration::from_millis(1000)),
            post(&service, &good, 1, 0, 100),
            post(&service, &good, 2, 0, 430),
        );
        let offset = |answer: &Answer| answer.written()["offset"].as_i64().unwrap();
        assert!(offset(&first) < offset(&second), "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_replaced_client_ends_though_its_topics_are_not_written_to_again() {
    let Some((proxy, kafka)) = proxy::shared() else { return };
    let service = Delivery::Direct.start(&proxy.address(), &[]).await;
    let refused = topic(kafka, &service, &[]).await;
    let before = clients(&service);
    for _ in 0..3 {
        topic(kafka, &service, &[]).await;
        replace(proxy, &service, &refused, Duration::ZERO).await.written();
    }
    eventually("the clients end", Duration::from_secs(60), async || {
        (clients(&service) == before).then_some(())
    })
    .await;
}

/// Each librdkafka client has one such thread.
fn clients(service: &Service) -> usize {
    let is_main = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "rdk:main")
    };
    let tasks = fs::read_dir(format!("/proc/{}/task", service.id())).unwrap();
    tasks.filter_map(Result::ok).map(is_main).filter(|is_main| *is_main).count()
}
