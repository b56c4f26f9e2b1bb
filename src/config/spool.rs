//! The group of durable delivery: the queue on disk, the receipts, and who this instance is.

use super::{Faults, Warning, units, variables::Group};
use crate::produce::{DeadLetterTopic, InstanceId};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

/// `SPOOL_MAX_BYTES` where it is not set.
const MAX_BYTES: u64 = 1 << 30;
/// `RECEIPT_MAX_BYTES` where it is not set.
const RECEIPT_MAX_BYTES: u64 = 256 << 20;
/// `RECEIPT_TTL` where it is not set.
const RECEIPT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Below it the store's own files leave no room for records.
const LEAST_SPOOL: u64 = 16 << 20;
const LEAST_RECEIPTS: u64 = 1 << 20;
const MOST_BYTES: u64 = 1 << 44;
const SHORTEST: Duration = Duration::from_secs(1);
/// Ten years: longer is a slip of the keyboard.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// `DELIVERY=durable`: records that Kafka does not take at once are stored on disk. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    pub directory: PathBuf,
    /// What the queue may take on disk; new records are refused beyond it.
    pub max_bytes: u64,
    /// New records are refused while the oldest is older; None for no bound.
    pub max_age: Option<Duration>,
    /// What resolved receipts may take on disk.
    pub receipt_max_bytes: u64,
    /// How long a resolved receipt is kept.
    pub receipt_ttl: Duration,
    /// Where records go that Kafka refuses for ever; None keeps them as failed.
    pub dead_letter_topic: Option<DeadLetterTopic>,
}

/// What a 2xx is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeliveryMode {
    /// Kafka's acknowledgement alone.
    Direct,
    /// That, or the record on this machine's disk.
    Durable,
}

#[derive(Deserialize)]
pub(super) struct SpoolVariables {
    delivery: Option<String>,
    spool_dir: Option<String>,
    spool_max_bytes: Option<String>,
    spool_max_age: Option<String>,
    receipt_max_bytes: Option<String>,
    receipt_ttl: Option<String>,
    dead_letter_topic: Option<String>,
    instance_id: Option<String>,
}

impl Group for SpoolVariables {
    const PREFIX: &str = "";
}

impl SpoolVariables {
    /// None for direct delivery. All variables are read in any case, so that their faults are told.
    pub(super) fn parse(&self, faults: &mut Faults, warnings: &mut Vec<Warning>) -> Option<Spool> {
        let modes = [("direct", DeliveryMode::Direct), ("durable", DeliveryMode::Durable)];
        let mode = faults.read("DELIVERY", self.delivery.as_deref(), units::one_of(&modes));
        let directory = faults.read("SPOOL_DIR", self.spool_dir.as_deref(), directory);
        let mut size = |variable, given: &Option<String>, least, default| {
            faults.read(variable, given.as_deref(), units::bytes(least..=MOST_BYTES)).unwrap_or(default)
        };
        let max_bytes = size("SPOOL_MAX_BYTES", &self.spool_max_bytes, LEAST_SPOOL, MAX_BYTES);
        let receipt_max_bytes =
            size("RECEIPT_MAX_BYTES", &self.receipt_max_bytes, LEAST_RECEIPTS, RECEIPT_MAX_BYTES);
        let mut time = |variable, given: &Option<String>| {
            faults.read(variable, given.as_deref(), units::duration(SHORTEST..=LONGEST))
        };
        let max_age = time("SPOOL_MAX_AGE", &self.spool_max_age);
        let receipt_ttl = time("RECEIPT_TTL", &self.receipt_ttl).unwrap_or(RECEIPT_TTL);
        let parse = |text: &str| DeadLetterTopic::parse(text).map_err(|error| error.to_string());
        let dead_letter_topic = faults.read("DEAD_LETTER_TOPIC", self.dead_letter_topic.as_deref(), parse);

        if mode != Some(DeliveryMode::Durable) {
            // a DELIVERY that could not be read may have been meant to be durable
            if !faults.concern(&["DELIVERY"]) {
                warnings.extend(self.without_effect());
            }
            return None;
        }
        if directory.is_none() && !faults.concern(&["SPOOL_DIR"]) {
            faults.add(
                "SPOOL_DIR",
                "DELIVERY=durable needs it: name a directory on a local disk that outlives the process",
            );
        }
        Some(Spool {
            directory: directory.unwrap_or_default(),
            max_bytes,
            max_age,
            receipt_max_bytes,
            receipt_ttl,
            dead_letter_topic,
        })
    }

    /// Who this instance is among its equals, in either mode.
    pub(super) fn instance_id(&self, faults: &mut Faults) -> InstanceId {
        let parse = |text: &str| InstanceId::parse(text).map_err(|error| error.to_string());
        faults.read("INSTANCE_ID", self.instance_id.as_deref(), parse).unwrap_or_else(default_instance_id)
    }

    /// A warning where something is set that direct delivery does not read.
    fn without_effect(&self) -> Option<Warning> {
        let set: Vec<_> = [
            ("SPOOL_DIR", &self.spool_dir),
            ("SPOOL_MAX_BYTES", &self.spool_max_bytes),
            ("SPOOL_MAX_AGE", &self.spool_max_age),
            ("RECEIPT_MAX_BYTES", &self.receipt_max_bytes),
            ("RECEIPT_TTL", &self.receipt_ttl),
            ("DEAD_LETTER_TOPIC", &self.dead_letter_topic),
        ]
        .into_iter()
        .filter_map(|(variable, given)| given.is_some().then_some(variable))
        .collect();
        let has = if set.len() == 1 { "has" } else { "have" };
        (!set.is_empty()).then(|| {
            Warning::new(format!("{} {has} no effect: DELIVERY is direct and not durable", set.join(", ")))
        })
    }
}

/// The host's name, which is the pod's in Kubernetes.
pub(super) fn default_instance_id() -> InstanceId {
    InstanceId::of_host(&rustix::system::uname().nodename().to_string_lossy())
}

/// Whether it can be used is found out when it is opened.
fn directory(text: &str) -> Result<PathBuf, String> {
    if text.chars().any(char::is_control) {
        return Err("it must be the path of a directory, without control characters".into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Option<Spool>, String, Vec<String>) {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut faults = Faults::default();
        let mut warnings = Vec::new();
        let group = SpoolVariables::read(&variables, &mut faults).unwrap();
        let spool = group.parse(&mut faults, &mut warnings);
        (spool, faults.to_string(), warnings.iter().map(ToString::to_string).collect())
    }

    const DURABLE: [(&str, &str); 2] = [("DELIVERY", "durable"), ("SPOOL_DIR", "/var/spool/inlet")];

    #[test]
    fn delivery_is_direct_unless_it_is_set() {
        assert_eq!(read(&[]), (None, String::new(), vec![]));
        assert_eq!(read(&[("DELIVERY", "Direct")]), (None, String::new(), vec![]));
    }

    #[test]
    fn durable_delivery_needs_a_directory_and_has_defaults_for_the_rest() {
        let (spool, faults, _) = read(&DURABLE);
        let spool = spool.expect("durable");
        assert_eq!(faults, "");
        assert_eq!(spool.directory, PathBuf::from("/var/spool/inlet"));
        assert_eq!((spool.max_bytes, spool.max_age), (1 << 30, None));
        assert_eq!((spool.receipt_max_bytes, spool.receipt_ttl), (256 << 20, RECEIPT_TTL));
        assert_eq!(spool.dead_letter_topic, None);
        assert!(read(&DURABLE[..1]).1.starts_with("SPOOL_DIR: DELIVERY=durable needs it"));
    }

    #[test]
    fn what_is_set_is_taken() {
        let (spool, faults, warnings) = read(
            &[
                &DURABLE[..],
                &[
                    ("SPOOL_MAX_BYTES", "20GiB"),
                    ("SPOOL_MAX_AGE", "7d"),
                    ("RECEIPT_MAX_BYTES", "1GB"),
                    ("RECEIPT_TTL", "90m"),
                    ("DEAD_LETTER_TOPIC", "{topic}.dlq"),
                ],
            ]
            .concat(),
        );
        let spool = spool.expect("durable");
        assert_eq!((faults, warnings), (String::new(), vec![]));
        assert_eq!((spool.max_bytes, spool.receipt_max_bytes), (20 << 30, 1_000_000_000));
        assert_eq!(spool.max_age, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(spool.receipt_ttl, Duration::from_secs(5400));
        assert_eq!(spool.dead_letter_topic, DeadLetterTopic::parse("{topic}.dlq").ok());
    }

    #[test]
    fn values_out_of_bounds_are_faults_in_either_mode() {
        for (variable, value) in [
            ("SPOOL_MAX_BYTES", "15MiB"),
            ("SPOOL_MAX_BYTES", "17592186044417"),
            ("SPOOL_MAX_AGE", "60"),
            ("SPOOL_MAX_AGE", "999ms"),
            ("RECEIPT_MAX_BYTES", "1"),
            ("RECEIPT_TTL", "0s"),
            ("RECEIPT_TTL", "100000d"),
            ("DEAD_LETTER_TOPIC", "{topic}"),
        ] {
            for mode in [&DURABLE[..], &[]] {
                let (_, faults, _) = read(&[mode, &[(variable, value)]].concat());
                assert!(faults.starts_with(&format!("{variable}: ")), "{variable}={value}: {faults}");
            }
        }
    }

    #[test]
    fn what_direct_delivery_does_not_read_is_warned_of_together() {
        let (_, _, warnings) = read(&[("SPOOL_DIR", "/x"), ("RECEIPT_TTL", "1h"), ("INSTANCE_ID", "a")]);
        assert_eq!(warnings, ["SPOOL_DIR, RECEIPT_TTL have no effect: DELIVERY is direct and not durable"]);
        let (_, faults, warnings) = read(&[("DELIVERY", "durably"), ("SPOOL_DIR", "/x")]);
        assert!(faults.starts_with("DELIVERY: ") && warnings.is_empty(), "{faults} {warnings:?}");
    }

    #[test]
    fn an_instance_is_named_by_its_host_unless_it_is_set() {
        let instance_id = |given: Option<&str>, faults: &mut Faults| {
            let variables = given.map(|id| ("INSTANCE_ID".to_owned(), id.to_owned())).into_iter().collect();
            SpoolVariables::read(&variables, faults).unwrap().instance_id(faults)
        };
        let mut faults = Faults::default();
        assert_eq!(instance_id(Some("inlet-0"), &mut faults).as_str(), "inlet-0");
        assert_eq!(instance_id(None, &mut faults), default_instance_id());
        assert!(faults.is_empty());
        instance_id(Some("a b"), &mut faults);
        assert!(faults.to_string().starts_with("INSTANCE_ID: "), "{faults}");
    }
}
