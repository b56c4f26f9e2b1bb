//! With a spool: what Kafka does not take in time is stored, and what must not overtake stored records is stored
//! behind them.
//!
//! Each record goes one of three ways: refused (for good, by what is known already), attempted, or stored at once. An
//! attempted one that has no report when the time is up, or one that says "later", is stored as well. While the
//! producer still has it, its report decides what comes next; see [`Spool::keep`].

use super::{Accepted, Arrival, Pipeline, Verdict, no_verdict, verdict};
use crate::produce::{
    Batching, Delivery, Error, Outcome, ReceiptId, Record, Sequence, Spool,
    check::{check_record, check_size},
    delivery::{Admitted, Report},
    record::RecordReceipt,
    spool::{Attempted, Stored},
    submission::{Records, Submission},
};
use smallvec::SmallVec;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// How often a request that waits looks whether Kafka has gone away meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// One request on its way.
struct Request<'a> {
    pipeline: &'a Pipeline,
    spool: &'a Arc<dyn Spool>,
    submission: Arc<Submission>,
    /// The sequence of the first record; the others follow.
    first: Sequence,
    deadline: Instant,
    verdicts: Vec<Option<Verdict>>,
}

/// The ways that the records go which are not refused.
#[derive(Default)]
struct Ways {
    attempted: SmallVec<[Admitted; 1]>,
    /// Indices, rising.
    stored: Vec<usize>,
}

/// An attempted record that has to be stored.
struct Kept {
    record: usize,
    /// Why, where it has a report; None while the producer has it.
    failure: Option<Error>,
}

impl Kept {
    fn is_not_written(&self) -> bool {
        self.failure.as_ref().is_some_and(|error| error.outcome() == Outcome::NotWritten)
    }
}

impl Pipeline {
    /// One verdict a record, in order.
    pub(super) async fn submit_durably(
        &self,
        spool: &Arc<dyn Spool>,
        mut records: Records,
        arrival: Arrival,
    ) -> Vec<Verdict> {
        let first = spool.next_sequences(records.len());
        for (sequence, record) in (first.0..).zip(&mut records) {
            let id = ReceiptId { instance: spool.instance().clone(), sequence: Sequence(sequence) };
            record.receipt = Some(RecordReceipt { id, replayed: false });
        }
        let timeout = self.settings.delivery_timeout;
        let patience = arrival.patience.unwrap_or(timeout).min(timeout);
        let deadline = arrival.at + patience;
        let unavailable = self.producer.unavailable();
        let attempts = unavailable.is_none() && !patience.is_zero();
        let submission = if attempts {
            self.find_topics(records, deadline).await
        } else {
            self.known_topics(records, &unavailable.unwrap_or_else(not_asked))
        };
        let verdicts = submission.records.iter().map(|_| None).collect();
        let submission = Arc::new(submission);
        let mut request = Request { pipeline: self, spool, submission, first, deadline, verdicts };
        let ways = request.choose_ways(arrival, attempts && Instant::now() < deadline);
        request.go(ways).await;
        request.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| Err(no_verdict()))).collect()
    }
}

/// Why nothing is known of a topic that was not asked for, since the client does not wait.
fn not_asked() -> Error {
    Error::NotReady { reason: "the topic is not known yet".into() }
}

impl Request<'_> {
    fn choose_ways(&mut self, arrival: Arrival, attempts: bool) -> Ways {
        let limits = self.pipeline.limits(arrival);
        let mut ways = Ways::default();
        for (index, record) in self.submission.records.iter().enumerate() {
            let found = self.submission.destinations.of(index);
            let checked = match &found {
                Ok(found) => check_record(record, &found.topic, limits),
                // nothing is known of the topic
                Err(error) if is_for_spool(error) => check_size(record, limits.max_record_bytes),
                Err(error) => Err(error.clone()),
            };
            let topic = found.as_ref().ok().map(|found| &*found.topic);
            match checked {
                Err(error) => self.verdicts[index] = Some(Err(error)),
                Ok(reserved) if attempts && topic.is_some() && !self.spool.joins_line(record, topic) => {
                    ways.attempted.push(Admitted { record: index, reserved });
                }
                Ok(_) => {
                    if !attempts || topic.is_none() {
                        self.spool.join_line(record);
                    }
                    ways.stored.push(index);
                }
            }
        }
        // what has no room in flight is stored instead
        if self.pipeline.reserve(&ways.attempted).is_err() {
            for Admitted { record, .. } in ways.attempted.drain(..) {
                self.spool.join_line(&self.submission.records[record]);
                ways.stored.push(record);
            }
            ways.stored.sort_unstable();
        }
        ways
    }

    /// Attempts before it stores: a stored record must not be sent before one of this request that is not.
    async fn go(&mut self, ways: Ways) {
        let delivery = (!ways.attempted.is_empty()).then(|| self.enqueue(ways.attempted, Batching::Shared));
        let spool = Arc::clone(self.spool);
        let stored = ways.stored;
        let submission = Arc::clone(&self.submission);
        let patience = self.deadline.saturating_duration_since(Instant::now());
        let storing = (!stored.is_empty())
            .then(|| spool.store(&mut stored.iter().map(|&index| &submission.records[index]), patience));
        let attempting = async {
            if let Some(delivery) = delivery {
                self.await_reports(&delivery).await;
                self.settle(delivery).await;
            }
        };
        let storing = async {
            match storing {
                Some(storing) => Some(storing.await),
                None => None,
            }
        };
        let ((), in_spool) = futures_util::future::join(attempting, storing).await;
        if let Some(in_spool) = in_spool {
            for (place, &index) in (0..).zip(&stored) {
                let at = |first: Sequence| self.accepted(index, Sequence(first.0 + place));
                self.verdicts[index] = Some(in_spool.clone().map(at));
            }
        }
    }

    fn enqueue(&self, admitted: SmallVec<[Admitted; 1]>, batching: Batching) -> Delivery {
        self.pipeline.enqueue(&self.submission, admitted, batching, Instant::now())
    }

    /// Until every record has its report, the time is up, or Kafka has gone away.
    async fn await_reports(&self, delivery: &Delivery) {
        loop {
            let until = self.deadline.min(Instant::now() + LOOK);
            let resolved = timeout_at(until, delivery.resolved()).await.is_ok();
            let over = Instant::now() >= self.deadline || self.pipeline.producer.unavailable().is_some();
            if resolved || over {
                return;
            }
        }
    }

    /// Turns reports into verdicts, and stores what Kafka has not taken.
    async fn settle(&mut self, delivery: Delivery) {
        let mut kept = Vec::new();
        let mut again = SmallVec::new();
        for (&Admitted { record, reserved }, report) in delivery.reports() {
            match report {
                Some(Err(error)) if error.may_be_a_neighbours() => again.push(Admitted { record, reserved }),
                report => kept.extend(self.judge(record, report)),
            }
        }
        let mut deliveries = vec![delivery];
        if !again.is_empty() {
            if let Err(error) = self.pipeline.reserve(&again) {
                let failure = Some(error);
                kept.extend(again.iter().map(|sent| Kept { record: sent.record, failure: failure.clone() }));
            } else {
                let delivery = self.enqueue(again, Batching::Alone);
                self.await_reports(&delivery).await;
                for (&Admitted { record, .. }, report) in delivery.reports() {
                    kept.extend(self.judge(record, report));
                }
                deliveries.push(delivery);
            }
        }
        self.refuse_not_written(&mut kept);
        if !kept.is_empty() {
            kept.sort_unstable_by_key(|kept| kept.record);
            self.keep(deliveries, kept).await;
        }
    }

    /// A verdict, or a reason to store the record.
    fn judge(&mut self, record: usize, report: Option<&Report>) -> Option<Kept> {
        match report {
            None => Some(Kept { record, failure: None }),
            Some(Err(error)) if is_for_spool(error) => Some(Kept { record, failure: Some(error.clone()) }),
            Some(report) => {
                self.verdicts[record] = Some(verdict(&self.submission.records[record], report.clone()));
                None
            }
        }
    }

    /// Refuses records where others wait for too long already, but only those that are certainly not in Kafka. One that
    /// may get there has to be stored: refused, its client would have to send it again, without knowing, as a duplicate
    /// that nothing declares.
    fn refuse_not_written(&mut self, kept: &mut Vec<Kept>) {
        let not_written = kept.iter().filter(|kept| kept.is_not_written()).count();
        if not_written > 0
            && let Some(error) = self.spool.refusal(not_written)
        {
            for refused in kept.extract_if(.., |kept| kept.is_not_written()) {
                self.verdicts[refused.record] = Some(Err(error.clone()));
            }
        }
    }

    /// Stores attempted records. Nothing is left undone where the client goes away meanwhile: the spool hears of the
    /// reports from before the records are on the disk.
    async fn keep(&mut self, deliveries: Vec<Delivery>, kept: Vec<Kept>) {
        let attempted: Vec<_> = kept
            .iter()
            .map(|kept| Attempted {
                record: &self.submission.records[kept.record],
                sequence: self.sequence(kept.record),
                is_held: kept.failure.is_none(),
            })
            .collect();
        let keeping = self.spool.keep(&attempted);
        for delivery in &deliveries {
            let (spool, first) = (Arc::clone(self.spool), self.first);
            delivery.listen(Box::new(move |record, report| {
                spool.reported(Sequence(first.0 + record as u64), report);
            }));
        }
        let held = |record| kept.iter().any(|kept| kept.record == record && kept.failure.is_none());
        let mut written = Vec::new();
        for (sent, report) in deliveries.iter().flat_map(Delivery::reports) {
            // one that came after the time was up
            if let Some(report) = report
                && held(sent.record)
            {
                self.spool.reported(self.sequence(sent.record), report);
                written.extend(report.is_ok().then(|| (sent.record, report.clone())));
            }
        }
        let in_spool = keeping.await;
        for Kept { record, failure } in kept {
            let verdict = match (&in_spool, failure) {
                (Ok(()), _) => Ok(self.accepted(record, self.sequence(record))),
                (Err(full), Some(failure)) if failure.outcome() == full.outcome() => Err(full.clone()),
                (Err(_), Some(failure)) => Err(failure),
                (Err(_), None) => Err(self.pipeline.timed_out()),
            };
            self.verdicts[record] = Some(verdict);
        }
        for (record, report) in written {
            self.verdicts[record] = Some(verdict(self.record(record), report));
        }
    }

    fn record(&self, index: usize) -> &Record {
        &self.submission.records[index]
    }

    fn sequence(&self, record: usize) -> Sequence {
        Sequence(self.first.0 + record as u64)
    }

    fn accepted(&self, index: usize, sequence: Sequence) -> Accepted {
        let record = self.record(index);
        Accepted::Stored(Stored {
            id: ReceiptId { instance: self.spool.instance().clone(), sequence },
            topic: record.topic.clone(),
            timestamp: record.timestamp,
        })
    }
}

/// Whether a record that failed so may be written when it is sent later. A bug is not waited out.
fn is_for_spool(error: &Error) -> bool {
    error.is_retriable() && !matches!(error, Error::Internal(_))
}

#[cfg(test)]
mod tests {
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
        let settings = Settings { delivery_timeout: Duration::from_millis(50), max_record_bytes: 300 };
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
            assert!(told <= patience.unwrap_or(Duration::from_millis(50)), "{patience:?}: {told:?}");
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
            verdicts: vec![None],
        };
        assert!(request.pipeline.records.reserve_records(10, 1));
        let submission = Arc::clone(&request.submission);
        let budget = Arc::clone(&request.pipeline.records);
        let admitted = [Admitted { record: 0, reserved: 10 }];
        let delivery = Delivery::new(&submission, admitted, budget, std::time::Instant::now());
        let (_, ack) = delivery.outgoing(&submission).next().unwrap().into_parts();
        let kept = Kept { record: 0, failure: None };
        ack.report(
            Ok(Written { partition: 1, offset: Some(7), append_time: None }),
            std::time::Instant::now(),
        );
        request.keep(vec![delivery], vec![kept]).await;
        assert_eq!(told(&[request.verdicts.remove(0).unwrap()]), ["written"]);
        assert_eq!(durable.spool.reported.lock().unwrap().len(), 1);
    }
}
