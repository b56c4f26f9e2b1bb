//! Every batch that a broker refuses uses up one epoch of the producer, of which there are 32,767. Whoever writes besides
//! does not notice, also when they are used up.

use crate::support::{
    app::Service,
    eventually,
    numbered::{Delivery, all_are_written_once, record},
    outcomes::{Outcome, Told},
    protocol::Produce,
    proxy::{self, Fault, Passed, Proxy},
    spool::wait_empty,
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

const REFUSED: &str = "refused";
const GOOD: &str = "good";
const INVALID_RECORD: i16 = 87;
/// Of the topic that refuses every batch.
const PARTITIONS: i32 = 8;
const CLIENTS: i32 = 32;

/// Clients that post what is refused, one to each partition in turn, until they are stopped.
async fn post_refused(service: &Service, delivery: Delivery, stop: &AtomicBool) {
    let number = &AtomicU64::new(0);
    let clients = (0..CLIENTS).map(|client| {
        let http = service.client();
        async move {
            while !stop.load(Relaxed) {
                let record = record(REFUSED, client % PARTITIONS, number.fetch_add(1, Relaxed), 0);
                let answer = http.post("/produce", record.to_string()).await;
                assert!(answer.status != 202 || delivery == Delivery::Durable, "{answer:?}");
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

/// One record after the other, until it is stopped; what was told of them. Those that were written at once are counted.
async fn post_good(service: &Service, written: &AtomicUsize, stop: &AtomicBool) -> Vec<Outcome> {
    let client = service.client();
    let mut outcomes = Vec::new();
    while !stop.load(Relaxed) {
        let number = outcomes.len() as u64;
        let answer = client.post("/produce", record(GOOD, 0, number, 0).to_string()).await;
        let outcome = Outcome::of(number, None, &answer.json());
        written.fetch_add(usize::from(outcome.told == Told::Written), Relaxed);
        outcomes.push(outcome);
        // many times a second is enough
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outcomes
}

/// Others write while at least so many batches are refused, and when no more are. The producers, that which sends alone
/// too, begin at `epoch` and use up all that are left.
async fn others_write(delivery: Delivery, epoch: i16, refusals: usize) {
    const PRODUCERS: usize = 2;
    const MORE: usize = 50;
    /// Many times what it takes.
    const LIMIT: Duration = Duration::from_secs(600);
    let Some((proxy, kafka)) = proxy::own() else { return };
    kafka.create_topic(REFUSED, PARTITIONS, &[]).await;
    kafka.create_topic(GOOD, 1, &[]).await;
    proxy.inject(REFUSED, Fault::Refuse(INVALID_RECORD), usize::MAX);
    proxy.start_epoch(epoch, PRODUCERS);
    let service = delivery.start(&proxy.address(), &[]).await;
    let written = AtomicUsize::new(0);
    let (no_more_refused, no_more) = (AtomicBool::new(false), AtomicBool::new(false));
    let refused = post_refused(&service, delivery, &no_more_refused);
    let good = post_good(&service, &written, &no_more);
    let watch = async {
        let left = usize::from(i16::MAX.abs_diff(epoch) + 1);
        eventually("batches are refused", LIMIT, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            (proxy.errors(REFUSED) >= refusals && epochs(&proxy) > left).then_some(())
        })
        .await;
        no_more_refused.store(true, Relaxed);
        let (before, start) = (written.load(Relaxed), Instant::now());
        while written.load(Relaxed) < before + MORE && start.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        no_more.store(true, Relaxed);
        written.load(Relaxed) - before
    };
    let ((), outcomes, more) = tokio::join!(refused, good, watch);
    proxy.heal(REFUSED);
    if delivery == Delivery::Durable {
        wait_empty(&service.client()).await;
    }
    all_are_written_once(outcomes, GOOD, &kafka.bootstrap());
    assert!(more >= MORE, "written at once when no more were refused: {more}");
    assert_eq!(service.client().get("/ready").await.status, 200);
    assert!(service.logs().contains("another producer takes its place"), "{}", service.logs());
}

/// How many epochs those producers have had by which others write. One that begins anew with its first is counted on.
fn epochs(proxy: &Proxy) -> usize {
    let others: HashSet<_> = proxy.log(GOOD).iter().map(|passed| passed.produce.producer_id).collect();
    let mut last = HashMap::new();
    let log = proxy.log(REFUSED);
    let begins = |passed: &&Passed| {
        let Produce { producer_id, epoch, .. } = passed.produce;
        others.contains(&producer_id) && last.insert(producer_id, epoch) != Some(epoch)
    };
    log.iter().filter(begins).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_producers_epochs_are_used_up_others_go_on_writing() {
    others_write(Delivery::Direct, 32_700, 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_producers_epochs_are_used_up_others_go_on_writing_durably() {
    others_write(Delivery::Durable, 32_700, 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_forty_thousand_batches_are_refused_others_go_on_writing() {
    others_write(Delivery::Direct, 30_000, 40_001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes: the one above, from the first epoch on"]
async fn while_every_epoch_is_used_up_others_go_on_writing() {
    others_write(Delivery::Direct, 0, 40_001).await;
}
