use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

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
