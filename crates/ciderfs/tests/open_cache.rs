//! Files that are opened without asking the metadata engine (`--open-cache`), on real mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use support::client::sh;
use support::{Engine, Mount, Volume, noise};

on_engines!(
    a_warm_file_costs_no_turn,
    what_another_mount_changes_is_seen_in_time,
    what_a_mount_does_itself_is_seen_at_once,
    permissions_hold,
);

/// Neither heartbeats nor lookups in between.
const QUIET: [&str; 4] = ["--heartbeat=1h", "--no-bgjob", "--entry-cache=1h", "--dir-entry-cache=1h"];

/// Turns to the engine that a mount has made.
fn turns(mount: &Mount) -> u64 {
    let stats = fs::read_to_string(mount.join(".stats")).unwrap();
    let line = stats.lines().find(|l| l.contains("meta_turns")).unwrap_or_else(|| panic!("{stats}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

fn mount(volume: &Volume, flags: &[&str]) -> Mount {
    volume.mount(&[&QUIET[..], flags].concat())
}

/// Opens, reads, asks for the attributes and closes.
fn read(path: &Path) -> (Vec<u8>, u64) {
    let mut file = File::open(path).unwrap();
    let mut data = Vec::new();
    file.read_to_end(&mut data).unwrap();
    (data, file.metadata().unwrap().len())
}

fn a_warm_file_costs_no_turn(engine: Engine) {
    const OPENS: u64 = 1000;
    let volume = Volume::new(engine, &[]);
    let data = noise(1, 300_000);
    let setup = volume.mount(&[]);
    fs::write(setup.join("f"), &data).unwrap();
    setup.unmount();
    let cost = |flags: &[&str]| {
        let mount = mount(&volume, flags);
        let path = mount.join("f");
        let once = || assert_eq!(read(&path), (data.clone(), 300_000));
        once();
        let before = turns(&mount);
        (0..OPENS).for_each(|_| once());
        let made = turns(&mount) - before;
        mount.unmount();
        made
    };
    assert!(cost(&[]) >= OPENS);
    assert_eq!(cost(&["--open-cache=1h"]), 0);
    // One file is forgotten for the other, now and then.
    let few = mount(&volume, &["--open-cache=1h", "--open-cache-limit=1"]);
    fs::write(few.join("g"), "other").unwrap();
    let before = turns(&few);
    for _ in 0..10 {
        read(&few.join("f"));
        read(&few.join("g"));
    }
    assert!(turns(&few) - before >= 20);
    few.unmount();
}

fn what_another_mount_changes_is_seen_in_time(engine: Engine) {
    const VALID: Duration = Duration::from_secs(2);
    let volume = Volume::new(engine, &[]);
    let (one, two) = (volume.mount(&[]), mount(&volume, &["--open-cache=2s"]));
    let (here, there) = (one.join("f"), two.join("f"));
    fs::write(&here, noise(0, 100_000)).unwrap();
    for round in 1..4 {
        let old = read(&there);
        let new = noise(round, 100_000);
        // The same length: pages that stay would show the old content.
        OpenOptions::new().write(true).open(&here).unwrap().write_all(&new).unwrap();
        let changed = Instant::now();
        let mut from_memory = 0;
        loop {
            let late = changed.elapsed() > VALID;
            let found = read(&there);
            if found.0 == new {
                break;
            }
            assert!(found == old && !late, "after {:?}", changed.elapsed());
            from_memory += 1;
        }
        assert!(from_memory > 0);
    }
    // Removed elsewhere, and the name given to another file.
    fs::write(one.join("new"), "new").unwrap();
    read(&there);
    fs::rename(one.join("new"), &here).unwrap();
    let changed = Instant::now();
    loop {
        let late = changed.elapsed() > VALID;
        if fs::read(&there).unwrap() == b"new" {
            break;
        }
        assert!(!late, "after {:?}", changed.elapsed());
    }
    one.unmount();
    two.unmount();
    volume.check();
}

fn what_a_mount_does_itself_is_seen_at_once(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = mount(&volume, &["--open-cache=1h", "--attr-cache=1h"]);
    let path = mount.join("f");
    for round in 1..30_u64 {
        fs::write(&path, noise(round, 1000 * round as usize)).unwrap();
        assert_eq!(read(&path), (noise(round, 1000 * round as usize), 1000 * round));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"end").unwrap();
        assert_eq!(read(&path).0[1000 * round as usize..], *b"end");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
        assert_eq!(read(&path).1, 5);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + round as u32 % 2)).unwrap();
        assert_eq!(File::open(&path).unwrap().metadata().unwrap().mode() & 0o777, 0o600 + round as u32 % 2);
    }
    // Removed while it is open as it was remembered: readable until it is closed.
    fs::write(&path, noise(1, 300_000)).unwrap();
    read(&path);
    let mut held = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(File::open(&path).is_err());
    let mut data = Vec::new();
    held.read_to_end(&mut data).unwrap();
    assert_eq!((data, held.metadata().unwrap().nlink()), (noise(1, 300_000), 0));
    drop(held);
    // A program that is run again and again, and replaced.
    for n in 0..5 {
        fs::write(mount.join("new"), format!("#!/bin/sh\necho {n}\n")).unwrap();
        sh(mount.path(), "chmod 755 new; mv new run");
        assert_eq!(sh(mount.path(), "./run; ./run"), format!("{n}\n{n}\n"));
    }
    mount.unmount();
    volume.check();
}

fn permissions_hold(engine: Engine) {
    const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let volume = Volume::new(engine, &[]);
    for checks in [&[][..], &["--non-default-permission"]] {
        let mount = mount(&volume, &[&["--open-cache=1h"][..], checks].concat());
        fs::write(mount.join("f"), "secret").unwrap();
        sh(mount.path(), "chmod 755 .; chmod 600 f; cat f f > /dev/null");
        sh(
            mount.path(),
            &format!("! {NOBODY} cat f 2> /dev/null; cat f > /dev/null; ! {NOBODY} cat f 2> /dev/null"),
        );
        sh(mount.path(), &format!("chmod 604 f; {NOBODY} cat f; chmod 600 f; ! {NOBODY} cat f 2> /dev/null"));
        mount.unmount();
    }
}
