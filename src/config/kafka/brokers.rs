//! `KAFKA_BROKERS` and its other names.

use super::KafkaVariables;
use crate::config::{Faults, units};
use std::net::Ipv6Addr;

const DEFAULT_BROKER: &str = "localhost:9092";
const DEFAULT_PORT: u16 = 9092;

/// The addresses to start from, or None for the embedded Kafka.
pub(super) fn parse(
    variables: &KafkaVariables,
    embedded_flag: bool,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let named = [
        ("KAFKA_BROKERS", &variables.brokers),
        ("KAFKA_BOOTSTRAP_SERVERS", &variables.bootstrap_servers),
        ("KAFKA_BROKER", &variables.broker),
    ];
    let mut chosen: Option<(&str, Brokers)> = None;
    for (variable, given) in named {
        let Some(brokers) = faults.read(variable, given.as_deref(), brokers) else { continue };
        match &chosen {
            Some((first, of_first)) if *of_first != brokers => {
                faults
                    .add(variable, format!("it is set as {first} is, to other brokers; keep one of the two"));
            }
            Some(_) => {}
            None => chosen = Some((variable, brokers)),
        }
    }
    match chosen {
        Some((_, Brokers::Embedded)) => None,
        Some((variable, Brokers::At(_))) if embedded_flag => {
            faults.add(
                variable,
                "it names real brokers, and --embedded runs a Kafka of its own that keeps nothing; drop one of \
                 the two",
            );
            None
        }
        Some((_, Brokers::At(addresses))) => Some(addresses),
        None if embedded_flag => None,
        None => Some(vec![DEFAULT_BROKER.into()]),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Brokers {
    Embedded,
    At(Vec<String>),
}

fn brokers(text: &str) -> Result<Brokers, String> {
    if text.eq_ignore_ascii_case("embedded") {
        return Ok(Brokers::Embedded);
    }
    let addresses: Vec<_> = units::list(text).map(address).collect::<Option<_>>().ok_or(ALLOWED)?;
    if addresses.is_empty() {
        return Err(ALLOWED.into());
    }
    if units::list(text).any(|member| member.eq_ignore_ascii_case("embedded")) {
        return Err("embedded stands alone; it cannot be listed with real brokers".into());
    }
    Ok(Brokers::At(addresses))
}

const ALLOWED: &str = "it must be a comma-separated list of host:port (port 9092 if left out, IPv6 addresses in \
                       brackets, no protocol in front), or embedded";

/// `host:port` with the port made explicit.
fn address(text: &str) -> Option<String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        (&text[..address.len() + 2], if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || !(host.starts_with('[') || host.bytes().all(legal)) {
        return None;
    }
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0)?,
        None => DEFAULT_PORT,
    };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_an_optional_port() {
        for (text, address) in [
            ("kafka", "kafka:9092"),
            ("kafka-0.kafka:9093", "kafka-0.kafka:9093"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:9092", "[::1]:9092"),
            ("[fe80::1]", "[fe80::1]:9092"),
        ] {
            assert_eq!(brokers(text), Ok(Brokers::At(vec![address.into()])), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            ",",
            ":9092",
            "kafka:",
            "kafka:0",
            "kafka:65536",
            "kafka:x",
            "::1",
            "fe80::1:9092",
            "[::1",
            "[::1]9092",
            "[kafka]:9092",
            "PLAINTEXT://kafka:9092",
            "kafka 9092",
            "a:1,b:x",
        ] {
            assert!(brokers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn embedded_stands_alone() {
        assert_eq!(brokers("Embedded"), Ok(Brokers::Embedded));
        assert!(brokers("embedded,kafka:9092").is_err());
    }
}
