//! What is left when a command or a mount on SQLite has ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use support::client::{run, sh, succeed};
use support::{Engine, Volume};

const ROUNDS: u32 = 20;

/// The `-wal` file is empty or gone.
#[track_caller]
fn closed(dir: &Path, after: &str) {
    let left = fs::metadata(dir.join("meta.db-wal")).map_or(0, |m| m.len());
    assert_eq!(left, 0, "bytes in the -wal file after {after}");
}

#[test]
fn the_database_is_whole_without_its_wal_file_after_every_command() {
    for round in 0..ROUNDS {
        let volume = Volume::new(Engine::Sqlite, &["--trash-days=1"]);
        let dir = volume.dir.path();
        closed(dir, "format");
        succeed(&["config", &volume.meta, "--trash-days=0", "--yes"]);
        closed(dir, "config");
        let mount = volume.mount(&[]);
        sh(mount.path(), "for i in $(seq 50); do echo $i > f$i; done");
        // With what is under way when it ends.
        mount.unmount();
        closed(dir, "mount");
        assert_eq!(run(&["mount", "--subdir=f1", &volume.meta, dir.join("no").to_str().unwrap()]).code, 1);
        closed(dir, "a mount that failed");
        // Alone, elsewhere.
        let copy = dir.join("copy.db");
        fs::copy(dir.join("meta.db"), &copy).unwrap();
        let copied = format!("sqlite3://{}", copy.display());
        let shown: serde_json::Value = serde_json::from_str(&succeed(&["status", &copied]).stdout).unwrap();
        assert_eq!(shown["Setting"]["TrashDays"], 0, "round {round}");
        assert_eq!(shown["Stat"]["UsedInodes"], 50, "round {round}: {shown}");
        assert_eq!(shown["Sessions"].as_array().map_or(0, Vec::len), 0, "round {round}");
    }
}
