//! The service as its users run it: the binary in a process of its own, with nothing but the given variables.

use super::{
    broker::{self, Broker},
    client::Client,
    eventually,
    port::ReservedPort,
    process::Process,
};
use serde_json::Value;
use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// How long the service may take from its start to its log line `listening`.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to find a Kafka that is up.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// The topics of the fixed routes in the shared service.
pub const FIXED_TOPICS: [(&str, &str); 3] =
    [("/logs", "rtmh.logs"), ("/metrics", "rtmh.metrics"), ("/events", "rtmh.events")];

/// The service on the shared broker with the default settings, for all tests that only send requests.
pub async fn shared() -> Option<(&'static Broker, &'static Service)> {
    static SHARED: OnceCell<Service> = OnceCell::const_new();
    let kafka = broker::shared()?;
    let service = SHARED
        .get_or_init(|| async {
            create_fixed_topics(kafka).await;
            Service::on(kafka, &[]).await
        })
        .await;
    Some((kafka, service))
}

/// Makes the topics of the fixed routes on the shared broker, once.
pub async fn create_fixed_topics(kafka: &Broker) {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        for (_, topic) in FIXED_TOPICS {
            kafka.create_topic(topic, 3, &[]).await;
        }
    })
    .await;
}

pub struct Service {
    /// The process that runs or ran last, and what it printed.
    process: Mutex<(Process, Output)>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    address: SocketAddr,
    _port: ReservedPort,
    /// The working directory: it outlives a restart and is removed with this.
    folder: TempDir,
}

/// What the process has printed so far, both streams, line by line.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<String>>>);

impl Service {
    /// Starts the service on a free port with these variables and returns when it listens. `PORT`, `HOST` and
    /// `LOG_FORMAT` are set unless given.
    pub async fn spawn(variables: &[(&str, &str)]) -> Self {
        Self::spawn_with(&[], variables).await
    }

    /// As [`Service::spawn`], and waits for `/ready`.
    pub async fn ready(variables: &[(&str, &str)]) -> Self {
        let service = Self::spawn(variables).await;
        service.wait_ready().await;
        service
    }

    /// As [`Service::ready`], on this broker.
    pub async fn on(kafka: &Broker, variables: &[(&str, &str)]) -> Self {
        let bootstrap = kafka.bootstrap();
        Self::ready(&[&[("KAFKA_BROKERS", bootstrap.as_str())], variables].concat()).await
    }

    /// As [`Service::spawn`], with command-line arguments.
    pub async fn spawn_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let port = ReservedPort::new();
        let number = port.number().to_string();
        let defaults = [("PORT", number.as_str()), ("HOST", "127.0.0.1"), ("LOG_FORMAT", "json")];
        let variables: Vec<_> =
            defaults.iter().chain(variables).map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let arguments: Vec<_> = arguments.iter().copied().map(str::to_owned).collect();
        let folder = folder();
        let (process, output, address) = listening(&arguments, &variables, folder.path()).await;
        Self { process: Mutex::new((process, output)), arguments, variables, address, _port: port, folder }
    }

    /// Starts a new process in place of one that has ended, with the same variables, directory and port, and
    /// returns when it listens.
    pub async fn restart(&self) {
        assert!(self.process.lock().unwrap().0.has_exited(), "the service runs already");
        let (process, output, address) =
            listening(&self.arguments, &self.variables, self.folder.path()).await;
        assert_eq!(address, self.address, "after a restart the address is the same");
        *self.process.lock().unwrap() = (process, output);
    }

    /// SIGKILL, as by a crash. Its directory stays as it was, for [`Service::restart`].
    pub fn kill(&self) {
        self.process.lock().unwrap().0.kill();
    }

    /// The working directory. The service finds it under the same path after a restart.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of its own for each test: connections belong to the test's runtime.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub async fn wait_ready(&self) {
        self.wait_ready_within(READY_LIMIT).await;
    }

    pub async fn wait_ready_within(&self, limit: Duration) {
        let client = self.client();
        let ready = || async { (client.get("/ready").await.status == 200).then_some(()) };
        eventually("/ready is 200", limit, ready).await;
    }

    /// Waits for `/ready` to be 503 and returns its reason.
    pub async fn wait_unready_within(&self, limit: Duration) -> String {
        let client = self.client();
        let unready = || async {
            let answer = client.get("/ready").await;
            (answer.status == 503).then(|| answer.json()["reason"].as_str().unwrap_or_default().to_owned())
        };
        eventually("/ready is 503", limit, unready).await
    }

    /// Sends a signal by its name, `TERM` for example.
    pub fn signal(&self, name: &str) {
        self.process.lock().unwrap().0.signal(name);
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.process.lock().unwrap().0.child().id()
    }

    /// The exit status and the time it took, at most `limit`.
    pub async fn wait_exit(&self, limit: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = eventually("the service has ended", limit, || async {
            self.process.lock().unwrap().0.child().try_wait().unwrap()
        })
        .await;
        // without an allowance: what runs on a cluster is killed after its time, on a busy machine too
        let taken = start.elapsed();
        assert!(taken < limit, "it took {taken:?} to end");
        (status, taken)
    }

    /// Everything it has logged since its last start.
    pub fn logs(&self) -> String {
        self.process.lock().unwrap().1.text()
    }
}

/// A run of the program from its start to its end.
pub struct Run {
    pub status: ExitStatus,
    /// Standard output and standard error.
    pub output: String,
}

/// Runs the program where it is expected to end by itself.
pub async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let folder = folder();
    let (mut process, output) = start(arguments, variables.iter().copied(), folder.path());
    let status = process.wait(Duration::from_secs(30)).await;
    let status = status.unwrap_or_else(|| panic!("it does not end:\n{}", output.text()));
    // the readers may still hold the last lines; each has a share of them until its stream ends
    eventually("both streams are read", READY_LIMIT, || async {
        (Arc::strong_count(&output.0) == 1).then_some(())
    })
    .await;
    Run { status, output: output.text() }
}

/// A folder of the service's own, so that no `.env` is found.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn start<'a>(
    arguments: &[impl AsRef<OsStr>],
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    folder: &Path,
) -> (Process, Output) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-inlet"));
    command.args(arguments).current_dir(folder).env_clear().envs(variables);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn(&mut command, folder);
    let output = Output::default();
    output.collect(process.child().stdout.take().unwrap());
    output.collect(process.child().stderr.take().unwrap());
    (process, output)
}

/// Starts the service and returns when it listens.
async fn listening(
    arguments: &[String],
    variables: &[(String, String)],
    folder: &Path,
) -> (Process, Output, SocketAddr) {
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let (mut process, output) = start(arguments, variables, folder);
    let start = Instant::now();
    loop {
        if let Some(address) = output.address() {
            return (process, output, address);
        }
        assert!(!process.has_exited(), "the service ended:\n{}", output.text());
        assert!(start.elapsed() < START_LIMIT, "the service does not listen:\n{}", output.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Output {
    fn collect(&self, stream: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// The address of the JSON log line `listening`.
    fn address(&self) -> Option<SocketAddr> {
        let lines = self.0.lock().unwrap();
        lines.iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let field = |name: &str| line["fields"].get(name).or(line.get(name))?.as_str().map(str::to_owned);
            (field("message")? == "listening").then(|| field("address"))??.parse().ok()
        })
    }
}
