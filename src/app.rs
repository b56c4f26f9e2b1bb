//! The composition root: builds every part from the settings, runs the service until a signal, ends it.

use crate::{
    config::{Config, FLUSH_TIMEOUT},
    http::{self, AppState, Server},
    kafka::{EmbeddedCluster, Flusher, KafkaProducer, client},
    lifecycle::{
        readiness::Readiness,
        shutdown::Signals,
        supervisor::{Failure, Supervisor},
    },
    produce::{Budget, Pipeline, Settings},
    spool::{self, DiskSpool, Store},
    telemetry::metrics::Metrics,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};

/// Partitions of the embedded cluster's topics.
const EMBEDDED_PARTITIONS: i32 = 3;
/// Descriptors that are not clients' connections: brokers, files, the listener. Half of them where there are few.
const OTHER_DESCRIPTORS: u64 = 256;

/// Bytes of an answer that the system keeps for a client that does not read; Linux takes twice as many, and without this
/// 4 MB. One answer to a batch of 1,000 fits.
const SEND_BUFFER: u32 = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why the service could not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; {}", listen_advice(.source))]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Kafka(#[from] crate::kafka::StartError),
    #[error("{0}")]
    Embedded(#[from] crate::kafka::EmbeddedClusterError),
    #[error("{0}")]
    Spool(#[from] spool::StartError),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the service cannot go on: {0}")]
    Failed(#[from] Failure),
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Error {
    /// True where starting again cannot help until the settings are corrected.
    pub fn is_of_settings(&self) -> bool {
        match self {
            Self::Kafka(error) => matches!(error, crate::kafka::StartError::Settings(_)),
            Self::Spool(spool::StartError::Open(error)) => error.is_of_settings(),
            _ => false,
        }
    }
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process uses the port: end it or set PORT",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: correct HOST",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: set PORT",
        _ => "PORT and HOST say where to listen",
    }
}

/// Runs the service until SIGTERM or SIGINT has ended it in order.
pub fn run(config: Config) -> Result<(), Error> {
    let worker_threads = config.http.worker_threads.unwrap_or_else(default_worker_threads);
    let flusher = Arc::new(Flusher::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads)
        .on_thread_park({
            let flusher = Arc::clone(&flusher);
            move || flusher.idle()
        })
        .thread_name("inlet-worker")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config, flusher));
    // what still blocks by now, a look-up for example, must not hold the process
    runtime.shutdown_background();
    ended
}

/// One core is left to librdkafka, whose threads do about a third of the work; a worker more than there are cores for
/// costs more than it serves (`docs/PERFORMANCE.md`).
fn default_worker_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

async fn serve(mut config: Config, flusher: Arc<Flusher>) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let mut supervisor = Supervisor::new();
    config.limits.max_connections = connection_limit(config.limits.max_connections);
    let store = match &config.spool {
        Some(spool) => {
            let store = Store::open(&spool.directory, &config.instance_id, SystemTime::now());
            Some(store.map_err(spool::StartError::from)?)
        }
        None => None,
    };
    let embedded = start_embedded_cluster(&mut config)?;

    let listener = listen(SocketAddr::new(config.http.host, config.http.port))?;
    let address = listener.local_addr()?;

    let budget = Budget::new(config.limits.max_in_flight_bytes);
    let readiness = Readiness::new();
    let metrics = Arc::new(Metrics::new(
        config.limits.metrics_max_topics,
        config.kafka.delivery_timeout,
        config.limits.max_in_flight_bytes,
        &client::librdkafka_version(),
    )?);
    let producer =
        KafkaProducer::start(&config, readiness.clone(), metrics.clone(), flusher, &mut supervisor)?;
    let settings = Settings {
        delivery_timeout: config.kafka.delivery_timeout,
        max_record_bytes: config.limits.max_record_bytes,
    };
    let mut pipeline = Pipeline::new(producer.clone(), budget, metrics.clone(), settings);
    let mut disk = None;
    if let (Some(store), Some(settings)) = (store, config.spool.clone()) {
        // what is attempted and what is sent from the spool do not take each other's room
        let half = config.limits.max_in_flight_bytes / 2;
        let parts = spool::Parts {
            producer: producer.clone(),
            max_in_flight_bytes: half,
            delivery_timeout: config.kafka.delivery_timeout,
            max_record_bytes: config.limits.max_record_bytes,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            spool_metrics: metrics.spool(settings.max_bytes)?,
            settings,
        };
        let spool = DiskSpool::start(store, parts, &mut supervisor)?;
        pipeline = pipeline.with_spool(spool.clone(), Budget::new(half));
        disk = Some(spool);
    }
    let state = AppState::new(http::Parts {
        pipeline,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        http: config.http.clone(),
        limits: config.limits.clone(),
        records: config.records.clone(),
        topics: config.topics.clone(),
        instance: config.instance_id.clone(),
        client_id: config.kafka.client_id.clone(),
        brokers: config.kafka.brokers.clone(),
        embedded: embedded.is_some(),
    });
    let server = Server {
        listener,
        service: http::Service::new(state),
        settings: config.http.clone(),
        max_connections: config.limits.max_connections,
        keep_alive: http::KEEP_ALIVE,
        metrics,
    };
    let (stop, stopped) = oneshot::channel();
    let mut server = pin!(server.run(async {
        // an error is a sender that is gone, which means the same
        let _ = stopped.await;
    }));

    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    if let Some(cluster) = &embedded {
        say_embedded(address, cluster.bootstrap_servers());
    }
    let ending = tokio::select! {
        ending = signals.next() => ending,
        failure = supervisor.failed() => return Err(failure.into()),
        _ = &mut server => return Err(Error::System(io::Error::other("the listener ended"))),
    };
    tracing::info!(signal = ending.name(), "shutting down");
    readiness.start_draining();
    let delay = if ending.is_of_a_person() { Duration::ZERO } else { config.http.shutdown_delay };
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        ending = signals.next() => {
            tracing::info!(signal = ending.name(), "not waiting for SHUTDOWN_DELAY_MS any longer");
        }
        _ = &mut server => {}
    }
    // the receiver lives in the server
    let _ = stop.send(());
    server.await;
    if let Some(spool) = &disk {
        spool.stop();
    }
    flush(Arc::clone(&producer)).await;
    if let Some(spool) = disk {
        close(&spool).await;
    }
    // the process ends now: to close the connections and join the threads would only take time
    std::mem::forget(producer);
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // connections inherit it
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| Error::Listen { address, source })
}

/// Raises the soft descriptor limit to the hard one, and lowers the connection limit to what fits.
fn connection_limit(wanted: usize) -> usize {
    let descriptors = match raise_descriptor_limit() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tracing::warn!(%error, "the descriptor limit cannot be raised");
            return wanted;
        }
    };
    let fits = connections_that_fit(descriptors);
    if fits < wanted {
        tracing::warn!(
            MAX_CONNECTIONS = wanted,
            lowered_to = fits,
            descriptors,
            "the descriptor limit does not allow as many connections; raise it (ulimit -n) or lower MAX_CONNECTIONS"
        );
    }
    wanted.min(fits)
}

/// The soft limit that is in force then; `u64::MAX` where there is none.
fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    // macOS has no hard limit, and takes this as a soft one (its OPEN_MAX)
    let wanted = limit.maximum.unwrap_or(10_240);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    Ok(wanted)
}

/// Connections, apart from those in reserve for probes.
fn connections_that_fit(descriptors: u64) -> usize {
    let others = OTHER_DESCRIPTORS.min(descriptors / 2);
    let fits = usize::try_from(descriptors - others).unwrap_or(usize::MAX);
    fits.saturating_sub(http::RESERVED_CONNECTIONS).max(1)
}

/// Starts the mock cluster where it is asked for, and points the settings at it.
fn start_embedded_cluster(config: &mut Config) -> Result<Option<EmbeddedCluster>, Error> {
    if !config.kafka.embedded {
        return Ok(None);
    }
    let cluster = EmbeddedCluster::start(&config.topics.distinct(), EMBEDDED_PARTITIONS)?;
    config.kafka.brokers = vec![cluster.bootstrap_servers().to_owned()];
    config.kafka.allow_auto_create_topics = true;
    config.kafka.create_topics = false;
    Ok(Some(cluster))
}

fn say_embedded(address: SocketAddr, bootstrap_servers: &str) {
    tracing::warn!(
        bootstrap_servers,
        "EMBEDDED KAFKA: of the records the newest 5 MiB of each partition are kept, in memory only, and are gone when this process ends; for development"
    );
    let url = format!("http://localhost:{}", address.port());
    // plain lines, to be copied: not among the log's lines of JSON
    let mut output: Box<dyn Write> =
        if io::stdout().is_terminal() { Box::new(io::stdout()) } else { Box::new(io::stderr()) };
    // a closed one is nobody's loss
    let _ = writeln!(
        output,
        "
Try it:
  curl {url}/logs -d '{{\"project\":\"demo\",\"value\":{{\"level\":\"info\",\"text\":\"hello\"}}}}'
  curl {url}/produce -d '{{\"topic\":\"orders\",\"key\":\"42\",\"message\":{{\"total\":9.50}}}}'
  curl {url}/produce/batch -d '[{{\"topic\":\"orders\",\"message\":{{\"id\":1}}}},{{\"topic\":\"orders\",\"message\":{{\"id\":2}}}}]'
Read it back:
  kcat -C -e -b {bootstrap_servers} -t rtmh.logs
"
    );
}

/// What Kafka has not confirmed by now, the next start sends.
async fn close(spool: &DiskSpool) {
    match spool.close().await {
        0 => tracing::info!("the spool is empty"),
        records => tracing::warn!(records, "records remain in the spool; the next start sends them"),
    }
}

/// Every answered record has its report by now, or is stored; this is for those whose client did not wait.
async fn flush(producer: Arc<KafkaProducer>) {
    let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH_TIMEOUT)).await;
    match flushed {
        Ok(true) => tracing::info!("every record has its delivery report; bye"),
        Ok(false) => tracing::warn!("some records that nobody waits for have no delivery report; bye"),
        Err(error) => tracing::error!(%error, "the producer could not be flushed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_few_descriptors_half_of_them_are_for_connections() {
        assert_eq!(connections_that_fit(256), 128 - http::RESERVED_CONNECTIONS);
        assert_eq!(connections_that_fit(1024), 768 - http::RESERVED_CONNECTIONS);
        assert_eq!(connections_that_fit(8), 1);
    }
}
