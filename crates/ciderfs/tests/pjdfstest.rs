//! The POSIX test suite `pjdfstest` (the Rust one), on a real mount. It is installed under `target/tools` by `cargo`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use support::client::run_within;
use support::{Engine, Mount, Volume};

on_engines!(
    every_test_passes,
    every_test_passes_in_a_hurry_with_the_trash_on,
    every_test_of_read_only_remounts_passes
);

/// The suite's release that is tested with.
const VERSION: &str = "0.2.2";
/// Compiling it takes minutes where there are few processors.
const INSTALL: Duration = Duration::from_secs(1200);
const RUN: Duration = Duration::from_secs(600);
/// Fewer passed tests than these mean that the suite did not run as it should.
const PASSED_MIN: usize = 384;
const REMOUNTS_MIN: usize = 13;

/// What of the suite is used, and as whom. Not enabled: birth times, file flags and NFSv4 ACLs of BSD, which Linux does not have.
fn config(naptime: &str, remount: bool) -> String {
    format!(
        r#"
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}

[settings]
naptime = {naptime}
allow_remount = {remount}

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#
    )
}

fn installed() -> PathBuf {
    static DONE: OnceLock<PathBuf> = OnceLock::new();
    DONE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
        let exe = root.join("bin/pjdfstest");
        let here = Command::new(&exe).arg("--version").output();
        if here.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(VERSION)) {
            return exe;
        }
        let mut install = Command::new(env!("CARGO"));
        install.args(["install", "pjdfstest", "--version", VERSION, "--locked", "--force", "--root"]);
        install.arg(&root).env("CARGO_TARGET_DIR", root.join("build"));
        let ran = run_within(&mut install, INSTALL);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        exe
    })
    .clone()
}

/// Runs the tests that match, as `wrapper` would run a program, on a new volume.
fn run(
    engine: Engine,
    trash_days: u32,
    config: &str,
    wrapper: impl FnOnce(&Mount, &Path) -> Command,
    tests: &[&str],
    min: usize,
) {
    let exe = installed();
    let volume = Volume::new(engine, &[&format!("--trash-days={trash_days}")]);
    let mount = volume.mount(&[]);
    let (here, elsewhere) = (mount.join("suite"), volume.dir.path().join("elsewhere"));
    for dir in [&here, &elsewhere] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    }
    let file = volume.dir.path().join("pjdfstest.toml");
    fs::write(&file, config).unwrap();
    let mut suite = wrapper(&mount, &exe);
    suite.arg("-c").arg(&file).arg("-p").arg(&here).arg("-s").arg(&elsewhere).args(tests).current_dir(&here);
    let ran = run_within(&mut suite, RUN);
    let passed = ran.stdout.lines().filter(|l| l.ends_with(" ok")).count();
    assert!(!ran.stdout.contains("FAILED"), "{}", ran.stdout);
    assert!(passed >= min, "only {passed} passed:\n{}{}", ran.stdout, ran.stderr);
    mount.unmount();
    volume.check();
}

fn every_test_passes(engine: Engine) {
    run(engine, 0, &config("0.2", false), |_, exe| Command::new(exe), &[], PASSED_MIN);
}

fn every_test_passes_in_a_hurry_with_the_trash_on(engine: Engine) {
    run(engine, 1, &config("0.01", false), |_, exe| Command::new(exe), &[], PASSED_MIN);
}

/// These run apart from the others, one of which leaves a removed file open: no file system can be made read-only after it.
/// `mount -o remount` finds the program through libfuse's helper, which looks for it where programs are installed; this is done in
/// a mount name space of its own.
fn every_test_of_read_only_remounts_passes(engine: Engine) {
    let namespace = |_: &Mount, exe: &Path| {
        let script = format!(
            "mount -t tmpfs tmpfs /usr/local/bin; ln -s {} /usr/local/bin/juicefs; exec {} \"$@\"",
            env!("CARGO_BIN_EXE_ciderfs"),
            exe.display()
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-euc", &script, "sh"]);
        unshare
    };
    run(engine, 0, &config("0.01", true), namespace, &["erofs"], REMOUNTS_MIN);
}
