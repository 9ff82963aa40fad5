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
use support::{Engine, Volume};

on_engines!(every_test_passes);

/// The suite's release that is tested with.
const VERSION: &str = "0.2.2";
/// Compiling it takes minutes where there are few processors.
const INSTALL: Duration = Duration::from_secs(1200);
const RUN: Duration = Duration::from_secs(600);
/// Fewer passed tests than this mean that the suite did not run as it should.
const PASSED_MIN: usize = 370;

/// What of the suite is used, and as whom. Not enabled: `posix_fallocate`, which the file system does not have yet; birth
/// times and file flags of BSD, which Linux does not have. Tests of read-only remounts are skipped: a FUSE mount cannot be
/// remounted by the suite's `mount` command line.
const CONFIG: &str = r#"
[features]
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

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

fn every_test_passes(engine: Engine) {
    let exe = installed();
    // In the trash a link still counts, so link counts are exact only without.
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let (here, elsewhere) = (mount.join("suite"), volume.dir.path().join("elsewhere"));
    for dir in [&here, &elsewhere] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    }
    let config = volume.dir.path().join("pjdfstest.toml");
    fs::write(&config, CONFIG).unwrap();
    let mut suite = Command::new(exe);
    suite.arg("-c").arg(&config).arg("-p").arg(&here).arg("-s").arg(&elsewhere).current_dir(&here);
    let ran = run_within(&mut suite, RUN);
    let passed = ran.stdout.lines().filter(|l| l.ends_with(" ok")).count();
    assert!(!ran.stdout.contains("FAILED"), "{}", ran.stdout);
    assert!(passed >= PASSED_MIN, "only {passed} passed:\n{}{}", ran.stdout, ran.stderr);
    mount.unmount();
    volume.check();
}
