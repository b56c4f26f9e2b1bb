//! HAProxy with the configuration that users get as an example, `deploy/haproxy.cfg`.

use super::{
    client::Client,
    eventually, installed,
    port::ReservedPort,
    process::{self, Process},
};
use std::{
    collections::HashMap,
    fs::{self, File},
    net::SocketAddr,
    process::Command,
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../deploy/haproxy.cfg");

/// The addresses in the example.
const FRONTEND: &str = "bind :8080";
const STATS: &str = "bind 127.0.0.1:8404";
const SERVERS: [&str; 3] = ["192.0.2.11:4000", "192.0.2.12:4000", "192.0.2.13:4000"];

/// Also where the folder of Debian's package is not on the path of a user.
const PROGRAMS: [&str; 2] = ["haproxy", "/usr/sbin/haproxy"];

/// How long HAProxy may take to start or to see a change.
const LIMIT: Duration = Duration::from_secs(20);

pub struct HaProxy {
    port: ReservedPort,
    stats_port: ReservedPort,
    folder: TempDir,
    process: Mutex<Process>,
}

/// One row of HAProxy's statistics: its columns by name.
type Row = HashMap<String, String>;

/// False where HAProxy is missing, see [`installed`].
pub fn startable() -> bool {
    installed(
        program().is_none().then(|| "haproxy is not installed; the test of rolling restarts needs it".into()),
    )
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| {
        process::output(Command::new(program).arg("-v")).is_ok_and(|output| output.status.success())
    })
}

impl HaProxy {
    /// Starts HAProxy before these servers and returns when all are up.
    pub async fn before(servers: [SocketAddr; 3]) -> Self {
        let (port, stats_port) = (ReservedPort::new(), ReservedPort::new());
        let mut text = replaced(EXAMPLE, FRONTEND, &format!("bind {}", port.address()));
        text = replaced(&text, STATS, &format!("bind {}", stats_port.address()));
        for (example, server) in SERVERS.into_iter().zip(servers) {
            text = replaced(&text, example, &server.to_string());
        }
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let configuration = folder.path().join("haproxy.cfg");
        fs::write(&configuration, text).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        // in the foreground
        let mut command = Command::new(program().unwrap());
        command.arg("-db").arg("-f").arg(configuration);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = Process::spawn(&mut command, folder.path());
        let haproxy = Self { port, stats_port, folder, process: Mutex::new(process) };
        for server in 1..=servers.len() {
            haproxy.wait_up(server).await;
        }
        haproxy
    }

    /// Where its clients go.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits until a check has found the server ready, counted from one.
    pub async fn wait_up(&self, server: usize) {
        let name = format!("inlet-{server}");
        eventually(&format!("HAProxy sees {name} up"), LIMIT, || async {
            assert!(!self.process.lock().unwrap().has_exited(), "HAProxy ended:\n{}", self.log());
            let row = self.rows().await.into_iter().find(|row| row["svname"] == name)?;
            // at its start HAProxy calls servers up that it has not asked yet
            (row["status"] == "UP" && row["check_status"] == "L7OK").then_some(())
        })
        .await;
    }

    /// How often it made a request's connection anew, at the same server or another one.
    pub async fn retries(&self) -> u64 {
        let rows = self.rows().await;
        let backend = rows.iter().find(|row| row["svname"] == "BACKEND").unwrap();
        ["wretr", "wredis"].into_iter().map(|column| backend[column].parse::<u64>().unwrap()).sum()
    }

    /// What it has logged: refusals, errors, and servers that came and went.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The backend's and its servers' statistics; none while it does not answer.
    async fn rows(&self) -> Vec<Row> {
        let client = Client::new(self.stats_port.address());
        let Ok(answer) = client.try_send("GET", "/stats;csv", &[], "").await else { return Vec::new() };
        let mut lines = answer.body.lines().map(|line| line.trim_start_matches("# ").split(','));
        let names: Vec<_> = lines.next().unwrap().collect();
        let row = |line: std::str::Split<'_, char>| -> Row {
            names.iter().map(|name| (*name).to_owned()).zip(line.map(str::to_owned)).collect()
        };
        lines.map(row).filter(|row| row["pxname"] == "kafka-inlet").collect()
    }
}

/// The text with its only `old` replaced.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "'{old}' in deploy/haproxy.cfg");
    text.replace(old, new)
}
