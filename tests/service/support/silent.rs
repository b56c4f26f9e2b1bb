//! A server that takes connections and never says a word.

use std::{net::TcpListener, thread};

/// The address of a listener that accepts for as long as the test process lives.
pub fn listen() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut open = Vec::new();
        for connection in listener.incoming() {
            open.push(connection);
        }
    });
    address
}
