//! The service's end of the socket.

use super::{
    failed::FailedRecords,
    protocol::{Answer, LONGEST_REQUEST, Request},
    socket,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    fs::{self, Permissions},
    future::Future,
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{sleep, timeout},
};

/// Operators who are answered at once; others wait.
const CONNECTIONS: usize = 4;
/// How long one may take to ask.
const ASKING: Duration = Duration::from_secs(5);
/// How long one may take to read a line.
const READING: Duration = Duration::from_secs(10);
/// Answers that wait to be read.
const AHEAD: usize = 64;
/// After the system gave no connection.
const AFTER_A_FAULT: Duration = Duration::from_millis(200);

/// Answers operators at the socket in this directory, which this process has locked: what an earlier one left there is
/// replaced. Only the same user can connect. To be called in a runtime; the future ends with the process.
///
/// # Errors
/// Where there can be no socket, its path being too long for example. Then it is `InvalidInput`.
pub fn listen(
    directory: &Path,
    failed: Arc<FailedRecords>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let path = socket(directory);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(serve(listener, failed))
}

async fn serve(listener: UnixListener, failed: Arc<FailedRecords>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(ended) = connections.next() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an operator's connection ended early");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => connections.push(answer(stream, Arc::clone(&failed))),
                Err(error) => {
                    tracing::warn!(%error, "an operator cannot be answered");
                    sleep(AFTER_A_FAULT).await;
                }
            },
        }
    }
}

/// One connection: a line asks, lines answer, and its end is the end of them.
async fn answer(mut stream: UnixStream, failed: Arc<FailedRecords>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    timeout(ASKING, read.read_line(&mut line)).await??;
    let (answers, mut answered) = mpsc::channel(AHEAD);
    let work = async {
        match serde_json::from_str::<Request>(&line) {
            Ok(request) => failed.perform(request, answers).await,
            // there is room in the channel
            Err(error) => {
                drop(answers.try_send(Answer::Error(format!("the question makes no sense: {error}"))))
            }
        }
    };
    let say = async move {
        while let Some(answer) = answered.recv().await {
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            timeout(READING, write.write_all(&line)).await??;
        }
        write.shutdown().await
    };
    // the work notices at its next answer that nobody listens any more; what it has begun it ends
    tokio::join!(work, say).1
}

#[cfg(test)]
mod tests {
    use super::{super::failed::Parts, *};
    use crate::{
        lifecycle::supervisor::Supervisor,
        produce::InstanceId,
        spool::{Settings, Store, Writer, lines::Lines},
    };
    use std::{sync::atomic::AtomicU64, time::SystemTime};

    fn failed(directory: &Path, supervisor: &Supervisor) -> Arc<FailedRecords> {
        let store =
            Arc::new(Store::open(directory, &InstanceId::parse("a").unwrap(), SystemTime::now()).unwrap());
        let settings = Settings { max_bytes: 1, receipt_max_bytes: 1, receipt_ttl: Duration::from_secs(1) };
        let sequences = Arc::new(AtomicU64::new(1));
        let writer =
            Writer::start(Arc::clone(&store), sequences, settings, Box::new(|_| {}), &supervisor.alarm());
        Arc::new(FailedRecords::new(Parts {
            store,
            writer: Arc::new(writer.unwrap()),
            lines: Arc::new(Lines::default()),
            replay: mpsc::unbounded_channel().0,
        }))
    }

    async fn asked(path: &Path, question: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // it may be closed before all of it is read
        let _ = stream.write_all(question).await;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let _ = timeout(Duration::from_secs(20), read).await.expect("an end");
        answer
    }

    #[tokio::test]
    async fn a_question_is_answered_and_nonsense_is_told() {
        let (directory, mut supervisor) = (tempfile::tempdir().unwrap(), Supervisor::new());
        // as a crash leaves it
        drop(std::os::unix::net::UnixListener::bind(socket(directory.path())).unwrap());
        let failed = failed(directory.path(), &supervisor);
        supervisor.spawn("control", listen(directory.path(), failed).unwrap());
        let path = socket(directory.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let end = "{\"end\":{\"failed\":0,\"waiting\":0}}\n";
        assert_eq!(asked(&path, b"{\"list\":{\"limit\":null}}\n").await, end);
        let too_long = vec![b'x'; 2 * LONGEST_REQUEST as usize];
        for nonsense in [&b"hello\n"[..], b"\n", b"\xff\xfe\n", &too_long] {
            let answer = asked(&path, nonsense).await;
            assert!(answer.is_empty() || answer.starts_with("{\"error\":"), "{answer}");
        }
        assert_eq!(asked(&path, b"{\"retry\":\"all\"}\n").await, end);
    }

    #[tokio::test]
    async fn those_who_stay_silent_keep_nobody_out_for_ever() {
        let (directory, mut supervisor) = (tempfile::tempdir().unwrap(), Supervisor::new());
        let failed = failed(directory.path(), &supervisor);
        supervisor.spawn("control", listen(directory.path(), failed).unwrap());
        let path = socket(directory.path());
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        assert!(asked(&path, b"{\"list\":{\"limit\":1}}\n").await.starts_with("{\"end\""));
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_an_error() {
        let (directory, supervisor) = (tempfile::tempdir().unwrap(), Supervisor::new());
        let deep = directory.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let failed = failed(&deep, &supervisor);
        let error = listen(&deep, failed).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
