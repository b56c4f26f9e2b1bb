//! Child processes that end with the test, also where the test process is killed.

use std::{
    io,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between its fork and its exec a child has all open sockets, so one that is closed meanwhile goes on listening.
static FORK: Mutex<()> = Mutex::new(());

/// Does this while no child is between fork and exec: a socket that it closes is closed.
pub fn without_forks<T>(act: impl FnOnce() -> T) -> T {
    let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Starts a child that may run for longer; returns after its exec.
fn spawn(command: &mut Command) -> io::Result<Child> {
    without_forks(|| command.spawn())
}

/// Runs a program that ends by itself.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command)?.wait_with_output()
}

/// A child process with its own watchdog: a shell that waits for the end of its standard input, which is a
/// pipe that only this process holds, and then kills the child and removes its folder.
pub struct Process {
    child: Child,
    watchdog: Child,
}

const WATCHDOG: &str = r#"trap '' INT TERM; read -r _; kill -KILL "$1" 2>/dev/null; rm -rf -- "$2""#;

impl Process {
    /// `folder` belongs to the child and is removed with it.
    pub fn spawn(command: &mut Command, folder: &Path) -> Self {
        let child = spawn(command.stdin(Stdio::null())).unwrap();
        let mut watchdog = Command::new("sh");
        watchdog
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let watchdog = spawn(&mut watchdog).unwrap();
        Self { child, watchdog }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal by its name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("sh");
        kill.args(["-c", r#"kill -"$1" "$2""#, "kill", name, &self.child.id().to_string()]);
        let sent = output(&mut kill).unwrap().status;
        assert!(sent.success(), "SIG{name} was not sent");
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// None where the process still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if start.elapsed() > limit {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL; its folder stays.
    pub fn kill(&mut self) {
        // the watchdog goes first: once the child is reaped its id may be another's
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
