//! The listener: accepts connections, bounds their number and their headers' time, and drains them at the end.

use super::{
    Service,
    connection::{Connection, Phase, Timeouts},
    route::Route,
    service::Answer,
    slots::{Slot, Slots},
};
use crate::{config, telemetry::metrics::Metrics};
use http::{HeaderValue, header};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{self, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// The pause after an accept that failed for want of descriptors or memory; a fresh try would fail as well.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often one of the reserve is made to give way while nobody more can be accepted.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a request's head, larger ones are 431. Also what one read of a body takes at most.
pub const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long a connection may idle between requests. Longer than the usual 60 s of load balancers: whoever closes
/// first must not be the server, whose close can cross the client's next request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may take no byte of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that serving takes.
pub struct Server {
    pub listener: TcpListener,
    pub service: Service,
    pub settings: config::Http,
    /// Connections open at once, apart from a few for probes; further ones wait in the listener's backlog.
    pub max_connections: usize,
    /// How long a connection may idle between requests; see [`KEEP_ALIVE`].
    pub keep_alive: Duration,
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves until `shutdown` resolves, then stops accepting and lets the requests in flight finish for
    /// `settings.shutdown_timeout`. What is left is cut off; the number of such connections is returned.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> usize {
        let mut shutdown = pin!(shutdown);
        let builder = builder();
        let timeouts =
            Timeouts { head: self.settings.header_timeout, idle: self.keep_alive, write: WRITE_TIMEOUT };
        let underway = Arc::clone(self.service.underway());
        let slots = Slots::new(self.max_connections, underway, Arc::clone(&self.metrics));
        let accepted_at_most = Arc::new(Semaphore::new(slots.all()));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = accept(&self.listener, &accepted_at_most, &slots) => accepted,
            };
            let (stream, accepted) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; check the limit of open files");
                    sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            // answers are written whole, so waiting for more bytes would only delay them
            let _ = stream.set_nodelay(true);
            let phase = Arc::new(Phase::default());
            let slot = Arc::new(slots.enter(&phase));
            let answers = Arc::clone(self.service.answers());
            let connection = Connection::new(stream, Arc::clone(&phase), timeouts, answers);
            let service = in_phases(self.service.clone(), phase, slot);
            let connection = builder.serve_connection(TokioIo::new(connection), service);
            let connection = graceful.watch(connection);
            let counted = self.metrics.connection();
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop((counted, accepted));
            });
        }
        drop(self.listener);
        drain(graceful, connections, self.settings.shutdown_timeout).await
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `Connection` bounds both the head's time and the idling, without a timer that is set anew for each request
    builder.header_read_timeout(None);
    builder.max_buf_size(MAX_HEAD_BYTES);
    // answers are small: one buffer to send is cheaper than a list of two
    builder.writev(false);
    // a client that has sent its request may close its side and still wait for the answer
    builder.half_close(true);
    builder
}

/// The service, telling its connection what it is at. One in the reserve serves probes, or finds a place first.
fn in_phases(
    service: Service,
    phase: Arc<Phase>,
    slot: Arc<Slot>,
) -> impl service::Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> {
    service_fn(move |request| {
        phase.request();
        let (service, phase, slot) = (service.clone(), Arc::clone(&phase), Arc::clone(&slot));
        async move {
            let in_reserve = slot.is_in_reserve();
            let probe = in_reserve && Route::of(request.uri().path()).is_probe();
            let refused = in_reserve && !probe && !slot.leave_reserve().await;
            let mut answer =
                if refused { service.refuse(request).await } else { service.answer(request).await };
            if probe || refused {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer.body_mut().tell(phase);
            Ok(answer)
        }
    })
}

/// Waits for a free slot first, so that no connection is accepted that would not be served.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
    slots: &Slots,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = loop {
        if let Ok(slot) = Arc::clone(free).try_acquire_owned() {
            break slot;
        }
        slots.one_of_the_reserve_gives_way(Instant::now());
        if let Ok(slot) = timeout(ROOM_PAUSE, Arc::clone(free).acquire_owned()).await {
            break slot.map_err(io::Error::other)?;
        }
    };
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// The client gave up before it was accepted; the next one is not affected.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn drain(graceful: GracefulShutdown, mut connections: JoinSet<()>, limit: Duration) -> usize {
    if timeout(limit, graceful.shutdown()).await.is_ok() {
        return 0;
    }
    // those that have ended since the loop did were not reaped yet
    while connections.try_join_next().is_some() {}
    let cut_off = connections.len();
    connections.shutdown().await;
    tracing::warn!(connections = cut_off, "connections were cut off: their requests did not finish in time");
    cut_off
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::App;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    const SHORT: Duration = Duration::from_millis(200);
    const BODY: &str = r#"{"project":"p","value":1}"#;

    struct Running {
        address: std::net::SocketAddr,
        stop: oneshot::Sender<()>,
        ended: JoinSet<usize>,
    }

    async fn start(change: impl FnOnce(&mut Server)) -> Running {
        start_app(App::with(|parts| parts.http.body_timeout = SHORT), change).await
    }

    async fn start_app(app: App, change: impl FnOnce(&mut Server)) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings =
            config::Http { header_timeout: SHORT, shutdown_timeout: SHORT, ..config::Http::default() };
        let mut server = Server {
            listener,
            service: app.service.clone(),
            settings,
            max_connections: 10,
            keep_alive: Duration::from_secs(60),
            metrics: app.state.metrics.clone(),
        };
        change(&mut server);
        let (stop, stopped) = oneshot::channel();
        let mut ended = JoinSet::new();
        ended.spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Running { address, stop, ended }
    }

    impl Running {
        async fn connect(&self, sent: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream
        }

        /// The number of connections that were cut off.
        async fn stop(mut self) -> usize {
            self.stop.send(()).unwrap();
            self.ended.join_next().await.unwrap().unwrap()
        }
    }

    /// Everything until the server closes, which it must do within 20 s.
    async fn read_to_end(mut stream: TcpStream) -> String {
        let mut text = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    fn post(extra: &str, body: &str) -> String {
        format!("POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{extra}\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_request_is_answered_over_tcp() {
        let running = start(|_| {}).await;
        let stream = running.connect(&post("Connection: close\r\n", BODY)).await;
        assert!(read_to_end(stream).await.starts_with("HTTP/1.1 202 Accepted\r\n"));
    }

    #[tokio::test]
    async fn a_stalled_head_is_closed_in_time() {
        let running = start(|_| {}).await;
        let stream = running.connect("POST /logs HTTP/1.1\r\nHost:").await;
        assert_eq!(read_to_end(stream).await, "");
    }

    #[tokio::test]
    async fn a_head_that_hyper_refuses_is_answered_with_a_problem() {
        let running = start(|_| {}).await;
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(2 * MAX_HEAD_BYTES));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(100));
        for (head, status, error) in [
            ("nonsense\r\n\r\n", "400", "bad_request"),
            ("GET / HTTP/9.9\r\n\r\n", "400", "bad_request"),
            ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400", "bad_request"),
            (&long, "431", "head_too_large"),
            (&many, "431", "head_too_large"),
        ] {
            let answer = read_to_end(running.connect(head).await).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
            assert!(answer.contains(&format!(r#""error":"{error}""#)) && answer.ends_with('}'), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_refused_head_behind_a_request_leaves_its_answer_whole() {
        let running = start(|_| {}).await;
        let pipelined = running.connect(&format!("{}nonsense\r\n\r\n", post("", BODY))).await;
        let mut later = running.connect(&post("", BODY)).await;
        sleep(SHORT / 2).await;
        later.write_all(b"nonsense\r\n\r\n").await.unwrap();
        for stream in [pipelined, later] {
            let answers = read_to_end(stream).await;
            let (first, second) = answers.split_at(answers.rfind("HTTP/1.1 ").unwrap());
            assert!(first.starts_with("HTTP/1.1 202") && first.ends_with('}'), "{answers}");
            assert!(second.starts_with("HTTP/1.1 400") && second.contains("bad_request"), "{answers}");
        }
    }

    #[tokio::test]
    async fn a_400_of_the_service_is_its_own() {
        let running = start(|_| {}).await;
        let answer = read_to_end(running.connect(&post("Connection: close\r\n", "{}")).await).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("missing_value"), "{answer}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_in_time() {
        let running = start(|server| server.keep_alive = SHORT).await;
        let stream = running.connect(&post("", BODY)).await;
        assert!(read_to_end(stream).await.starts_with("HTTP/1.1 202"));
    }

    #[tokio::test]
    async fn a_connection_may_idle_for_longer_than_a_head_may_take() {
        let running = start(|_| {}).await;
        let mut stream = running.connect(&post("", BODY)).await;
        sleep(2 * SHORT).await;
        stream.write_all(post("Connection: close\r\n", BODY).as_bytes()).await.unwrap();
        assert_eq!(read_to_end(stream).await.matches("HTTP/1.1 202").count(), 2);
    }

    #[tokio::test]
    async fn a_later_head_that_stalls_is_closed_in_time_too() {
        let running = start(|_| {}).await;
        let mut stream = running.connect(&post("", BODY)).await;
        sleep(SHORT).await;
        stream.write_all(b"POST /lo").await.unwrap();
        assert_eq!(read_to_end(stream).await.matches("HTTP/1.1").count(), 1);
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_comes_is_closed_in_time() {
        let running = start(|_| {}).await;
        assert_eq!(read_to_end(running.connect("").await).await, "");
    }

    #[tokio::test]
    async fn a_stalled_body_is_408_and_the_end_of_the_connection() {
        let running = start(|_| {}).await;
        let stream = running.connect("POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{").await;
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("request_timeout"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_sends_a_huge_body_can_read_why_it_is_refused() {
        let running = start(|_| {}).await;
        let stream = running.connect(&post("", &" ".repeat(4 << 20))).await;
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("1024"), "{answer}");
    }

    #[tokio::test]
    async fn after_a_small_refused_body_the_connection_lives_on() {
        let running = start(|_| {}).await;
        let unknown = post("", BODY).replace("/logs", "/none");
        let stream = running.connect(&format!("{unknown}{}", post("Connection: close\r\n", BODY))).await;
        let answers = read_to_end(stream).await;
        assert!(answers.starts_with("HTTP/1.1 404") && answers.contains("HTTP/1.1 202"), "{answers}");
    }

    #[tokio::test]
    async fn who_waits_for_100_continue_reads_the_refusal_instead() {
        let running = start(|_| {}).await;
        let head = "POST /logs HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999\r\n\r\n";
        assert!(read_to_end(running.connect(head).await).await.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_their_turn() {
        let running = start(|server| server.max_connections = 1).await;
        let first = running.connect("").await;
        let second = running.connect(&post("Connection: close\r\n", BODY)).await;
        drop(first);
        assert!(read_to_end(second).await.starts_with("HTTP/1.1 202"));
    }

    #[tokio::test]
    async fn idle_connections_end_at_once_when_the_service_stops() {
        let running = start(|server| server.settings.header_timeout = Duration::from_secs(60)).await;
        let mut idle = running.connect(&post("", BODY)).await;
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        let reader = async { read_to_end(idle).await };
        assert_eq!(tokio::join!(running.stop(), reader).0, 0);
    }

    #[tokio::test]
    async fn a_half_sent_request_is_cut_off_at_the_drains_end() {
        let running = start_app(App::new(), |_| {}).await;
        let stream = running.connect("POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{").await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(running.stop().await, 1);
        drop(stream);
    }
}
