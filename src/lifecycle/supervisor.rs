//! The owner of everything that lives as long as the process: tasks here, threads by an [`Alarm`]. Work that
//! ends before it is told to means that the process must end too.

use std::future::Future;
use tokio::{sync::mpsc, task::JoinSet};

/// Owns the long-lived tasks and hears of the long-lived threads. Dropping it aborts the tasks.
pub struct Supervisor {
    tasks: JoinSet<()>,
    failures: mpsc::UnboundedReceiver<Failure>,
    alarm: Alarm,
}

/// Long-lived work that ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{work} ended: {reason}")]
pub struct Failure {
    pub work: &'static str,
    pub reason: String,
}

/// Reports failures to the supervisor from anywhere.
#[derive(Debug, Clone)]
pub struct Alarm(mpsc::UnboundedSender<Failure>);

/// Held by a piece of work for as long as it runs. Dropped without [`Watch::finished`], by a panic for example,
/// it raises the alarm.
#[derive(Debug)]
pub struct Watch {
    work: &'static str,
    alarm: Option<Alarm>,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    pub fn new() -> Self {
        let (sender, failures) = mpsc::unbounded_channel();
        Self { tasks: JoinSet::new(), failures, alarm: Alarm(sender) }
    }

    /// For work that is not a task: threads, callbacks.
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Runs a task that may only end with the process.
    pub fn spawn(&mut self, work: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watch = self.alarm.watch(work);
        self.tasks.spawn(async move {
            task.await;
            drop(watch);
        });
    }

    /// Runs a task that ends when it is told to; a panic in it raises the alarm.
    pub fn spawn_ending(&mut self, work: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watch = self.alarm.watch(work);
        self.tasks.spawn(async move {
            task.await;
            watch.finished();
        });
    }

    /// Resolves when some work has ended early.
    pub async fn failed(&mut self) -> Failure {
        match self.failures.recv().await {
            Some(failure) => failure,
            // unreachable while `self.alarm` lives, and it lives as long as self
            None => std::future::pending().await,
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Alarm {
    /// A watch for the work to hold as long as it runs.
    pub fn watch(&self, work: &'static str) -> Watch {
        Watch { work, alarm: Some(self.clone()) }
    }

    /// Says that the service cannot go on, and why.
    pub fn raise(&self, work: &'static str, reason: impl Into<String>) {
        // nobody listens only while the process ends anyway
        let _ = self.0.send(Failure { work, reason: reason.into() });
    }
}

impl Watch {
    /// The work ended because it was told to.
    pub fn finished(mut self) {
        self.alarm = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            alarm.raise(self.work, "it must run as long as the service");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_raises_the_alarm() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("short", async {});
        assert_eq!(supervisor.failed().await.work, "short");
    }

    #[tokio::test]
    async fn a_thread_that_panics_raises_the_alarm() {
        let mut supervisor = Supervisor::new();
        let watch = supervisor.alarm().watch("thread");
        let thread = std::thread::spawn(move || {
            let _watch = watch;
            panic!("as a test");
        });
        assert_eq!(supervisor.failed().await.work, "thread");
        assert!(thread.join().is_err());
    }

    #[tokio::test]
    async fn work_that_was_told_to_end_raises_nothing() {
        let mut supervisor = Supervisor::new();
        supervisor.alarm().watch("told").finished();
        supervisor.alarm().raise("other", "why");
        assert_eq!(supervisor.failed().await.work, "other");
    }
}
