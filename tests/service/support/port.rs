//! A port that one server keeps while it is restarted, or that nobody listens on for as long as a test goes.

use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that only a server told of it can listen on: nobody is given it by chance, neither while that
/// server is down, nor as the port of an outgoing connection. It is bound here without listening, and `SO_REUSEADDR`,
/// which servers set, lets one listen beside.
pub struct ReservedPort {
    number: u16,
    _socket: TcpSocket,
}

impl ReservedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { number: socket.local_addr().unwrap().port(), _socket: socket }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}
