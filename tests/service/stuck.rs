//! Stored records of a topic or a partition that cannot be written to hold up no others.

use crate::support::{
    app::Service,
    broker::{self, Broker},
    consumer, eventually,
    mock::Mock,
    spool::{self, body, keyed_body, metric, stored_one, wait_empty},
};
use rdkafka::types::RDKafkaRespErr;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn records_for_a_topic_that_does_not_exist_hold_up_no_other_and_are_written_once_it_does() {
    if !broker::startable() {
        return;
    }
    let kafka = Broker::prepare(&[]);
    let service = spool::spawn(&kafka.bootstrap(), &[]).await;
    let client = service.client();
    let (mut missing, mut known) = (Vec::new(), Vec::new());
    for number in 0..20 {
        missing.push(stored_one(&client.post("/produce", keyed_body("missing", "k", number)).await));
        known.push(stored_one(&client.post("/produce", keyed_body("known", "k", number)).await));
    }
    kafka.restart();
    kafka.create_topic("known", 1, &[]).await;
    let bootstrap = kafka.bootstrap();
    for (id, number) in known.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, &bootstrap, id).await["number"], number);
    }
    client.post("/produce", keyed_body("known", "k", 20)).await.written()["offset"].as_i64().unwrap();
    let pending = client.get(&format!("/receipts/{}", missing[0])).await;
    assert_eq!(pending.json()["state"], "pending", "{pending:?}");
    assert_eq!(metric(&client, "inlet_spool_failed_records").await, 0.0);

    kafka.create_topic("missing", 1, &[]).await;
    for (id, number) in missing.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, &bootstrap, id).await["number"], number);
    }
    let numbers: Vec<_> = consumer::read_all(&bootstrap, "missing")
        .iter()
        .map(|record| record.json()["number"].clone())
        .collect();
    assert_eq!(numbers, (0..20).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_for_many_topics_that_are_not_known_yet_are_written_without_a_topic_being_put_off() {
    let mock = Mock::start(1);
    let topics: Vec<_> = (0..60).map(|number| format!("many-{number}")).collect();
    topics.iter().for_each(|topic| mock.create_topic(topic, 1));
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[]).await;
    let client = service.client();
    for topic in &topics {
        stored_one(&client.post("/produce", body(topic, 0)).await);
    }
    mock.broker_up(1);
    wait_empty(&client).await;
    // more than may wait to be asked for at once
    let logs = service.logs();
    assert!(!logs.contains("too many such topics"), "{logs}");
    topics.iter().for_each(|topic| assert_eq!(consumer::count(mock.bootstrap(), topic), 1, "{topic}"));
}

#[tokio::test]
async fn records_for_a_topic_that_denies_them_hold_up_no_other_and_are_written_once_it_does_not() {
    let mock = Mock::start(1);
    mock.create_topic("denied", 1);
    mock.create_topic("open", 1);
    mock.broker_down(1);
    let service = spool::spawn(mock.bootstrap(), &[]).await;
    let client = service.client();
    let (mut denied, mut open) = (Vec::new(), Vec::new());
    for number in 0..10 {
        denied.push(stored_one(&client.post("/produce", keyed_body("denied", "k", number)).await));
        open.push(stored_one(&client.post("/produce", keyed_body("open", "k", number)).await));
    }
    mock.topic_error("denied", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    mock.broker_up(1);
    for (id, number) in open.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, mock.bootstrap(), id).await["number"], number);
    }
    let pending = client.get(&format!("/receipts/{}", denied[0])).await;
    assert_eq!(pending.json()["state"], "pending", "{pending:?}");
    mock.topic_error("denied", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    for (id, number) in denied.iter().zip(0..) {
        assert_eq!(spool::read_written(&client, mock.bootstrap(), id).await["number"], number);
    }
    assert_eq!(consumer::count(mock.bootstrap(), "denied"), 10);
}

#[tokio::test]
async fn a_partition_that_is_stuck_delays_no_other() {
    let mock = Mock::start(2);
    mock.create_topic("topic", 2);
    let service = spool::ready(mock.bootstrap(), &[]).await;
    let client = service.client();
    let post = async |partition: i32, number: usize| {
        let body = json!({"topic": "topic", "value": {"number": number}, "project": "p", "partition": partition,
                          "key": format!("key-{partition}")});
        client.post("/produce", body.to_string()).await
    };
    for partition in 0..2 {
        post(partition, 0).await.written();
    }
    mock.broker_down(2);
    // one of the two waits for the deadline; which partition is the broker's is the cluster's choice
    let answers = [post(0, 1).await, post(1, 1).await];
    let is_stuck = |answer: &crate::support::client::Answer| answer.json()["stored"] == "spool";
    let stuck = i32::from(is_stuck(&answers[1]));
    let mut receipts = vec![stored_one(&answers[stuck as usize])];
    answers[1 - stuck as usize].written()["offset"].as_i64().unwrap();
    for number in 2..22 {
        receipts.push(stored_one(&post(stuck, number).await));
        let answer = post(1 - stuck, number).await;
        answer.written()["offset"].as_i64().unwrap_or_else(|| panic!("{answer:?}"));
    }
    // from the spool, too, as its records are looked at again and again
    let unwaited = [("content-type", "application/json"), ("prefer", "respond-async")];
    let body = json!({"topic": "topic", "value": {"number": 22}, "project": "p", "partition": 1 - stuck});
    let id = stored_one(&client.send("POST", "/produce", &unwaited, body.to_string()).await);
    assert_eq!(spool::receipt(&client, &id).await["state"], "written");
    assert_eq!(client.get("/ready").await.status, 200);

    mock.broker_up(2);
    for (id, number) in receipts.iter().zip(1..) {
        assert_eq!(spool::read_written(&client, mock.bootstrap(), id).await["number"], number);
    }
    let of_stuck: Vec<_> = consumer::read_all(mock.bootstrap(), "topic")
        .iter()
        .filter(|record| record.partition == stuck)
        .map(|record| record.json()["number"].clone())
        .collect();
    assert_eq!(of_stuck, (0..22).map(Value::from).collect::<Vec<_>>(), "in order, once");
}

/// A topic of two partitions, each led by a broker of its own, that were written to once; then the second broker ends.
async fn half_silent(variables: &[(&str, &str)]) -> (Mock, Service) {
    let mock = Mock::start(2);
    mock.create_topic("topic", 2);
    mock.create_topic("other", 1);
    mock.leader("topic", 0, 1);
    mock.leader("topic", 1, 2);
    mock.leader("other", 0, 1);
    let service = spool::ready(mock.bootstrap(), variables).await;
    let client = service.client();
    for partition in 0..2 {
        let body = json!({"topic": "topic", "value": {"number": 0}, "project": "p", "partition": partition});
        client.post("/produce", body.to_string()).await.written();
    }
    client.post("/produce", body("other", 0)).await.written();
    mock.broker_down(2);
    (mock, service)
}

#[tokio::test]
async fn stored_records_without_a_key_on_a_silent_partition_hold_up_no_others() {
    const UNWAITED: [(&str, &str); 2] = [("content-type", "application/json"), ("prefer", "respond-async")];
    let (mock, service) = half_silent(&[]).await;
    let client = service.client();
    let post = async |topic: &str, number: usize| {
        stored_one(&client.send("POST", "/produce", &UNWAITED, body(topic, number)).await)
    };
    let mut to_topic = Vec::new();
    for number in 1..=20 {
        to_topic.push(post("topic", number).await);
    }
    for number in 1..=5 {
        let id = post("other", number).await;
        assert_eq!(spool::receipt(&client, &id).await["state"], "written");
    }
    mock.broker_up(2);
    for (id, number) in to_topic.iter().zip(1..) {
        assert_eq!(spool::read_written(&client, mock.bootstrap(), id).await["number"], number);
    }
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), 22);
}

#[tokio::test]
async fn a_stuck_partition_holds_up_the_keys_that_the_tenant_partitioner_puts_there_and_no_others() {
    let (mock, service) = half_silent(&[("PARTITIONER", "tenant")]).await;
    let client = service.client();
    // the first four bytes of their MD5 digests are odd and even (md5sum), so that they go to the partitions 1 and 0;
    // Java's client would put each once there and once here
    let (stuck, others) = (["a0", "a1"], ["a3", "a4"]);
    for number in 1..=3 {
        for key in stuck {
            stored_one(&client.post("/produce", keyed_body("topic", key, number)).await);
        }
        for key in others {
            let receipt = client.post("/produce", keyed_body("topic", key, number)).await.written();
            assert_eq!(receipt["partition"], 0);
        }
    }
    mock.broker_up(2);
    wait_empty(&client).await;
    assert_eq!(consumer::count(mock.bootstrap(), "topic"), 2 + 3 * 4);
}

#[tokio::test]
async fn looking_again_at_what_was_passed_over_sends_nothing_twice() {
    const BATCHES: usize = 15;
    let mock = Mock::start(1);
    mock.create_topic("denied", 1);
    mock.create_topic("slow", 3);
    mock.broker_down(1);
    let least = ("MAX_IN_FLIGHT_BYTES", "27017216");
    let service = spool::spawn(mock.bootstrap(), &[least]).await;
    let client = service.client();
    let value = "x".repeat(1024);
    let record = |number| {
        // every chunk has one that cannot be sent
        let topic = if number % 20 == 0 { "denied" } else { "slow" };
        json!({"topic": topic, "key": format!("{}", number % 500), "value": value, "project": "p"})
    };
    let batch = serde_json::to_vec(&(0..1000).map(record).collect::<Vec<_>>()).unwrap();
    for _ in 0..BATCHES {
        let answer = client.post("/produce/batch", batch.as_slice()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    mock.topic_error("denied", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    mock.round_trip_time(1, Duration::from_millis(50));
    mock.broker_up(1);
    eventually("all that can be sent is sent", Duration::from_secs(40), || async {
        (metric(&client, "inlet_spool_records").await == BATCHES as f64 * 50.0).then_some(())
    })
    .await;
    assert_eq!(consumer::count(mock.bootstrap(), "slow"), BATCHES as i64 * 950);
    mock.topic_error("denied", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    wait_empty(&client).await;
    assert_eq!(consumer::count(mock.bootstrap(), "slow"), BATCHES as i64 * 950);
    assert_eq!(consumer::count(mock.bootstrap(), "denied"), BATCHES as i64 * 50);
}
