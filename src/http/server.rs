//! The listener: accepts connections, bounds their number and their headers' time, and drains them at the end.

use super::linger::Lingering;
use crate::{config, telemetry::metrics::Metrics};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// The pause after an accept that failed for want of descriptors or memory; a fresh try would fail as well.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Bytes of a request's head, larger ones are 431. Also what one read of a body takes at most.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Everything that serving takes.
pub struct Server {
    pub listener: TcpListener,
    pub router: Router,
    pub settings: config::Http,
    /// Connections open at once; further ones wait in the listener's backlog.
    pub max_connections: usize,
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves until `shutdown` resolves, then stops accepting and lets the requests in flight finish for
    /// `settings.shutdown_timeout`. What is left is cut off; the number of such connections is returned.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> usize {
        let mut shutdown = pin!(shutdown);
        let builder = builder(&self.settings);
        let slots = Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS)));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            let (stream, slot) = match accepted {
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
            let service = TowerToHyperService::new(self.router.clone());
            let connection = builder.serve_connection(TokioIo::new(Lingering::new(stream)), service);
            let connection = graceful.watch(connection);
            let counted = self.metrics.connection();
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop((counted, slot));
            });
        }
        drop(self.listener);
        drain(graceful, connections, self.settings.shutdown_timeout).await
    }
}

fn builder(settings: &config::Http) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper (proto/h1/conn.rs) starts this clock with the connection and again after each answer, whether or not
    // a byte of the next head has come: it also closes keep-alive connections that have been idle this long
    builder.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
    builder.max_buf_size(MAX_HEAD_BYTES);
    builder
}

/// Waits for a free slot first, so that no connection is accepted that would not be served.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
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
