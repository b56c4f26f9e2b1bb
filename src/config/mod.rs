//! Settings, from the environment to plain data. The only module that reads the environment.
//!
//! Each group has a file: the plain struct that others use, and a struct of its variables as text. Reading goes
//! through all groups and then through what must hold between them, so that one run reports every fault.

mod environment;
mod faults;
mod http;
mod kafka;
mod limits;
mod log;
mod records;
mod relations;
mod secret;
mod spool;
#[cfg(test)]
mod tests;
mod topics;
mod units;
mod unknown;
mod variables;

pub use faults::{Faults, Warning};
pub use http::Http;
pub use kafka::{Compression, Kafka, Partitioner, Sasl, SaslMechanism, Tls};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use records::{RecordHeaders, Records};
pub use relations::{FLUSH_TIMEOUT, REPORT_MARGIN};
pub use secret::Secret;
pub use spool::Spool;
pub use topics::Topics;

use self::{
    http::HttpVariables,
    kafka::KafkaVariables,
    limits::LimitsVariables,
    log::LogVariables,
    records::RecordsVariables,
    spool::SpoolVariables,
    topics::TopicsVariables,
    variables::{Group, Variables},
};
use crate::produce::InstanceId;
use std::path::Path;

/// Every setting of the service.
#[derive(Debug, Clone)]
pub struct Config {
    pub http: Http,
    pub kafka: Kafka,
    pub limits: Limits,
    pub log: Log,
    pub records: Records,
    pub topics: Topics,
    /// None for `DELIVERY=direct`: nothing is stored on disk.
    pub spool: Option<Spool>,
    pub instance_id: InstanceId,
}

impl Default for Config {
    /// What holds where nothing is set, on this host.
    fn default() -> Self {
        Self {
            http: Http::default(),
            kafka: Kafka::default(),
            limits: Limits::default(),
            log: Log::default(),
            records: Records::default(),
            topics: Topics::default(),
            spool: None,
            instance_id: spool::default_instance_id(),
        }
    }
}

/// What flags of the command line decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--embedded`
    pub embedded: bool,
}

/// Why librdkafka would refuse a property and its value; only its adapter knows.
pub type CheckProperty = fn(property: &str, value: &str) -> Result<(), String>;

/// The settings out of the process's environment and the file `.env` in the working directory, of which the
/// environment wins.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
pub fn from_environment(
    overrides: Overrides,
    check_property: CheckProperty,
) -> Result<(Config, Vec<Warning>), Faults> {
    let known = variable_names();
    let is_ours =
        |name: &str| known.iter().any(|own| own == name) || name.starts_with(kafka::PROPERTY_PREFIX);
    let mut faults = Faults::default();
    let variables = environment::collect(std::env::vars_os(), Path::new(".env"), is_ours, &mut faults);
    load(variables, overrides, check_property, faults)
}

impl Config {
    /// The settings out of the given variables, name and value. Properties of librdkafka are not checked.
    pub fn load(
        variables: impl IntoIterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<(Self, Vec<Warning>), Faults> {
        load(variables, overrides, |_, _| Ok(()), Faults::default())
    }
}

fn load(
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: Overrides,
    check_property: CheckProperty,
    mut faults: Faults,
) -> Result<(Config, Vec<Warning>), Faults> {
    let variables: Variables = variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    let mut warnings = unknown::warnings(&variables, &variable_names());
    let config = parse(&variables, overrides, check_property, &mut faults, &mut warnings);
    if let Some(config) = &config {
        relations::check(config, &mut faults);
    }
    match config {
        Some(config) if faults.is_empty() => Ok((config, warnings)),
        _ => Err(faults),
    }
}

/// None where a group could not be read at all, which is then noted as a fault.
fn parse(
    variables: &Variables,
    overrides: Overrides,
    check_property: CheckProperty,
    faults: &mut Faults,
    warnings: &mut Vec<Warning>,
) -> Option<Config> {
    let records = RecordsVariables::read(variables, faults)?;
    let mut kafka = KafkaVariables::read(variables, faults)?.parse(overrides.embedded, faults);
    if let Some(partitioner) = records.partitioner(faults) {
        kafka.partitioner = partitioner;
    }
    kafka.properties =
        kafka::parse_properties(variables, kafka.idempotence, check_property, faults, warnings);
    for variable in kafka.with_line_breaks() {
        warnings.push(Warning::new(format!(
            "{variable} ends with a line break, which is sent as a part of it; a file that is mounted often has one: remove it"
        )));
    }
    if !kafka.idempotence {
        warnings.push(Warning::new(
            "KAFKA_IDEMPOTENCE=false: a retry inside the producer may write a record twice",
        ));
    }
    let spool = SpoolVariables::read(variables, faults)?;
    let instance_id = spool.instance_id(faults);
    let spool = spool.parse(faults, warnings);
    kafka.never_gives_up = spool.is_some();
    Some(Config {
        http: HttpVariables::read(variables, faults)?.parse(kafka.embedded, faults),
        kafka,
        limits: LimitsVariables::read(variables, faults)?.parse(faults),
        log: LogVariables::read(variables, faults)?.parse(faults),
        records: records.parse(faults),
        topics: TopicsVariables::read(variables, faults)?.parse(faults),
        instance_id,
        spool,
    })
}

/// The full names of all variables but `KAFKA_PROPERTY_<NAME>`.
fn variable_names() -> Vec<String> {
    [
        HttpVariables::names(),
        KafkaVariables::names(),
        LimitsVariables::names(),
        LogVariables::names(),
        RecordsVariables::names(),
        SpoolVariables::names(),
        TopicsVariables::names(),
    ]
    .concat()
}
