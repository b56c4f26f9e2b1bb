//! What delivery reports mean: for each record, and for the lane of its partition.

use super::{
    context::{BrokerKind, Context, Standing},
    error::{self, Refusal},
    lane::Landing,
    native::{
        report::{DeliveryReport, Persistence},
        topic::InFlight,
    },
    sender::Sender,
};
use crate::produce::{Error, Outcome, Outgoing, Report, TopicName, Written};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::{sync::Weak, time::Instant};

/// What a report means for its record.
enum Fate {
    Told(Report),
    /// Certainly not written, for no fault of its own: it goes to the client that has taken this one's place.
    Returns,
    /// The partition that was chosen for it does not exist: another one is to be chosen.
    Elsewhere,
}

impl Context {
    /// The reports of one event, each with what its record was sent with; `now` is when they came.
    /// `is_duplicate` where it is known whether the broker had the batch before; else the first of them tells.
    pub fn delivered<'a>(
        &self,
        reports: impl Iterator<Item = (DeliveryReport<'a>, InFlight)>,
        mut is_duplicate: Option<bool>,
        now: Instant,
    ) {
        let sender = self.sender.get().and_then(Weak::upgrade);
        let mut of_partition: Option<OfPartition<'a>> = None;
        for (report, in_flight) in reports {
            let is_duplicate = *is_duplicate.get_or_insert_with(|| report.begins_duplicate());
            if of_partition.as_ref().is_none_or(|before| before.partition != report.partition()) {
                let next = OfPartition::new(report.topic().unwrap_or_default(), report.partition());
                self.land(sender.as_deref(), of_partition.replace(next), now);
            }
            let Some(of_partition) = &mut of_partition else { continue };
            of_partition.landing.count += 1;
            match self.fate(&report, &in_flight, is_duplicate) {
                Fate::Told(told) => {
                    if of_partition.hears(&told, &report, self.standing())
                        && let Some(sender) = &sender
                    {
                        sender.breaks();
                    }
                    in_flight.ack.report(told, now);
                }
                Fate::Returns => match again(&report, in_flight) {
                    Ok(returned) => of_partition.landing.returned.push(returned),
                    Err((error, in_flight)) => in_flight.ack.report(Err(error), now),
                },
                Fate::Elsewhere => {
                    // the partition knows the client no better than before
                    of_partition.landing.has_failure = true;
                    match (again(&report, in_flight), &sender) {
                        (Ok((_, outgoing)), Some(sender)) => sender.choose_anew(outgoing),
                        (Ok((_, outgoing)), None) => outgoing.report(Err(closed()), now),
                        (Err((error, in_flight)), _) => in_flight.ack.report(Err(error), now),
                    }
                }
            }
        }
        self.land(sender.as_deref(), of_partition, now);
    }

    fn land(&self, sender: Option<&Sender>, of_partition: Option<OfPartition<'_>>, now: Instant) {
        let (Some(sender), Some(landed)) = (sender, of_partition) else { return };
        if landed.landing.has_failure {
            self.epoch.batch_failed();
        }
        sender.landed(landed, now);
    }

    /// What the report means; `is_duplicate` where it is of a batch that the broker had before.
    fn fate(&self, report: &DeliveryReport<'_>, in_flight: &InFlight, is_duplicate: bool) -> Fate {
        let timestamp = report.timestamp();
        let is_append_time = timestamp.is_append_time && self.broker == BrokerKind::Kafka;
        let written = |offset| Written {
            partition: report.partition(),
            offset,
            append_time: is_append_time.then_some(timestamp.millis),
        };
        let persistence = report.persistence();
        let Some(code) = report.failure() else {
            if report.is_implied() {
                let reason = "only later records of the partition were acknowledged".into();
                return Fate::Told(Err(Error::AcknowledgementLost { reason }));
            }
            self.observed.acknowledges();
            return Fate::Told(Ok(written((!is_duplicate).then(|| report.offset()))));
        };
        let standing = self.standing();
        let is_epoch_refused = code == Code::InvalidProducerEpoch;
        if is_epoch_refused && standing == Standing::Current && self.epoch.is_refused_now() {
            self.observed.wake_link();
        }
        match (persistence, code, standing) {
            // confirmed although the acknowledgement was not plain: only its offset is lost
            (Persistence::Certain, ..) => return Fate::Told(Ok(written(None))),
            (Persistence::Not, Code::InvalidProducerEpoch, Standing::Current | Standing::Replaced)
            | (Persistence::Not, Code::PurgeQueue, Standing::Replaced) => return Fate::Returns,
            (Persistence::Not, Code::UnknownPartition, _) if !in_flight.is_partition_named => {
                return Fate::Elsewhere;
            }
            _ => {}
        }
        Fate::Told(Err(error::of_report(Refusal {
            code,
            persistence,
            topic: report.topic().and_then(|topic| TopicName::parse(topic).ok()),
            partition: report.partition(),
            timestamp: in_flight.timestamp,
            reason: report.broker_reason().unwrap_or_else(|| code.to_string()),
        })))
    }
}

/// What the reports of an event say of one partition.
pub struct OfPartition<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub landing: Landing,
    /// Why the topic cannot be written to.
    pub topic_error: Option<Error>,
    /// Bytes of keys and values in what was refused as too large.
    pub too_large: usize,
}

impl<'a> OfPartition<'a> {
    fn new(topic: &'a str, partition: i32) -> Self {
        Self { topic, partition, landing: Landing::default(), topic_error: None, too_large: 0 }
    }

    /// True where the first record of the partition is lost with its client.
    fn hears(&mut self, told: &Report, report: &DeliveryReport<'_>, standing: Standing) -> bool {
        let Err(error) = told else { return false };
        self.landing.has_failure = true;
        let breaks = match standing {
            Standing::Current => false,
            Standing::Replaced => error.outcome() == Outcome::Unknown,
            Standing::Lost => true,
        };
        let is_first = breaks && !self.landing.breaks;
        self.landing.breaks |= breaks;
        let is_unanswered =
            matches!(error, Error::AcknowledgementLost { .. } | Error::BrokerUnavailable { .. });
        self.landing.is_unanswered |= is_unanswered;
        match error {
            Error::UnknownTopic(_) | Error::Unauthorized(_) => self.topic_error = Some(error.clone()),
            Error::BatchRefusedAsTooLarge => self.too_large += report.length(),
            _ => {}
        }
        is_first
    }
}

/// The record of the report, to be sent again, with its place in the order.
fn again(report: &DeliveryReport<'_>, in_flight: InFlight) -> Result<(u32, Outgoing), (Error, InFlight)> {
    let found = match in_flight.ack.found() {
        Ok(found) => found.clone(),
        Err(error) => return Err((error, in_flight)),
    };
    let mut record = report.record(found.topic.name.clone(), in_flight.timestamp);
    record.partition = in_flight.is_partition_named.then(|| report.partition());
    Ok((in_flight.place, Outgoing::again(record, found, report.partition(), in_flight.ack)))
}

/// Of a record that no client will send.
fn closed() -> Error {
    Error::BrokerUnavailable { reason: "the producer was closed".into() }
}
