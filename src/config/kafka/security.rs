//! TLS and SASL, each all of its variables or none.

use super::{KafkaVariables, Sasl, SaslMechanism, Tls};
use crate::config::{Faults, Secret, units};
use std::{fs, path::PathBuf};

const MECHANISMS: [(&str, SaslMechanism); 3] = [
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
];

pub(super) fn tls(variables: &KafkaVariables, faults: &mut Faults) -> Option<Tls> {
    let enabled = faults.read("KAFKA_SSL", variables.ssl.as_deref(), units::boolean);
    if enabled != Some(true) {
        let switch_is_faulty = faults.concern(&["KAFKA_SSL"]);
        let set = [
            ("KAFKA_SSL_CA_LOCATION", &variables.ssl_ca_location),
            ("KAFKA_SSL_CERTIFICATE_LOCATION", &variables.ssl_certificate_location),
            ("KAFKA_SSL_KEY_LOCATION", &variables.ssl_key_location),
            ("KAFKA_SSL_KEY_PASSWORD", &variables.ssl_key_password),
        ]
        .into_iter()
        .filter(|(_, given)| given.is_some() && !switch_is_faulty);
        for (variable, _) in set {
            faults.add(variable, "it has no effect without TLS; set KAFKA_SSL=true, or unset it");
        }
        return None;
    }
    match (&variables.ssl_certificate_location, &variables.ssl_key_location) {
        (Some(_), None) => {
            faults.add("KAFKA_SSL_CERTIFICATE_LOCATION", "it needs KAFKA_SSL_KEY_LOCATION beside it");
        }
        (None, Some(_)) => {
            faults.add("KAFKA_SSL_KEY_LOCATION", "it needs KAFKA_SSL_CERTIFICATE_LOCATION beside it");
        }
        _ => {}
    }
    if variables.ssl_key_password.is_some() && variables.ssl_key_location.is_none() {
        faults.add("KAFKA_SSL_KEY_PASSWORD", "it needs KAFKA_SSL_KEY_LOCATION beside it");
    }
    Some(Tls {
        ca_location: faults.read(
            "KAFKA_SSL_CA_LOCATION",
            variables.ssl_ca_location.as_deref(),
            readable_file_or_directory,
        ),
        certificate_location: faults.read(
            "KAFKA_SSL_CERTIFICATE_LOCATION",
            variables.ssl_certificate_location.as_deref(),
            readable_file,
        ),
        key_location: faults.read(
            "KAFKA_SSL_KEY_LOCATION",
            variables.ssl_key_location.as_deref(),
            readable_file,
        ),
        key_password: variables.ssl_key_password.as_deref().map(Secret::new),
    })
}

pub(super) fn sasl(variables: &KafkaVariables, faults: &mut Faults) -> Option<Sasl> {
    let mechanism =
        faults.read("KAFKA_SASL_MECHANISM", variables.sasl_mechanism.as_deref(), units::one_of(&MECHANISMS));
    let credentials = [
        ("KAFKA_SASL_USERNAME", &variables.sasl_username),
        ("KAFKA_SASL_PASSWORD", &variables.sasl_password),
    ];
    for (variable, given) in credentials {
        match (&variables.sasl_mechanism, given) {
            (Some(_), None) => faults.add(variable, "it must be set where KAFKA_SASL_MECHANISM is"),
            (None, Some(_)) => faults.add(
                variable,
                "it has no effect without KAFKA_SASL_MECHANISM, which must be one of PLAIN, SCRAM-SHA-256, \
                 SCRAM-SHA-512",
            ),
            _ => {}
        }
    }
    Some(Sasl {
        mechanism: mechanism?,
        username: variables.sasl_username.clone()?,
        password: Secret::new(variables.sasl_password.clone()?),
    })
}

fn readable_file(text: &str) -> Result<PathBuf, String> {
    let path = readable_file_or_directory(text)?;
    if path.is_dir() { Err("it must be a PEM file, and is a directory".into()) } else { Ok(path) }
}

/// librdkafka takes a directory of certificates for `ssl.ca.location` too.
fn readable_file_or_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("it must be a PEM file that this process can read: {error}")),
    }
}
