//! A TCP relay that adds a round-trip time. It changes no byte: the broker advertises the relay's port.
//!
//! `delay --listen PORT --to PORT --milliseconds R`
//!
//! The whole of R is spent on the way to the broker. A client sees only the sum of both ways, and one sleep is
//! less wrong than two. Threads, since their sleep is finer than the millisecond of tokio's timer.

use kafka_inlet_bench::{Arguments, Outcome};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// Bytes of one read.
const CHUNK: usize = 64 * 1024;

/// Reads that may wait for their moment.
const CHUNKS_UNDER_WAY: usize = 4096;

fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let to: u16 = arguments.required("to")?;
    let delay = Duration::from_secs_f64(arguments.required::<f64>("milliseconds")? / 1e3);
    let listener = TcpListener::bind(("127.0.0.1", arguments.required("listen")?))?;
    for client in listener.incoming() {
        // the client tries again if the broker is not there
        if let Err(error) = client.and_then(|client| relay(client, to, delay)) {
            eprintln!("{error}");
        }
    }
    Ok(())
}

fn relay(client: TcpStream, to: u16, delay: Duration) -> io::Result<()> {
    let broker = TcpStream::connect(("127.0.0.1", to))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (reader, writer) = (client.try_clone()?, broker.try_clone()?);
    let (sender, receiver) = sync_channel(CHUNKS_UNDER_WAY);
    thread::spawn(move || {
        let _ = read_chunks(reader, |chunk| sender.send((Instant::now() + delay, chunk)).is_ok());
    });
    thread::spawn(move || {
        let _ = write_when_due(&writer, &receiver);
        let _ = writer.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut &broker, &mut &client);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn read_chunks(mut from: TcpStream, mut take: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 || !take(buffer[..count].to_vec()) {
            return Ok(());
        }
    }
}

fn write_when_due(mut to: &TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
    for (due, chunk) in chunks {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        to.write_all(&chunk)?;
    }
    Ok(())
}
