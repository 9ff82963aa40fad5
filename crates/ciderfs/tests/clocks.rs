//! Machines whose clocks are hours apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::agent::Agent;
use support::client::{program, wait_for};
use support::{Engine, Mount, Volume};

/// A client with a heartbeat of one second is dead after five.
const FLAGS: &[&str] = &["mount", "--metrics=", "--cache-dir=memory", "--heartbeat=1", "--attr-cache=0"];

/// Mounts as on a machine whose clock is off by so much.
fn mount_at(volume: &Volume, off: &str) -> Mount {
    let path = volume.new_path();
    let mut command = program();
    command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME", off);
    command.args(FLAGS).arg(&volume.meta).arg(&path);
    Mount::start(command, &path, &path.with_extension("log"))
}

/// Locks and removed files that are open survive the heartbeats of clients hours ahead and behind; a frozen client loses its
/// locks all the same.
#[test]
fn clients_with_clocks_hours_apart_live_side_by_side() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let (ahead, behind) = (mount_at(&volume, "+3h"), mount_at(&volume, "-3h"));
    let mut agents = Vec::new();
    for (mount, name) in [(&ahead, "a"), (&behind, "b")] {
        let mut agent = Agent::start();
        let dir = mount.path().display();
        agent.must(&format!("open f {dir}/{name} rw"));
        agent.must("try f w 0 10");
        agent.must("flock f ex");
        agent.must(&format!("open g {dir}/{name}-removed rw"));
        agent.ask("write g kept");
        fs::remove_file(mount.join(format!("{name}-removed"))).unwrap();
        agents.push(agent);
    }
    // Two lives of a session.
    std::thread::sleep(Duration::from_secs(11));
    let mut other = Agent::start();
    other.must(&format!("open f {}/b rw", ahead.path().display()));
    other.must(&format!("open g {}/a rw", behind.path().display()));
    for name in ["f", "g"] {
        other.refused("EAGAIN", &format!("try {name} w 5 1"));
        other.refused("EAGAIN", &format!("flock {name} ex nb"));
    }
    for agent in &mut agents {
        assert_eq!(agent.ask("read g"), "kept");
        agent.must("fsync g");
    }
    for mount in [&ahead, &behind] {
        let log = mount.log();
        assert!(log.contains("the clock of this machine is") && log.contains("NTP"), "{log}");
        assert!(!log.contains("declared dead") && !log.contains("ending session"), "{log}");
    }
    // Frozen longer than its session lives.
    let frozen = Pid::from_raw(behind.pid() as i32).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    wait_for("the locks of a frozen client", || other.ask("try f w 5 1").is_empty());
    kill_process(frozen, Signal::CONT).unwrap();
    drop(other);
    drop(agents);
    ahead.unmount();
    behind.unmount_after_errors();
}
