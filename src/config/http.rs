//! The group of the listener.

use super::{Faults, units, variables::Group};
use serde::Deserialize;
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// An hour, in milliseconds: longer is a slip of the keyboard.
const HOUR: u64 = 3_600_000;

/// The listener and its time limits.
#[derive(Debug, Clone)]
pub struct Http {
    pub host: IpAddr,
    /// 0 lets the system choose; the log says which.
    pub port: u16,
    /// How long a client may take to send its request's head.
    pub header_timeout: Duration,
    /// How long a client may take to send its request's body.
    pub body_timeout: Duration,
    /// How long `/ready` is 503 before the listener closes.
    pub shutdown_delay: Duration,
    /// How long the requests in flight may then take.
    pub shutdown_timeout: Duration,
    /// None follows the cores.
    pub worker_threads: Option<usize>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 4000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            shutdown_delay: Duration::from_secs(3),
            shutdown_timeout: Duration::from_secs(20),
            worker_threads: None,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct HttpVariables {
    host: Option<String>,
    port: Option<String>,
    header_timeout_ms: Option<String>,
    body_timeout_ms: Option<String>,
    shutdown_delay_ms: Option<String>,
    shutdown_timeout_ms: Option<String>,
    worker_threads: Option<String>,
}

impl Group for HttpVariables {
    const PREFIX: &str = "";
}

impl HttpVariables {
    /// An embedded Kafka is for one laptop, so its listener is not open to the network unless `HOST` says so.
    pub(super) fn parse(&self, embedded: bool, faults: &mut Faults) -> Http {
        let default = Http::default();
        let default_host = if embedded { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { default.host };
        let mut time = |variable, given: &Option<String>, range, default| {
            faults.read(variable, given.as_deref(), units::milliseconds(range)).unwrap_or(default)
        };
        let header_timeout =
            time("HEADER_TIMEOUT_MS", &self.header_timeout_ms, 1..=HOUR, default.header_timeout);
        let body_timeout = time("BODY_TIMEOUT_MS", &self.body_timeout_ms, 1..=HOUR, default.body_timeout);
        let shutdown_delay =
            time("SHUTDOWN_DELAY_MS", &self.shutdown_delay_ms, 0..=HOUR, default.shutdown_delay);
        let shutdown_timeout =
            time("SHUTDOWN_TIMEOUT_MS", &self.shutdown_timeout_ms, 0..=HOUR, default.shutdown_timeout);
        Http {
            host: faults.read("HOST", self.host.as_deref(), host).unwrap_or(default_host),
            port: faults.read("PORT", self.port.as_deref(), port).unwrap_or(default.port),
            header_timeout,
            body_timeout,
            shutdown_delay,
            shutdown_timeout,
            worker_threads: faults.read(
                "WORKER_THREADS",
                self.worker_threads.as_deref(),
                units::whole(1..=1024),
            ),
        }
    }
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        "it must be the IP address to listen on: 0.0.0.0 or :: for all, 127.0.0.1 for this machine alone"
            .into()
    })
}

fn port(text: &str) -> Result<u16, String> {
    if text.starts_with("tcp://") {
        return Err(
            "this is a Kubernetes service link and not a port; set PORT in the container's own env, \
                    or enableServiceLinks: false in the pod"
                .into(),
        );
    }
    units::whole(0..=u16::MAX)(text)
}
