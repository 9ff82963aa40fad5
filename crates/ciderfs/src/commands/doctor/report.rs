//! What was found, and how it is told.

use ciderfs_format::Secret;
use serde_json::{Value, json};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something is not as it should be.
    Warning,
    /// A volume will not work like this.
    Failed,
    /// Not looked at.
    Skipped,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// In words.
    pub text: String,
    /// What to do; nothing where all is well.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, text: text.into(), remedy: String::new() }
    }

    /// Not as it should be.
    pub fn warning(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, text: text.into(), remedy: remedy.into() }
    }

    /// It will not work.
    pub fn failed(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Failed, text: text.into(), remedy: remedy.into() }
    }

    /// Not looked at, for this reason.
    pub fn skipped(check: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Skipped, text: why.into(), remedy: remedy.into() }
    }

    /// Will it not work?
    pub fn is_failed(&self) -> bool {
        self.status == Status::Failed
    }

    /// An error in the words of who had it. Its remedy follows the cause.
    pub fn error(check: &'static str, text: &str, otherwise: &str) -> Self {
        let (cause, remedy) = text.split_once("; ").unwrap_or((text, otherwise));
        Self::failed(check, cause, remedy)
    }
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    secrets: Vec<Secret>,
}

impl Report {
    /// Texts are told without these.
    pub fn hide(&mut self, secrets: impl IntoIterator<Item = Secret>) {
        self.secrets.extend(secrets.into_iter().filter(|secret| !secret.is_empty()));
    }

    /// Adds findings.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// How many checks failed?
    pub fn failures(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_failed()).count()
    }

    /// A line for each finding.
    pub fn lines(&self) -> String {
        let line = |finding: &Finding| {
            let remedy = if finding.remedy.is_empty() { "" } else { " -- " };
            let line = format!(
                "{:<8} {}: {}{remedy}{}",
                finding.status.name(),
                finding.check,
                self.plain(&finding.text),
                self.plain(&finding.remedy)
            );
            line + "\n"
        };
        self.findings.iter().map(line).collect()
    }

    /// The same for machines.
    pub fn json(&self) -> Value {
        let object = |finding: &Finding| {
            json!({
                "check": finding.check,
                "status": finding.status.name(),
                "text": self.plain(&finding.text),
                "remedy": self.plain(&finding.remedy),
            })
        };
        self.findings.iter().map(object).collect()
    }

    /// A text in one line, without secrets.
    fn plain(&self, text: &str) -> String {
        let text = self.secrets.iter().fold(text.to_owned(), |text, secret| secret.hidden_in(&text));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
