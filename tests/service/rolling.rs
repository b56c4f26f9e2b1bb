//! A rolling restart: instances behind a balancer are restarted in turn, and their clients notice nothing.

use crate::{
    kafka_or_skip,
    support::{
        app::Service,
        haproxy::{self, HaProxy},
        load::{Load, LoadOptions},
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
    rolling_restart([&[], &[], &[]]).await;
}

#[tokio::test]
async fn a_rolling_restart_of_durable_instances_fails_no_request_and_loses_no_record() {
    // each has a working directory of its own
    let durable = [("DELIVERY", "durable"), ("SPOOL_DIR", ".")];
    let [one, two, three] = ["one", "two", "three"].map(|id| [durable[0], durable[1], ("INSTANCE_ID", id)]);
    rolling_restart([&one, &two, &three]).await;
}

/// Restarts three instances with these variables in turn, under load.
async fn rolling_restart(variables: [&[(&'static str, &'static str)]; 3]) {
    let kafka = kafka_or_skip!();
    if !haproxy::startable() {
        return;
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
    assert!(outcomes.verify(&kafka.bootstrap()) as u64 >= 7 * SOME);
    outcomes.read(&kafka.bootstrap()).order_is_kept();
}
