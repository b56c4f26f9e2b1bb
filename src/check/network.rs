//! Name resolution and TCP, by the system's own means, for bootstrap and advertised addresses.

use super::{Line, Verdict};
use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

/// For one TCP connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const TCP: &str = "TCP";

/// The lines on one entry of KAFKA_BROKERS.
pub(super) fn bootstrap(broker: &str) -> Vec<Line> {
    let (host, port) = host_and_port(broker);
    reach(
        &format!("bootstrap {broker}"),
        host,
        port,
        "correct the name in KAFKA_BROKERS, or the DNS or hosts file of this machine",
        "start Kafka, correct KAFKA_BROKERS, or open the port in the firewall",
    )
}

/// The lines on the address that a broker told its clients to use.
pub(super) fn advertised(id: i32, host: &str, port: i32) -> Vec<Line> {
    let subject = format!("broker {id} at its advertised address {host}:{port}");
    let Ok(port) = u16::try_from(port) else {
        return vec![Line::new(
            Verdict::Fail,
            subject,
            "that is no port; correct the broker's advertised.listeners",
        )];
    };
    let advice = "Kafka's advertised.listeners names an address that cannot be reached from here, though the \
                  bootstrap address can; set advertised.listeners on the broker to an address that this machine \
                  reaches (with several networks: one listener for each), or make this one resolve and open \
                  the port";
    reach(&subject, host, port, advice, advice)
}

/// Whether one of the addresses in `lines` accepted a connection.
pub(super) fn is_reachable(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.verdict == Verdict::Ok && line.subject.starts_with(TCP))
}

fn reach(subject: &str, host: &str, port: u16, unresolved: &str, unreachable: &str) -> Vec<Line> {
    let resolving = format!("name resolution, {subject}");
    let addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return vec![Line::new(Verdict::Fail, resolving, format!("{error}; {unresolved}"))];
        }
    };
    if addresses.is_empty() {
        return vec![Line::new(Verdict::Fail, resolving, format!("the name has no address; {unresolved}"))];
    }
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let mut lines = vec![Line::new(Verdict::Ok, resolving, list.join(", "))];
    lines.extend(connect(subject, &addresses, unreachable));
    lines
}

/// librdkafka tries the addresses of a name in turn, so that one of them is enough.
fn connect(subject: &str, addresses: &[SocketAddr], advice: &str) -> Vec<Line> {
    let tried: Vec<_> = addresses
        .iter()
        .map(|address| (address, TcpStream::connect_timeout(address, CONNECT_TIMEOUT)))
        .collect();
    let one_works = tried.iter().any(|(_, connected)| connected.is_ok());
    let lines = tried.into_iter().map(|(address, connected)| {
        let subject = format!("{TCP} to {address}, {subject}");
        match connected {
            Ok(_) => Line::new(Verdict::Ok, subject, "connected"),
            Err(error) if one_works => {
                let finding =
                    format!("{error}; another address of the name works, so connecting may take a retry");
                Line::new(Verdict::Warn, subject, finding)
            }
            Err(error) => Line::new(Verdict::Fail, subject, format!("{error}; {advice}")),
        }
    });
    lines.collect()
}

/// `host:port` or `[IPv6]:port`, as the settings make every entry.
fn host_and_port(broker: &str) -> (&str, u16) {
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn closed_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn every_form_of_a_broker_address_is_understood() {
        assert_eq!(host_and_port("kafka:19092"), ("kafka", 19092));
        assert_eq!(host_and_port("[::1]:9093"), ("::1", 9093));
    }

    #[test]
    fn an_address_that_listens_is_reachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lines = bootstrap(&listener.local_addr().unwrap().to_string());
        assert_eq!(lines.iter().map(|line| line.verdict).collect::<Vec<_>>(), [Verdict::Ok, Verdict::Ok]);
        assert!(is_reachable(&lines));
    }

    #[test]
    fn a_closed_port_fails_after_the_name_was_resolved() {
        let lines = bootstrap(&format!("127.0.0.1:{}", closed_port()));
        assert_eq!(lines.iter().map(|line| line.verdict).collect::<Vec<_>>(), [Verdict::Ok, Verdict::Fail]);
        assert!(lines[1].finding.contains("KAFKA_BROKERS"), "{}", lines[1]);
        assert!(!is_reachable(&lines));
    }

    #[test]
    fn a_name_that_does_not_resolve_fails() {
        let lines = bootstrap("kafka.invalid:9092");
        assert_eq!(lines.iter().map(|line| line.verdict).collect::<Vec<_>>(), [Verdict::Fail]);
        assert!(lines[0].subject.contains("kafka.invalid:9092"), "{}", lines[0]);
    }

    #[test]
    fn an_advertised_address_out_of_reach_is_laid_to_the_broker() {
        let lines = advertised(7, "127.0.0.1", closed_port().into());
        assert_eq!(lines[1].verdict, Verdict::Fail);
        assert!(lines[1].finding.contains("advertised.listeners"), "{}", lines[1]);
    }
}
