//! The command's end of the socket.

use super::{
    protocol::{Answer, Request},
    socket,
};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long the service may take for the next line: its disk may be slow, and others may be answered before.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a running service was not asked.
#[derive(Debug)]
pub(super) enum Unasked {
    /// Nobody listens, for this reason.
    Nobody(String),
    /// The service listens, and the exchange failed.
    Broken(String),
    /// The answers could not be said on.
    Unsaid(io::Error),
}

/// Asks the service that uses the spool in this directory, and says on each of its answers.
pub(super) fn ask(
    directory: &Path,
    request: &Request,
    mut say: impl FnMut(Answer) -> io::Result<()>,
) -> Result<(), Unasked> {
    let path = socket(directory);
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Unasked::Nobody(format!("nobody listens at {}", path.display()))
        }
        ErrorKind::InvalidInput => {
            Unasked::Nobody(format!("the path {} is too long for a socket", path.display()))
        }
        ErrorKind::PermissionDenied => {
            Unasked::Broken(format!("{}; run this as the user of the service", named(&error)))
        }
        _ => Unasked::Broken(named(&error)),
    })?;
    let broken = |error: io::Error| match error.kind() {
        // what a time-out is called on Unix
        ErrorKind::WouldBlock => Unasked::Broken(format!(
            "{}: the service has not answered for {} s",
            path.display(),
            PATIENCE.as_secs()
        )),
        _ => Unasked::Broken(named(&error)),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    let mut line = serde_json::to_vec(request).map_err(|error| Unasked::Broken(named(&error)))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    for line in BufReader::new(stream).lines() {
        let answer: Answer = serde_json::from_str(&line.map_err(broken)?)
            .map_err(|error| Unasked::Broken(format!("the service answers in another way: {error}")))?;
        let is_last = matches!(answer, Answer::End { .. } | Answer::Error(_));
        say(answer).map_err(Unasked::Unsaid)?;
        if is_last {
            return Ok(());
        }
    }
    Err(Unasked::Broken("the service ended before its answer did; ask again".into()))
}
