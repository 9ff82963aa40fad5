//! Machines whose clocks are hours apart, or jump.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use support::agent::Agent;
use support::client::{program, succeed, wait_for};
use support::volume::NAME;
use support::{Engine, Mount, Volume};

on_engines!(
    clients_with_clocks_hours_apart_live_side_by_side,
    a_clock_that_jumps_during_a_mount_ends_nothing
);

/// A client with a heartbeat of one second is dead after five.
const FLAGS: &[&str] = &["mount", "--metrics=", "--cache-dir=memory", "--heartbeat=1", "--attr-cache=0"];
/// More than the life of a session.
const A_LIFE: Duration = Duration::from_secs(6);

/// The clock of a machine, which can be set: hours off the true time.
struct Clock(PathBuf);

impl Clock {
    fn new(dir: &Path, name: &str, hours: i64) -> Self {
        let clock = Self(dir.join(name));
        clock.set(hours);
        clock
    }

    fn set(&self, hours: i64) {
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{hours:+}h\n")).unwrap();
        fs::rename(&next, &self.0).unwrap();
    }

    /// Mounts as on a machine with this clock.
    fn mount(&self, volume: &Volume) -> Mount {
        let path = volume.new_path();
        let mut command = program();
        command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", &self.0);
        command.args(FLAGS).arg(&volume.meta).arg(&path);
        Mount::start(command, &path, &path.with_extension("log"))
    }
}

/// Hours that the times which a mount writes are ahead of the true time.
#[track_caller]
fn hours_off(mount: &Mount) -> i64 {
    let path = mount.join("clock");
    fs::write(&path, "").unwrap();
    let told = fs::metadata(&path).unwrap().mtime();
    fs::remove_file(&path).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    (told - now + 1800).div_euclid(3600)
}

/// Two mounts, with a process on each that holds locks and a removed file.
struct Pair {
    mounts: [Mount; 2],
    agents: [Agent; 2],
}

impl Pair {
    fn new(mounts: [Mount; 2]) -> Self {
        let agents = [0, 1].map(|i: usize| {
            let mut agent = Agent::start();
            let file = |name: &str| mounts[i].join(format!("{i}-{name}")).display().to_string();
            agent.must(&format!("open f {} rw", file("locked")));
            agent.must("try f w 0 10");
            agent.must("flock f ex");
            agent.must(&format!("open g {} rw", file("removed")));
            agent.ask("write g kept");
            agent.must("fsync g");
            fs::remove_file(file("removed")).unwrap();
            agent
        });
        Self { mounts, agents }
    }

    /// A process that has opened the file which is locked through each mount, by its number, through the other one.
    fn others(&self) -> Agent {
        let mut other = Agent::start();
        for (locked, through) in [(0, 1), (1, 0)] {
            let path = self.mounts[through].join(format!("{locked}-locked"));
            other.must(&format!("open {locked} {} rw", path.display()));
        }
        other
    }

    /// Nobody is taken for dead, and what each holds is its own.
    #[track_caller]
    fn lives(&mut self, other: &mut Agent) {
        for locked in 0..2 {
            other.refused("EAGAIN", &format!("try {locked} w 5 1"));
            other.refused("EAGAIN", &format!("flock {locked} ex nb"));
        }
        for agent in &mut self.agents {
            // The kernel has no page of it: a reader comes through.
            agent.must("fsync g");
            assert_eq!(agent.ask("size g"), "4");
        }
        for mount in &self.mounts {
            let log = mount.log();
            assert!(!log.contains("declared dead") && !log.contains("ending session"), "{log}");
        }
    }

    /// The second client is frozen until the first has ended its session, and goes on then.
    #[track_caller]
    fn the_second_is_frozen(mut self, volume: &Volume, mut other: Agent) {
        assert_eq!(blocks(volume), 2, "of the removed files");
        let frozen = Pid::from_raw(self.mounts[1].pid() as i32).unwrap();
        let thawed = Frozen::new(frozen, volume);
        wait_for("the locks of a frozen client", || other.ask("try 1 w 5 1").is_empty());
        wait_for("its removed file to go", || blocks(volume) == 1);
        drop(thawed);
        let [first, second] = &mut self.agents;
        assert_eq!(first.ask("read g"), "kept");
        // The file is gone, the descriptor is not.
        second.refused("ESTALE", "read g");
        assert_eq!(second.ask("size g"), "4");
        assert_eq!(second.ask("links g"), "0");
        second.ask("write g more");
        second.refused("ESTALE", "fsync g");
        drop(other);
        drop(self.agents);
        let [first, second] = self.mounts;
        assert!(first.log().contains("ending session"), "{}", first.log());
        wait_for("it learns of that", || second.log().contains("declared dead"));
        first.unmount();
        second.unmount_after_errors();
    }
}

/// A process that is stopped until this is dropped: a test that fails meanwhile would wait for it for ever.
struct Frozen(Pid);

impl Frozen {
    /// Not in the middle of a transaction: that would lock everybody out of an SQLite file.
    #[track_caller]
    fn new(process: Pid, volume: &Volume) -> Self {
        for _ in 0..50 {
            kill_process(process, Signal::STOP).unwrap();
            let frozen = Self(process);
            if volume.redis.is_some() || is_unlocked(&volume.dir.path().join("meta.db")) {
                return frozen;
            }
        }
        panic!("whenever it is stopped it holds the lock of the file");
    }
}

/// Can others write to an SQLite file?
fn is_unlocked(file: &Path) -> bool {
    let begin = ".timeout 1000\nBEGIN IMMEDIATE;\nROLLBACK;";
    Command::new("sqlite3").arg("-bail").arg(file).arg(begin).output().unwrap().status.success()
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Blocks that a volume has stored.
fn blocks(volume: &Volume) -> usize {
    fn below(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| if e.path().is_dir() { below(&e.path()) } else { 1 }).sum()
    }
    below(&volume.objects.join(NAME).join("chunks"))
}

/// Ids of the sessions of a volume.
fn sessions(volume: &Volume) -> BTreeSet<u64> {
    let out = succeed(&["status", &volume.meta]).stdout;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    status["Sessions"].as_array().unwrap().iter().map(|s| s["Sid"].as_u64().unwrap()).collect()
}

/// Locks and removed files that are open survive the heartbeats of clients hours ahead and behind; a frozen client loses both
/// all the same.
fn clients_with_clocks_hours_apart_live_side_by_side(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let clocks =
        [("ahead", 3), ("behind", -3)].map(|(name, hours)| Clock::new(volume.dir.path(), name, hours));
    let mut pair = Pair::new(clocks.each_ref().map(|clock| clock.mount(&volume)));
    assert_eq!(pair.mounts.each_ref().map(hours_off), [3, -3]);
    let before = sessions(&volume);
    let mut other = pair.others();
    std::thread::sleep(A_LIFE * 2);
    pair.lives(&mut other);
    assert_eq!((before.len(), sessions(&volume)), (2, before));
    for mount in &pair.mounts {
        let log = mount.log();
        let told = log.contains("the clock of this machine is") && log.contains("NTP");
        assert_eq!(told, engine == Engine::Redis, "SQLite has no clock to compare with: {log}");
    }
    pair.the_second_is_frozen(&volume, other);
}

/// Nor does a clock that is set while the volume is mounted, beside a client whose clock is right.
fn a_clock_that_jumps_during_a_mount_ends_nothing(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let clock = Clock::new(volume.dir.path(), "clock", 0);
    let mut pair =
        Pair::new([clock.mount(&volume), Clock::new(volume.dir.path(), "right", 0).mount(&volume)]);
    let before = sessions(&volume);
    let mut other = pair.others();
    for hours in [5, -5, 0] {
        clock.set(hours);
        assert_eq!(pair.mounts.each_ref().map(hours_off), [hours, 0]);
        std::thread::sleep(A_LIFE);
        pair.lives(&mut other);
        assert_eq!((before.len(), sessions(&volume)), (2, before.clone()), "{hours} h");
    }
    clock.set(30);
    pair.the_second_is_frozen(&volume, other);
}
