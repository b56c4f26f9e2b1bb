use super::*;
use crate::{
    produce::{
        Budget, Settings, Written,
        fake::{FakeProducer, FakeSpool, Step, record},
    },
    telemetry::metrics::Metrics,
};
use std::sync::atomic::Ordering::Relaxed;

struct Durable {
    producer: Arc<FakeProducer>,
    spool: Arc<FakeSpool>,
    pipeline: Pipeline,
}

fn durable(in_flight: usize) -> Durable {
    let producer = FakeProducer::with_topics(&["a"]);
    let spool = Arc::new(FakeSpool::default());
    let settings = Settings { delivery_timeout: Duration::from_secs(2), max_record_bytes: 300 };
    let metrics = Arc::new(Metrics::for_tests());
    let pipeline = Pipeline::new(producer.clone(), Budget::new(in_flight), metrics, settings);
    let pipeline = pipeline.with_spool(spool.clone(), Budget::new(in_flight));
    Durable { producer, spool, pipeline }
}

impl Durable {
    async fn submit(&self, records: &[Record]) -> Vec<Verdict> {
        self.pipeline.submit(records.to_vec(), Arrival::now()).await.unwrap()
    }

    fn is_down(&self) {
        *self.producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "away".into() });
    }

    /// The values of the stored records, and whether the producer had them.
    fn stored(&self) -> Vec<(String, bool)> {
        let stored = self.spool.stored.lock().unwrap();
        let value = |record: &Record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        stored.iter().map(|(_, record, is_held)| (value(record), *is_held)).collect()
    }

    fn attempted(&self) -> Vec<Sequence> {
        let sent = self.producer.sent();
        sent.iter().map(|(record, _)| record.receipt.as_ref().unwrap().id.sequence).collect()
    }
}

fn keyed(key: &'static str, value: &'static str) -> Record {
    Record { key: Some(key.as_bytes().into()), value: Some(value.as_bytes().into()), ..record("a") }
}

/// "written", the sequence of a stored record, or the error's name.
fn told(verdicts: &[Verdict]) -> Vec<String> {
    let told = |verdict: &Verdict| match verdict {
        Ok(Accepted::Written(_)) => "written".to_owned(),
        Ok(Accepted::Stored(stored)) => stored.id.sequence.0.to_string(),
        Err(error) => error.tag().to_owned(),
    };
    verdicts.iter().map(told).collect()
}

#[tokio::test]
async fn what_kafka_takes_at_once_is_not_stored_and_carries_its_name() {
    let durable = durable(10_000);
    assert_eq!(told(&durable.submit(&[record("a"), record("a")]).await), ["written", "written"]);
    assert_eq!(durable.attempted(), [Sequence(0), Sequence(1)]);
    assert!(durable.stored().is_empty());
}

#[tokio::test]
async fn while_kafka_is_away_records_are_stored_in_order_also_for_topics_that_are_not_known() {
    let durable = durable(10_000);
    durable.is_down();
    let verdicts = durable.submit(&[keyed("k", "1"), keyed("k", "2"), record("b")]).await;
    assert_eq!(told(&verdicts), ["3", "4", "5"]);
    assert_eq!(durable.stored()[..2], [("1".into(), false), ("2".into(), false)]);
    assert!(durable.producer.sent().is_empty());
}

#[tokio::test]
async fn a_record_does_not_overtake_stored_ones_of_its_line() {
    let durable = durable(10_000);
    durable.spool.waiting.lock().unwrap().insert("k".into());
    let verdicts = durable.submit(&[keyed("k", "1"), keyed("other", "2"), keyed("k", "3")]).await;
    assert_eq!(told(&verdicts), ["3", "written", "4"]);
    assert_eq!(durable.producer.sent().len(), 1);
}

#[tokio::test]
async fn a_record_without_a_report_in_time_is_stored_and_its_report_listened_to() {
    let durable = durable(10_000);
    durable.producer.then(Step::Written).then(Step::Held);
    let verdicts = durable.submit(&[keyed("k", "1"), keyed("k", "2")]).await;
    assert_eq!(told(&verdicts), ["written", "1"]);
    assert_eq!(durable.stored(), [("2".into(), true)]);
    durable.producer.release();
    let reported = durable.spool.reported.lock().unwrap();
    assert_eq!(reported.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [Sequence(1)]);
}

#[tokio::test]
async fn of_a_record_that_is_sent_again_alone_only_the_last_report_counts() {
    let durable = durable(10_000);
    let rejected = Error::Rejected { reason: "no".into() };
    durable.producer.then(Step::Fails(rejected)).then(Step::Held);
    assert_eq!(told(&durable.submit(&[keyed("k", "1")]).await), ["0"]);
    assert_eq!(durable.stored(), [("1".into(), true)]);
    assert!(durable.spool.reported.lock().unwrap().is_empty(), "it is under way");
    durable.producer.release();
    assert_eq!(durable.spool.reported.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_resend_can_mend_is_stored_and_what_it_cannot_is_told() {
    let durable = durable(10_000);
    let lost = Error::AcknowledgementLost { reason: "no".into() };
    let away = Error::BrokerUnavailable { reason: "no".into() };
    let denied = Error::Unauthorized(record("a").topic);
    durable.producer.then(Step::Fails(lost)).then(Step::Fails(away)).then(Step::Fails(denied));
    let verdicts = durable.submit(&[record("a"), record("a"), record("a"), record("b")]).await;
    assert_eq!(told(&verdicts), ["0", "1", "kafka_unauthorized", "unknown_topic"]);
    assert!(durable.stored().iter().all(|(_, is_held)| !is_held));
}

#[tokio::test]
async fn a_full_spool_refuses_what_was_not_attempted_and_keeps_the_truth_of_what_was() {
    let durable = durable(10_000);
    durable.spool.is_full.store(true, Relaxed);
    durable.producer.then(Step::Held);
    let verdicts = durable.submit(&[record("a")]).await;
    assert_eq!(verdicts[0].as_ref().unwrap_err().outcome(), Outcome::Unknown);
    let away = Error::BrokerUnavailable { reason: "no".into() };
    durable.producer.then(Step::Fails(away));
    assert_eq!(told(&durable.submit(&[record("a")]).await), ["spool_full"]);
    durable.is_down();
    assert_eq!(told(&durable.submit(&[record("a")]).await), ["spool_full"]);
}

#[tokio::test]
async fn a_client_that_does_not_wait_has_its_record_stored() {
    let durable = durable(10_000);
    let arrival = || Arrival::now().with_patience(Some(Duration::ZERO));
    let verdicts = durable.pipeline.submit(vec![record("a")], arrival()).await.unwrap();
    assert_eq!(told(&verdicts), ["1"]);
    assert!(durable.producer.sent().is_empty());
}

#[tokio::test]
async fn while_others_wait_for_too_long_only_what_may_be_in_kafka_is_kept() {
    let durable = durable(10_000);
    durable.spool.is_too_old.store(true, Relaxed);
    let expired = Error::BrokerUnavailable { reason: "as a test".into() };
    let lost = Error::AcknowledgementLost { reason: "as a test".into() };
    durable.producer.then(Step::Fails(expired)).then(Step::Fails(lost)).then(Step::Held);
    let records = [keyed("k", "1"), keyed("l", "2"), keyed("m", "3")];
    assert_eq!(told(&durable.submit(&records).await), ["spool_full", "1", "2"]);
    assert_eq!(durable.stored(), [("2".into(), false), ("3".into(), true)]);
}

#[tokio::test]
async fn the_spool_may_take_what_the_client_has_left_to_wait() {
    let durable = durable(10_000);
    durable.is_down();
    for patience in [None, Some(Duration::from_millis(20)), Some(Duration::ZERO)] {
        let arrival = Arrival::now().with_patience(patience);
        assert!(durable.pipeline.submit(vec![record("a")], arrival).await.unwrap()[0].is_ok());
        let told = durable.spool.patience.lock().unwrap().pop().unwrap();
        assert!(told <= patience.unwrap_or(Duration::from_secs(2)), "{patience:?}: {told:?}");
    }
}

#[tokio::test]
async fn what_has_no_room_in_flight_is_stored_behind_what_comes_before_it() {
    let durable = durable(1000);
    durable.spool.waiting.lock().unwrap().insert("k".into());
    let records = [keyed("x", "1"), keyed("k", "2"), keyed("x", "3")];
    assert_eq!(told(&durable.submit(&records).await), ["3", "4", "5"]);
    assert_eq!(durable.stored().iter().map(|(value, _)| &**value).collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn bad_records_are_refused_whether_or_not_kafka_is_there() {
    let durable = durable(10_000);
    durable.is_down();
    let header = crate::produce::Header { name: "receipt".into(), value: None };
    let large = Record { value: Some(vec![b'x'; 400].into()), ..record("b") };
    let records = [Record { headers: vec![header], ..record("a") }, large];
    assert_eq!(told(&durable.submit(&records).await), ["invalid_header", "record_too_large"]);
}

#[tokio::test]
async fn a_report_that_comes_while_the_record_is_stored_is_the_answer() {
    let durable = durable(10_000);
    let records: Records = [record("a")].into_iter().collect();
    let submission = Arc::new(durable.pipeline.find_topics(records, Instant::now()).await);
    let spool: Arc<dyn Spool> = durable.spool.clone();
    let mut request = Request {
        pipeline: &durable.pipeline,
        spool: &spool,
        submission,
        first: Sequence(0),
        deadline: Instant::now(),
        answer_by: Instant::now() + STORING,
        verdicts: vec![None],
    };
    assert!(request.pipeline.records.reserve_records(10, 1));
    let submission = Arc::clone(&request.submission);
    let budget = Arc::clone(&request.pipeline.records);
    let sent = Admitted { record: 0, partition: 1, reserved: 10 };
    let delivery = Delivery::new(&submission, [sent], budget, std::time::Instant::now());
    let outgoing = delivery.outgoing(&submission).next().unwrap();
    let kept = Kept { sent, failure: None };
    outgoing
        .report(Ok(Written { partition: 1, offset: Some(7), append_time: None }), std::time::Instant::now());
    request.keep(vec![delivery], vec![kept]).await;
    assert_eq!(told(&[request.verdicts.remove(0).unwrap()]), ["written"]);
    assert_eq!(durable.spool.reported.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn while_the_disk_hangs_what_it_may_store_is_unknown_and_what_kafka_took_is_told() {
    let durable = durable(10_000);
    durable.spool.hangs.store(true, Relaxed);
    let later = || Step::Fails(Error::BrokerUnavailable { reason: "later".into() });
    durable.producer.then(later()).then(Step::Written).then(Step::Held);
    durable.spool.waiting.lock().unwrap().insert("k".into());
    let records = [record("a"), record("a"), record("a"), keyed("k", "4")];
    let verdicts = durable.submit(&records).await;
    let unknown = "delivery_timeout";
    assert_eq!(told(&verdicts), [unknown, "written", unknown, unknown]);
    assert!(
        verdicts.iter().flat_map(|verdict| verdict.as_ref().err()).all(|e| e.outcome() == Outcome::Unknown)
    );
    durable.is_down();
    assert_eq!(told(&durable.submit(&[record("a")]).await), [unknown]);
}
