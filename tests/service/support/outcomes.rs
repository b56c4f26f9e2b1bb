//! What clients were told of their records, compared with what Kafka holds.

use super::consumer::{self, ReadRecord};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Partition and offset.
pub type Place = (i32, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// 202: it is in Kafka.
    Written,
    /// 202 with `"stored":"spool"`: it is on disk and will be in Kafka.
    Stored,
    NotWritten,
    Unknown,
    /// The connection was refused: the request never reached the service.
    NoConnection,
}

impl Told {
    /// By a record's own answer, a result of a batch, or a problem that is all records'.
    pub fn of(answer: &Value) -> Self {
        if answer["stored"] == "spool" {
            return Self::Stored;
        }
        match answer["outcome"].as_str() {
            None => Self::Written,
            Some("unknown") => Self::Unknown,
            Some("not_written") => Self::NotWritten,
            Some(_) => panic!("{answer}"),
        }
    }

    /// The client need not think of it again.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Written | Self::Stored)
    }
}

/// One record of a client.
pub struct Outcome {
    pub number: u64,
    pub key: Option<String>,
    pub told: Told,
    /// Where the record is, as the client was told.
    pub place: Option<Place>,
    /// The answer or the error in full, for some of those that were not accepted.
    pub failure: Option<String>,
}

impl Outcome {
    /// By a record's own answer, a result of a batch, or a problem that is all records'.
    pub fn of(number: u64, key: Option<&str>, answer: &Value) -> Self {
        let told = Told::of(answer);
        let failure = (!told.is_accepted()).then(|| answer.to_string());
        Self { number, key: key.map(str::to_owned), told, place: place(answer), failure }
    }
}

/// Where an answer or a receipt says that its record is.
pub fn place(answer: &Value) -> Option<Place> {
    let partition = i32::try_from(answer["partition"].as_i64()?).ok()?;
    Some((partition, answer["offset"].as_i64()?))
}

/// What all clients were told.
pub struct Outcomes {
    all: Vec<Outcome>,
    topic: String,
}

/// The outcomes beside the records that Kafka holds.
pub struct Landed<'a> {
    outcomes: &'a Outcomes,
    /// By partition, then offset.
    records: Vec<ReadRecord>,
    /// The number of a record to its places in `records`.
    copies: HashMap<u64, Vec<usize>>,
}

/// How often records are in Kafka beyond once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// Copies that say so: they carry `receipt-replayed: true`, and all of one record have the same `receipt`.
    pub declared: usize,
    pub undeclared: usize,
}

impl Outcomes {
    pub fn new(all: Vec<Outcome>, topic: &str) -> Self {
        Self { all, topic: topic.to_owned() }
    }

    /// Each record that was accepted is in Kafka once, and where its client was told, none is there that was called not written, and no
    /// record is there twice. Returns how many were accepted.
    pub fn verify(&self, bootstrap: &str) -> usize {
        let landed = self.read(bootstrap);
        assert_eq!(landed.duplicates(), Duplicates::default());
        landed.no_refused_is_in();
        landed.every_accepted_is_in()
    }

    /// Reads all that Kafka holds, for the checks that [`Landed`] has.
    pub fn read(&self, bootstrap: &str) -> Landed<'_> {
        self.beside(consumer::read_all(bootstrap, &self.topic))
    }

    /// As [`Outcomes::read`], with records that were read before, by partition, then offset.
    pub fn beside(&self, records: Vec<ReadRecord>) -> Landed<'_> {
        let mut copies: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, record) in records.iter().enumerate() {
            copies.entry(number(record)).or_default().push(place);
        }
        Landed { outcomes: self, records, copies }
    }

    /// How many records were refused with certainty.
    pub fn not_written(&self) -> usize {
        self.count(Told::NotWritten)
    }

    pub fn count(&self, told: Told) -> usize {
        self.told(told).count()
    }

    /// Some of the answers to records that were not accepted, in full. Empty only where all were.
    pub fn failures(&self) -> Vec<&str> {
        self.all.iter().filter_map(|outcome| outcome.failure.as_deref()).collect()
    }

    fn told(&self, told: Told) -> impl Iterator<Item = &Outcome> {
        self.all.iter().filter(move |outcome| outcome.told == told)
    }

    fn accepted(&self) -> impl Iterator<Item = &Outcome> {
        self.all.iter().filter(|outcome| outcome.told.is_accepted())
    }
}

impl Landed<'_> {
    /// Also where their clients were told. Returns how many were accepted.
    pub fn every_accepted_is_in(&self) -> usize {
        let lost: Vec<_> = self
            .outcomes
            .accepted()
            .filter(|outcome| !self.holds(outcome.number))
            .map(|outcome| (outcome.number, outcome.told, outcome.key.as_deref()))
            .collect();
        let topic = &self.outcomes.topic;
        assert!(
            lost.is_empty(),
            "{} accepted and lost of {topic}: {:?}",
            lost.len(),
            &lost[..lost.len().min(20)]
        );
        self.each_is_where_it_was_told();
        self.outcomes.accepted().count()
    }

    /// A record that was called written is where its answer says; one that was stored, where its receipt says, if that
    /// was asked for.
    fn each_is_where_it_was_told(&self) {
        let places: HashMap<Place, u64> =
            self.records.iter().map(|record| ((record.partition, record.offset), number(record))).collect();
        let wrong: Vec<_> = self
            .outcomes
            .accepted()
            .filter(|outcome| match outcome.place {
                Some(place) => places.get(&place) != Some(&outcome.number),
                None => outcome.told == Told::Written,
            })
            .map(|outcome| (outcome.number, outcome.place, self.copies.get(&outcome.number)))
            .take(20)
            .collect();
        assert!(
            wrong.is_empty(),
            "not where they were told, of {}: (number, told, found at) {wrong:?}",
            self.outcomes.topic
        );
    }

    /// What was called not written is not in Kafka.
    pub fn no_refused_is_in(&self) {
        for told in [Told::NotWritten, Told::NoConnection] {
            let wrong = self.outcomes.told(told).filter(|outcome| self.holds(outcome.number)).count();
            assert_eq!(wrong, 0, "{told:?}, but in Kafka");
        }
    }

    pub fn duplicates(&self) -> Duplicates {
        let mut all = Duplicates::default();
        for places in self.copies.values().filter(|places| places.len() > 1) {
            let copies: Vec<_> = places.iter().map(|place| &self.records[*place]).collect();
            let undeclared = undeclared(&copies);
            all.undeclared += undeclared;
            all.declared += copies.len() - 1 - undeclared;
        }
        all
    }

    /// The accepted records of each key are all in one partition, and their first copies are there in the order in
    /// which the client got its answers. Records with an unknown outcome may be anywhere. Returns the number of keys.
    pub fn order_is_kept(&self) -> usize {
        self.is_in_order(self.outcomes.accepted())
    }

    /// As [`Landed::order_is_kept`], of those records alone that were answered as written.
    pub fn order_of_written_is_kept(&self) -> usize {
        self.is_in_order(self.outcomes.told(Told::Written))
    }

    fn is_in_order<'o>(&'o self, outcomes: impl Iterator<Item = &'o Outcome>) -> usize {
        let mut keys: BTreeMap<&str, Vec<(u64, &ReadRecord)>> = BTreeMap::new();
        for outcome in outcomes {
            let Some(key) = outcome.key.as_deref() else { continue };
            let first = self.copies.get(&outcome.number).map(|places| &self.records[places[0]]);
            keys.entry(key).or_default().extend(first.map(|first| (outcome.number, first)));
        }
        assert!(!keys.is_empty(), "no record has a key");
        for (key, records) in &keys {
            for pair in records.windows(2) {
                let [(_, before), (_, after)] = pair else { unreachable!() };
                let in_order = before.partition == after.partition && before.offset < after.offset;
                assert!(in_order, "key '{key}', answered in this order:\n{before:?}\n{after:?}");
            }
        }
        keys.len()
    }

    fn holds(&self, number: u64) -> bool {
        self.copies.contains_key(&number)
    }
}

/// How many copies beyond the first do not say that they are copies. They come by partition, then offset.
fn undeclared(copies: &[&ReadRecord]) -> usize {
    let receipt = copies[0].header("receipt");
    if receipt.is_none() || copies.iter().any(|copy| copy.header("receipt") != receipt) {
        return copies.len() - 1;
    }
    let says_so = |copy: &ReadRecord| copy.header("receipt-replayed") == Some("true");
    // one may be the original, and within a partition it comes first
    let originals = copies.iter().filter(|copy| !says_so(copy)).count();
    let late =
        copies.windows(2).filter(|pair| pair[0].partition == pair[1].partition && !says_so(pair[1])).count();
    originals.saturating_sub(1).max(late)
}

fn number(record: &ReadRecord) -> u64 {
    record.json()["number"].as_u64().unwrap()
}
