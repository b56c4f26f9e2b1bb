//! The `health` subcommand: a health check for images that hold neither a shell nor curl.

use crate::config::Http;
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// For the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why the service does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    #[error("PORT=0 lets the system choose the port, so it is not known here; set PORT")]
    PortUnknown,
    #[error("GET http://{0}/health: {1}")]
    Unreachable(SocketAddr, io::Error),
    #[error("GET http://{0}/health was answered by {1:?} instead of 200")]
    Refused(SocketAddr, String),
}

/// Asks the service that listens where `http` says for its `/health`. Blocks for at most two seconds.
pub fn check(http: &Http) -> Result<(), Unhealthy> {
    if http.port == 0 {
        return Err(Unhealthy::PortUnknown);
    }
    let address = SocketAddr::new(reachable(http.host), http.port);
    let status_line = ask(address).map_err(|error| Unhealthy::Unreachable(address, error))?;
    match status_line.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(Unhealthy::Refused(address, status_line)),
    }
}

/// An unspecified address can be listened on and not connected to.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// The answer's first line, or as much of it as came.
fn ask(address: SocketAddr) -> io::Result<String> {
    /// More than any status line; a peer that is not an HTTP server is cut off here.
    const LONGEST: usize = 256;
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // one write: `write!` would send each part of the text as a segment of its own
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; LONGEST];
    while answer.len() < LONGEST && !answer.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend(buffer.iter().take(read)),
            // what a read time-out is called on Unix
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Answers one connection, or keeps it open in silence.
    fn service(answer: Option<&'static str>) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).expect("written"),
                None => thread::sleep(TIMEOUT * 2),
            }
        });
        Http { port, ..Http::default() }
    }

    #[test]
    fn a_200_is_healthy() {
        assert!(check(&service(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))).is_ok());
    }

    #[test]
    fn any_other_answer_is_not() {
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "SSH-2.0-OpenSSH\r\n", ""] {
            assert!(matches!(check(&service(Some(answer))), Err(Unhealthy::Refused(..))), "{answer}");
        }
    }

    #[test]
    fn silence_is_not_waited_for_longer_than_two_seconds() {
        let start = Instant::now();
        let error = check(&service(None)).expect_err("a time-out");
        assert!(
            matches!(&error, Unhealthy::Unreachable(_, cause) if cause.kind() == io::ErrorKind::TimedOut)
        );
        assert!(start.elapsed() < TIMEOUT * 5);
    }

    #[test]
    fn nobody_there_is_not_healthy() {
        assert!(matches!(
            check(&Http { port: 1 /* too low to be given to anybody by chance */, ..Http::default() }),
            Err(Unhealthy::Unreachable(..))
        ));
    }

    #[test]
    fn an_unspecified_host_is_asked_on_the_loopback() {
        assert_eq!(reachable("0.0.0.0".parse().expect("v4")).to_string(), "127.0.0.1");
        assert_eq!(reachable("::".parse().expect("v6")).to_string(), "::1");
        assert_eq!(reachable("10.0.0.1".parse().expect("v4")).to_string(), "10.0.0.1");
    }
}
