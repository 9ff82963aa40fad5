//! Another program for the worker, without a gap that anybody would notice.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use ciderfs_handover::link::Link;
use serde_json::json;

use super::control::{Asked, say};
use super::program::Program;
use super::supervisor::Supervisor;
use crate::failure::{EXIT_ERROR, EXIT_OLD_SERVES, EXIT_UNFIT, EXIT_UNSERVED, EXIT_UNSUPERVISED};

/// The worker has this long to finish what it has begun and to store what was written; then it is ended, and its successor finds
/// what was not stored.
pub(super) const LEAVE: Duration = Duration::from_secs(45);
/// The next one has this long to be ready if whoever asks says nothing else.
const READY: Duration = Duration::from_secs(60);

/// Why such a program is refused.
pub const ON_THE_MOUNT: &str =
    "lies on the mount itself, and could not be read while nobody serves that: copy it elsewhere";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The old worker finishes.
    Leaving,
    /// The new one starts.
    Starting,
    /// It could not; the old program starts again.
    Reverting,
}

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    client: Link,
    old: Program,
    new: Program,
    pub stage: Stage,
    until: Instant,
    wait: Duration,
    began: Instant,
    why: String,
}

impl Upgrade {
    /// Has it taken too long?
    pub fn is_late(&self) -> bool {
        Instant::now() > self.until
    }
}

impl Supervisor {
    pub(super) fn begin_upgrade(&mut self, client: Link, mut asked: Asked) {
        let refuse = |why: &str| say(&client, &json!({ "failed": why, "code": EXIT_ERROR }));
        if self.is_stopping() {
            // Its device number may be another mount's by now.
            let why = "the mount of this supervisor is ending; one that has come in its place was not made with `mount --supervised`";
            return say(&client, &json!({ "failed": why, "code": EXIT_UNSUPERVISED }));
        }
        if self.upgrade.is_some() {
            return refuse("another upgrade is under way");
        }
        if !self.is_serving() {
            return refuse("the mount is being taken up by another worker just now: try again");
        }
        let Some(file) = asked.fds.pop().map(File::from) else { return refuse("no program was given") };
        let name = PathBuf::from(asked.what["program"].as_str().unwrap_or_default());
        let new = Program::of(file, name);
        if self.has(&new) {
            return say(
                &client,
                &json!({ "failed": format!("{} {ON_THE_MOUNT}", shown(&new.name)), "code": EXIT_UNFIT }),
            );
        }
        tracing::info!("an upgrade to {} begins", shown(&new.name));
        say(&client, &json!({ "say": format!("worker {} finishes what it has begun", self.pid()) }));
        let now = Instant::now();
        let wait = asked.what["wait"].as_u64().map_or(READY, Duration::from_secs);
        self.upgrade = Some(Upgrade {
            client,
            old: self.program.clone(),
            new,
            stage: Stage::Leaving,
            until: now + LEAVE,
            wait,
            began: now,
            why: String::new(),
        });
        self.replace();
    }

    /// The same for a worker that has left already, with nobody who waits.
    pub(super) fn upgrade_to(&mut self, new: Program) {
        let Ok((client, _)) = Link::pair() else { return };
        let now = Instant::now();
        let old = std::mem::replace(&mut self.program, new.clone());
        self.upgrade = Some(Upgrade {
            client,
            old,
            new,
            stage: Stage::Starting,
            until: now + READY,
            wait: READY,
            began: now,
            why: String::new(),
        });
    }

    /// A worker has ended during an upgrade: which program comes next.
    pub(super) fn next_program(&mut self, why: &str) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.until = Instant::now() + upgrade.wait;
        if upgrade.stage == Stage::Leaving {
            upgrade.stage = Stage::Starting;
            self.program = upgrade.new.clone();
            say(&upgrade.client, &json!({ "say": format!("{} starts", shown(&self.program.name)) }));
            return;
        }
        upgrade.stage = Stage::Reverting;
        upgrade.why = why.to_owned();
        self.program = upgrade.old.clone();
        let text = format!("the new program has ended ({why}); {} starts again", shown(&self.program.name));
        tracing::error!("{text}");
        say(&upgrade.client, &json!({ "say": text }));
    }

    /// A worker is ready.
    pub(super) fn upgraded(&mut self) {
        let Some(upgrade) = self.upgrade.take() else { return };
        let took = upgrade.began.elapsed();
        if upgrade.stage == Stage::Reverting {
            let text = format!(
                "the new program could not take the mount over ({}); the old one serves again, after {} ms",
                upgrade.why,
                took.as_millis()
            );
            return say(&upgrade.client, &json!({ "failed": text, "code": EXIT_OLD_SERVES }));
        }
        tracing::info!("upgraded to {} in {} ms", shown(&self.program.name), took.as_millis());
        say(
            &upgrade.client,
            &json!({
                "done": true,
                "milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "worker": self.pid(),
                "program": shown(&self.program.name),
            }),
        );
    }

    /// Not even the old program could be started again; it is tried further.
    pub(super) fn failed_upgrade(&mut self, why: &str) {
        let Some(upgrade) = self.upgrade.take() else { return };
        let text =
            format!("neither the new program nor the old one serves the mount ({}; {why})", upgrade.why);
        say(&upgrade.client, &json!({ "failed": text, "code": EXIT_UNSERVED }));
    }
}
