//! A rolling restart: instances behind a balancer are restarted in turn, and their clients notice nothing.

use crate::{
    kafka_or_skip,
    support::{
        app::Service,
        broker::Broker,
        haproxy::{self, HaProxy},
        load::{Load, LoadOptions},
        outcomes::Outcomes,
        spool::wait_empty,
    },
};
use std::time::Duration;

/// Shorter than the default, to keep the test short; still longer than HAProxy's checks take to notice.
const SHUTDOWN_DELAY: (&str, &str) = ("SHUTDOWN_DELAY_MS", "1000");
/// The longest that a shutdown may take.
const EXIT_LIMIT: Duration = Duration::from_secs(25);
/// How long the load goes on beside each state, in records.
const SOME: u64 = 300;

#[tokio::test]
async fn a_rolling_restart_behind_haproxy_fails_no_request_and_loses_no_record() {
    let kafka = kafka_or_skip!();
    let Some((outcomes, _)) = rolling_restart(kafka, [&[], &[], &[]]).await else { return };
    assert!(outcomes.verify(&kafka.bootstrap()) as u64 >= 7 * SOME);
    outcomes.read(&kafka.bootstrap()).order_is_kept();
}

#[tokio::test]
async fn a_rolling_restart_of_durable_instances_fails_no_request_and_loses_no_record() {
    let kafka = kafka_or_skip!();
    // each has a working directory of its own
    let durable = [("DELIVERY", "durable"), ("SPOOL_DIR", ".")];
    let [one, two, three] = ["one", "two", "three"].map(|id| [durable[0], durable[1], ("INSTANCE_ID", id)]);
    let Some((outcomes, instances)) = rolling_restart(kafka, [&one, &two, &three]).await else { return };
    // one that has just started stores what comes before Kafka has answered it
    for instance in &instances {
        wait_empty(&instance.client()).await;
    }
    let landed = outcomes.read(&kafka.bootstrap());
    assert!(landed.every_accepted_is_in() as u64 >= 7 * SOME);
    landed.no_refused_is_in();
    assert_eq!(landed.duplicates().undeclared, 0);
    // what is stored by one instance is behind what another one writes meanwhile
    landed.order_of_written_is_kept();
}

/// Restarts three instances with these variables in turn, under load. What the clients were told, and the instances.
/// None where HAProxy is missing.
async fn rolling_restart(
    kafka: &Broker,
    variables: [&[(&'static str, &'static str)]; 3],
) -> Option<(Outcomes, [Service; 3])> {
    if !haproxy::startable() {
        return None;
    }
    let topic = kafka.new_topic(3, &[]).await;
    let start = |variables: &[(&'static str, &'static str)]| {
        let variables = [&[SHUTDOWN_DELAY], variables].concat();
        async move { Service::on(kafka, &variables).await }
    };
    let [one, two, three] = variables;
    let instances: [Service; 3] = tokio::join!(start(one), start(two), start(three)).into();
    let haproxy = HaProxy::before(instances.each_ref().map(Service::address)).await;
    let load = Load::start_with(haproxy.address(), &topic, LoadOptions { keys: 4, ..LoadOptions::default() });
    load.wait_for(SOME).await;
    for (instance, server) in instances.iter().zip(1..) {
        instance.signal("TERM");
        let (status, _) = instance.wait_exit(EXIT_LIMIT).await;
        assert_eq!(status.code(), Some(0), "{}", instance.logs());
        load.wait_for(SOME).await;
        instance.restart().await;
        instance.wait_ready().await;
        haproxy.wait_up(server).await;
        load.wait_for(SOME).await;
        let metrics = instance.client().get("/metrics").await.body;
        let answered = r#"http_requests_total{method="POST",route="/produce",status="202"} "#;
        assert!(metrics.contains(answered), "after its restart instance {server} got no request:\n{metrics}");
    }
    let outcomes = load.stop().await;
    let failures = outcomes.failures();
    assert!(failures.is_empty(), "{} failed: {failures:#?}\n{}", failures.len(), haproxy.log());
    assert_eq!(haproxy.retries().await, 0, "a retry hid what the service did:\n{}", haproxy.log());
    Some((outcomes, instances))
}
