//! A client's side of HTTP/1.1: as much of it as a load program needs.

use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A whole answer, of which only this is of interest.
pub struct Answer {
    pub status: u16,
    /// The connection is of no further use.
    pub closes: bool,
}

pub async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The answer, once all of it is there.
pub async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = complete(&answer)? {
            return Ok(answer);
        }
    }
}

/// An answer with `Content-Length`, None while a part is missing.
fn complete(answer: &[u8]) -> io::Result<Option<Answer>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (Some(length), Some(status)) = (length, status) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let closes = text.lines().any(|line| line == "connection: close");
    Ok((answer.len() >= head + 4 + length).then_some(Answer { status, closes }))
}
