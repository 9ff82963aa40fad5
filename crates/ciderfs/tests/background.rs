//! Mounts in the background: what they inherit, and their log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use support::client::{PATIENCE, is_mounted, program, run_within, succeed, wait_for};
use support::{Engine, Volume};

/// A mount in the background; unmounted when dropped.
struct Background {
    path: PathBuf,
    log: PathBuf,
}

impl Background {
    /// Mounts with a command of the shell, `$M` being the command line of the mount.
    fn start(volume: &Volume, script: &str, flags: &str) -> Self {
        let path = volume.new_path();
        let log = path.with_extension("log");
        let line = format!(
            "'{}' mount -d --metrics= --log '{}' {flags} '{}' '{}'",
            env!("CARGO_BIN_EXE_ciderfs"),
            log.display(),
            volume.meta,
            path.display()
        );
        let mut command = Command::new("bash");
        command.args(["-euc", &script.replace("$M", &line)]).current_dir(volume.dir.path());
        let ran = run_within(&mut command, PATIENCE);
        let this = Self { path, log };
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(is_mounted(&this.path));
        this
    }

    fn pid(&self) -> i32 {
        let config = fs::read_to_string(self.path.join(".config")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        i32::try_from(config["Pid"].as_i64().unwrap()).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = run_within(program().arg("umount").arg(&self.path), PATIENCE);
    }
}

#[test]
fn a_background_mount_keeps_nothing_of_its_caller_open() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    // The shell at the other end of the pipe keeps no lock.
    // A lock around the command, a pipe that it has never heard of, and its own standard streams.
    let script =
        "exec 9>lock; flock 9; exec 57> >(exec 9>&-; cat > piped; touch pipe-ended); $M | cat; echo 1 >&57";
    let mount = Background::start(&volume, script, "--cache-dir=memory");
    let ended = volume.dir.path().join("pipe-ended");
    wait_for("the end of the pipe", || ended.exists());
    let ran = run_within(
        Command::new("flock").args(["-n", "lock", "true"]).current_dir(volume.dir.path()),
        PATIENCE,
    );
    assert_eq!(ran.code, 0, "the caller's lock is held");
    // Nothing is left of the caller but the log.
    let pid = mount.pid();
    let link = |fd: u32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
    wait_for("its own streams", || link(1) == mount.log);
    assert_eq!((link(0).as_path(), link(2)), (Path::new("/dev/null"), mount.log.clone()));
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
}

#[test]
fn a_log_file_holds_no_codes_of_terminals() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    fs::write(volume.dir.path().join("file"), "").unwrap();
    // The caller has a terminal.
    let mount = Background::start(&volume, "script -qec \"$M\" /dev/null", "--cache-dir=file --verbose");
    let log = mount.text();
    assert!(log.contains("no disk cache here") && log.contains("dir=") && log.contains("<DEBUG>"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn a_log_file_that_was_moved_away_is_made_anew_on_sighup() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mount = Background::start(&volume, "$M", "--cache-dir=memory");
    let old = mount.log.with_extension("log.1");
    for round in 0..3 {
        fs::rename(&mount.log, &old).unwrap();
        kill_process(Pid::from_raw(mount.pid()).unwrap(), Signal::HUP).unwrap();
        wait_for("a new log", || mount.text().contains("opened again"));
        assert!(is_mounted(&mount.path), "round {round}");
    }
    let before = fs::read_to_string(&old).unwrap();
    succeed(&["umount", mount.path.to_str().unwrap()]);
    wait_for("the end", || !is_mounted(&mount.path));
    assert_eq!(fs::read_to_string(&old).unwrap(), before, "nothing more is written to the old one");
}

#[test]
fn a_background_mount_that_fails_says_why_in_one_piece() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let path = volume.dir.path().join("not\na directory");
    fs::write(&path, "").unwrap();
    let mut command = program();
    command.args(["mount", "-d", "--metrics=", "--cache-dir=memory", "--log=log", &volume.meta]);
    let ran = run_within(command.arg(&path).current_dir(volume.dir.path()), PATIENCE);
    assert!(
        ran.code == 1 && ran.stderr.contains("a directory\\\" is not a directory")
            || ran.stderr.contains("a directory\" is not a directory"),
        "{ran:?}"
    );
}
