//! Runs of the seeds, or of a test, with something removed, and what came of them.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::tree::{Built, REACHED, REMOVED, TEST};

/// How the seeds and the tests are run.
pub struct Runner {
    pub built: Built,
    /// Where they are run.
    pub dir: PathBuf,
    pub from: u64,
    pub seeds: u64,
    pub limit: Duration,
}

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A seed has seen something.
    Found { seed: u64, seen: String },
    /// None has; so often the place of the removed code was reached.
    NotFound { reached: u64 },
    /// The test that is to find it has failed; how.
    Fails(String),
    /// It has passed.
    Passes,
    /// Not done in time.
    NoEnd,
    /// It has failed in another way.
    Broken(String),
}

/// A run that has ended.
pub struct Run {
    pub outcome: Outcome,
    pub took: Duration,
}

impl Runner {
    /// Runs the seeds without what is named.
    pub fn seeds(&self, removed: &[&str]) -> Result<Run> {
        self.run(self.built.sim.as_deref(), TEST, removed, |said, success| outcome(said, removed, success))
    }

    /// Runs a unit test without what is named.
    pub fn test(&self, test: &str, removed: &[&str]) -> Result<Run> {
        self.run(self.built.lib.as_deref(), test, removed, of_test)
    }

    fn run(
        &self,
        exe: Option<&Path>,
        test: &str,
        removed: &[&str],
        outcome: impl FnOnce(&str, bool) -> Outcome,
    ) -> Result<Run> {
        let exe = exe.context("it was not built")?;
        let log = tempfile::tempfile()?;
        let mut command = Command::new(exe);
        command.args(["--exact", test, "--nocapture"]).current_dir(&self.dir);
        for other in ["SIM_ALL", "SIM_HASHES", "SIM_SEED", "SIM_TRACE"] {
            command.env_remove(other);
        }
        let mut child = command
            .env(REMOVED, removed.join(","))
            .env("SIM_FROM", self.from.to_string())
            .env("SIM_SEEDS", self.seeds.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| exe.display().to_string())?;
        let began = Instant::now();
        let status: Option<ExitStatus> = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if began.elapsed() > self.limit => {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let outcome = match status {
            None => Outcome::NoEnd,
            Some(status) => outcome(&said(log)?, status.success()),
        };
        Ok(Run { outcome, took: began.elapsed() })
    }
}

fn said(mut log: File) -> Result<String> {
    let mut bytes = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a run that has ended has said.
fn outcome(said: &str, removed: &[&str], success: bool) -> Outcome {
    // The harness leaves the line of the test's name open.
    let reports = said.lines().filter_map(|line| line.split_once(REACHED)).map(|(_, report)| report.trim());
    let counts = reports.filter_map(|report| report.split_once(' '));
    let reached = counts.filter(|(name, _)| removed.contains(name)).filter_map(|(_, n)| n.parse().ok());
    if success {
        return Outcome::NotFound { reached: reached.min().unwrap_or(0) };
    }
    let mut lines = said.lines();
    let seed = |line: &str| line.strip_prefix("seed ")?.strip_suffix(':')?.parse().ok();
    match lines.find_map(seed) {
        Some(seed) => {
            let seen = match lines.next().unwrap_or_default() {
                "a panic" => format!("a panic: {}", panicked(said).unwrap_or_default()),
                seen => seen.to_owned(),
            };
            Outcome::Found { seed, seen }
        }
        None => broken(said),
    }
}

/// What came of a unit test that has ended.
fn of_test(said: &str, success: bool) -> Outcome {
    // A name that is no test's runs none, and that is a success.
    if success && said.contains("test result: ok. 1 passed") {
        Outcome::Passes
    } else if !success && said.contains("test result: FAILED. 0 passed; 1 failed") {
        Outcome::Fails(panicked(said).unwrap_or_default().to_owned())
    } else if success {
        Outcome::Broken("there is no such test".to_owned())
    } else {
        broken(said)
    }
}

fn broken(said: &str) -> Outcome {
    Outcome::Broken(said.lines().last().unwrap_or("it said nothing").to_owned())
}

/// The message of the first panic.
fn panicked(said: &str) -> Option<&str> {
    let mut lines = said.lines();
    lines.find(|line| line.contains(" panicked at "))?;
    lines.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_has_said_is_understood() {
        let of = |said: &str, success| outcome(said, &["b"], success);
        let quiet = "\nrunning 1 test\ntest with_removals ... reached: a 4\nreached: b 7\nok\n";
        assert_eq!(of(quiet, true), Outcome::NotFound { reached: 7 });
        assert_eq!(outcome(quiet, &["a", "b"], true), Outcome::NotFound { reached: 4 });
        let found = "thread 'with_removals' (3) panicked at crates/vfs/tests/sim/main.rs:9:5:\nseed 12:\nan old byte\nmore\n";
        assert_eq!(of(found, false), Outcome::Found { seed: 12, seen: "an old byte".to_owned() });
        let panic = format!(
            "thread '<unnamed>' panicked at src/a.rs:1:1:\noverflow\n{}",
            found.replace("an old byte", "a panic")
        );
        assert_eq!(of(&panic, false), Outcome::Found { seed: 12, seen: "a panic: overflow".to_owned() });
        assert_eq!(of_test("test result: ok. 1 passed; 0 failed\n", true), Outcome::Passes);
        let none = of_test("running 0 tests\n\ntest result: ok. 0 passed; 0 failed\n", true);
        assert!(matches!(none, Outcome::Broken(_)), "{none:?}");
        let fails = "thread 'tests::a' (2) panicked at src/a.rs:1:1:\nit is 3\n\ntest result: FAILED. 0 passed; 1 failed\n";
        assert_eq!(of_test(fails, false), Outcome::Fails("it is 3".to_owned()));
        assert_eq!(of_test("memory\nstack overflow\n", false), Outcome::Broken("stack overflow".to_owned()));
        assert_eq!(of("memory\nstack overflow\n", false), Outcome::Broken("stack overflow".to_owned()));
    }
}
