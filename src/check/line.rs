//! One line of the report.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// Makes the whole check fail.
    Fail,
    /// Works, but not as well as it could.
    Warn,
    /// The broker keeps it to itself.
    NotTold,
    /// Not tried, because an earlier step failed.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) verdict: Verdict,
    /// What was tried, on what.
    pub(super) subject: String,
    /// What came of it and, where it did not work, what to do.
    pub(super) finding: String,
}

impl Line {
    pub(super) fn new(verdict: Verdict, subject: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { verdict, subject: subject.into(), finding: finding.into() }
    }

    /// The same where a failure is no obstacle.
    pub(super) fn into_warning(self) -> Self {
        let verdict = if self.verdict == Verdict::Fail { Verdict::Warn } else { self.verdict };
        Self { verdict, ..self }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Fail => "FAIL",
            Verdict::Warn => "warn",
            Verdict::NotTold => "not told",
            Verdict::Skipped => "skipped",
        };
        write!(f, "{verdict:<8}  {}: {}", self.subject, self.finding)
    }
}
