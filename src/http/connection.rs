//! A client's TCP stream: gives a head, an idle connection and an answer that is not read their time, gives hyper's
//! own refusals a body, and closes so that the client can read the last answer.

use super::{
    refusal,
    unread::{Answers, Reader},
};
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How long a head may take on a connection of the reserve: others may wait for it.
const RESERVE_HEAD: Duration = Duration::from_secs(1);

/// How long the client may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a head, from the connection's start or from the head's first byte.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without taking a byte of its answer.
    pub write: Duration,
}

/// What the connection is at. hyper has one time limit for a head that stalls and for a connection that idles;
/// telling them apart keeps idle connections open for longer than a load balancer does.
#[derive(Debug)]
pub struct Phase {
    at: AtomicU8,
    born: std::time::Instant,
    /// When it came to be idle, to await a head or to linger, in milliseconds after the birth.
    since: AtomicU64,
    /// Others may wait for its place.
    in_reserve: AtomicBool,
    /// Of the task that awaits the next request.
    reader: AtomicWaker,
}

impl Default for Phase {
    fn default() -> Self {
        Self {
            at: AtomicU8::new(Self::HEAD),
            born: std::time::Instant::now(),
            since: AtomicU64::new(0),
            in_reserve: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }
}

impl Phase {
    /// A head is awaited or has begun: the start of every connection.
    const HEAD: u8 = 0;
    /// A request is with the service.
    const REQUEST: u8 = 1;
    /// All of the answer is in the buffer, and is to be written.
    const ANSWERED: u8 = 2;
    /// The answer has been written, and nothing has come since.
    const IDLE: u8 = 3;
    /// As idle, and to be closed unless something has come.
    const CLOSING: u8 = 4;
    /// As awaiting a head, and to be closed unless all of it has come.
    const HEAD_CLOSING: u8 = 5;
    /// The client is to close its side.
    const LINGERING: u8 = 6;
    /// As lingering, and to be closed at once.
    const LINGERED: u8 = 7;

    pub fn request(&self) {
        self.at.store(Self::REQUEST, Relaxed);
    }

    pub fn answered(&self) {
        self.at.store(Self::ANSWERED, Relaxed);
    }

    pub fn enter_reserve(&self) {
        self.in_reserve.store(true, Relaxed);
    }

    pub fn leave_reserve(&self) {
        self.in_reserve.store(false, Relaxed);
    }

    pub fn is_in_reserve(&self) -> bool {
        self.in_reserve.load(Relaxed)
    }

    /// Since when nothing has come; none where something is under way.
    pub fn idle_since(&self) -> Option<std::time::Instant> {
        self.since(Self::IDLE)
    }

    /// Since when a head is awaited: from the connection's start, or from its first byte.
    pub fn head_since(&self) -> Option<std::time::Instant> {
        self.since(Self::HEAD)
    }

    /// Since when the client is to close its side.
    pub fn lingers_since(&self) -> Option<std::time::Instant> {
        self.since(Self::LINGERING)
    }

    fn since(&self, at: u8) -> Option<std::time::Instant> {
        let since = || self.born + Duration::from_millis(self.since.load(Relaxed));
        (self.at.load(Acquire) == at).then(since)
    }

    /// Closes the connection where no request is on it; what comes at this moment is served still. Why, if this cut
    /// something off.
    pub fn close(&self) -> Option<&'static str> {
        let tell = |from, to| self.at.compare_exchange(from, to, AcqRel, Relaxed).is_ok();
        let reason = if tell(Self::IDLE, Self::CLOSING) {
            Some("idle")
        } else if tell(Self::HEAD, Self::HEAD_CLOSING) {
            Some("head")
        } else {
            tell(Self::LINGERING, Self::LINGERED);
            None
        };
        self.reader.wake();
        reason
    }

    /// It was told to close, and has not yet.
    pub fn is_told(&self) -> bool {
        matches!(self.at.load(Acquire), Self::CLOSING | Self::HEAD_CLOSING | Self::LINGERED)
    }

    fn is_head(&self) -> bool {
        self.at.load(Relaxed) == Self::HEAD
    }

    fn is_idle(&self) -> bool {
        self.at.load(Relaxed) == Self::IDLE
    }

    fn comes_to(&self, at: u8, now: std::time::Instant) {
        let millis = now.saturating_duration_since(self.born).as_millis();
        self.since.store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed);
        self.at.store(at, Release);
    }

    fn bytes_read(&self) {
        if matches!(self.at.load(Relaxed), Self::IDLE | Self::CLOSING) {
            self.comes_to(Self::HEAD, std::time::Instant::now());
        }
    }

    /// True where this ends an answer; a "100 Continue" is written before there is one.
    fn flushed(&self, now: Instant) -> bool {
        let answered = self.at.load(Relaxed) == Self::ANSWERED;
        if answered {
            self.comes_to(Self::IDLE, now.into_std());
        }
        answered
    }

    /// No request is with the service, and no answer of the service is on its way.
    fn is_between_requests(&self) -> bool {
        matches!(self.at.load(Relaxed), Self::HEAD | Self::IDLE | Self::CLOSING | Self::HEAD_CLOSING)
    }
}

/// Closing a socket that holds unread bytes resets the connection, and a reset can destroy an answer that the
/// client has not read (RFC 9112, section 9.6). So only the sending side is closed first, and what the client
/// still sends is thrown away until it closes too, for a second at most.
pub struct Connection {
    stream: TcpStream,
    phase: Arc<Phase>,
    timeouts: Timeouts,
    /// Runs while a head is incomplete; made only when one does not come in one piece.
    head_due: Option<Pin<Box<Sleep>>>,
    idle_since: Instant,
    /// Set anew when it fires and not with each request: a look at the clock is cheaper than a timer.
    idle_due: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    write_due: Option<Pin<Box<Sleep>>>,
    answers: Arc<Answers>,
    /// While the client has not taken all of its answer.
    reader: Option<Reader>,
    /// What is still to be written in place of hyper's own refusal.
    refusal: Option<Bytes>,
    closing: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub fn new(stream: TcpStream, phase: Arc<Phase>, timeouts: Timeouts, answers: Arc<Answers>) -> Self {
        Self {
            stream,
            phase,
            timeouts,
            head_due: None,
            idle_since: Instant::now(),
            idle_due: None,
            write_due: None,
            answers,
            reader: None,
            refusal: None,
            closing: None,
        }
    }

    /// Nothing has come: fine, unless it has been awaited for too long.
    fn poll_read_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.reader.register(cx.waker());
        if self.phase.is_told() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.phase.is_head() {
            let limit = self.timeouts.head;
            let limit = if self.phase.is_in_reserve() { limit.min(RESERVE_HEAD) } else { limit };
            let due = self.head_due.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(due.as_mut().poll(cx));
            return Poll::Ready(Err(self.timed_out("head_timeout")));
        }
        self.head_due = None;
        if self.phase.is_idle() { self.poll_idle_due(cx) } else { Poll::Pending }
    }

    fn poll_idle_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.idle_since + self.timeouts.idle;
        let due = self.idle_due.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while due.as_mut().poll(cx).is_ready() {
            if due.deadline() >= end {
                return Poll::Ready(Err(self.timed_out("idle_timeout")));
            }
            due.as_mut().reset(end);
        }
        Poll::Pending
    }

    fn timed_out(&self, reason: &'static str) -> io::Error {
        self.answers.metrics().connection_closed(reason);
        io::ErrorKind::TimedOut.into()
    }

    /// Whether `bytes` are hyper's own answer to a head that it cannot read.
    fn is_refused(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_none() && self.phase.is_between_requests() {
            self.refusal = refusal::in_place_of(bytes);
        }
        self.refusal.is_some()
    }

    /// Writes the refusal to its end, then says that `replaced` bytes were.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, replaced: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.refusal.as_mut().filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => rest.advance(length),
            }
        }
        Poll::Ready(Ok(replaced))
    }

    /// What a write of `bytes` came to; an error where the client has taken nothing for too long, or too little while
    /// others need the room.
    fn poll_write_due(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let taken = match &written {
            Poll::Ready(Ok(taken)) => *taken,
            Poll::Ready(Err(_)) => return written,
            Poll::Pending => 0,
        };
        if written.is_pending() && self.reader.is_none() {
            self.reader = Some(self.answers.reader(cx.waker()));
        }
        if let Some(reader) = &self.reader
            && !reader.is_served(taken, bytes - taken, cx.waker())
        {
            return Poll::Ready(Err(self.cut_off()));
        }
        if written.is_ready() {
            self.write_due = None;
            return written;
        }
        let due = self.write_due.get_or_insert_with(|| Box::pin(sleep(self.timeouts.write)));
        ready!(due.as_mut().poll(cx));
        self.answers.timed_out();
        Poll::Ready(Err(self.cut_off()))
    }

    /// The system's buffer goes with the connection, else it would wait for this client on its own.
    fn cut_off(&self) -> io::Error {
        let _ = self.stream.set_zero_linger();
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_pending() {
            return this.poll_read_due(cx);
        }
        if buffer.filled().len() > filled {
            this.phase.bytes_read();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = if self.is_refused(bytes) {
            self.poll_refuse(cx, bytes.len())
        } else {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        };
        self.poll_write_due(cx, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        let written = if self.is_refused(slices.first().map_or(&[], |first| first)) {
            self.poll_refuse(cx, bytes)
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
        };
        self.poll_write_due(cx, bytes, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written its whole buffer, in which the answer ends or not
        self.reader = None;
        let now = Instant::now();
        if self.phase.flushed(now) {
            // the next head has a time of its own
            self.head_due = None;
            self.idle_since = now;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        // others wait for the place of one that was told to close, and it has no answer that is not read
        let told = this.phase.is_told();
        if !told && this.closing.is_none() {
            this.phase.comes_to(Phase::LINGERING, std::time::Instant::now());
        }
        this.phase.reader.register(cx.waker());
        let closing = this.closing.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        // the timer bounds the loop also where bytes keep coming
        while closing.as_mut().poll(cx).is_pending() {
            let mut scratch = [0; 4096];
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Pending if !this.phase.is_told() => return Poll::Pending,
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::{answer::AnswerBody, unread::LARGE},
        telemetry::metrics::Metrics,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };
    use tower_http::body::UnsyncBoxBody;

    /// A client and the service's end of its connection.
    async fn connect(phase: Arc<Phase>, limit: Duration) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let timeouts = Timeouts { head: limit, idle: limit, write: limit };
        let answers = Answers::new(1 << 20, Arc::new(Metrics::for_tests()));
        (client, Connection::new(stream, phase, timeouts, answers))
    }

    #[tokio::test]
    async fn a_head_has_its_whole_time_whatever_the_last_one_took() {
        let phase = Arc::new(Phase::default());
        let limit = Duration::from_secs(2);
        let (mut client, mut connection) = connect(Arc::clone(&phase), limit).await;
        assert!(timeout(limit * 3 / 4, connection.read_u8()).await.is_err());
        phase.request();
        phase.answered();
        connection.flush().await.unwrap();
        client.write_all(b"P").await.unwrap();
        connection.read_u8().await.unwrap();
        assert!(timeout(limit / 2, connection.read_u8()).await.is_err(), "the last head's time was up");
        let stalled = timeout(limit, connection.read_u8()).await.unwrap();
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_idles_for_its_whole_time_after_each_answer() {
        let phase = Arc::new(Phase::default());
        let limit = Duration::from_secs(2);
        let (_client, mut connection) = connect(Arc::clone(&phase), limit).await;
        for _ in 0..3 {
            phase.request();
            phase.answered();
            connection.flush().await.unwrap();
            assert!(timeout(limit * 3 / 4, connection.read_u8()).await.is_err());
        }
        let idle = timeout(limit, connection.read_u8()).await.unwrap();
        assert_eq!(idle.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_is_not_idle_before_the_end_of_its_answer_is_written() {
        let phase = Arc::new(Phase::default());
        let (_client, mut connection) = connect(Arc::clone(&phase), Duration::from_secs(60)).await;
        phase.request();
        let mut body = AnswerBody::new(UnsyncBoxBody::default(), None);
        body.tell(Arc::clone(&phase));
        connection.flush().await.unwrap();
        assert_eq!(phase.idle_since(), None, "only a part of it was written");
        drop(body);
        connection.flush().await.unwrap();
        assert!(phase.idle_since().is_some());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
        let (_client, mut connection) = connect(Arc::default(), Duration::from_millis(100)).await;
        // more than the buffers of both ends hold
        let answer = vec![0; 64 << 20];
        let written = timeout(Duration::from_secs(20), connection.write_all(&answer)).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off_once_another_answer_needs_the_room() {
        let (mut client, mut connection) = connect(Arc::default(), Duration::from_secs(60)).await;
        let answers = Arc::clone(&connection.answers);
        let answer = vec![0; 64 << 20];
        let written = connection.write_all(&answer);
        let (written, room) = tokio::join!(written, answers.reserve(LARGE));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(room.unwrap().is_some());
        drop(connection);
        // what had come before is still there, then the connection is reset
        let end = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
