//! One volume, two clients: what one of them writes the other one reads, and both leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use ciderfs_testkit::official::{self, Official};
use support::client::{run_within, sh, wait_for};
use support::tree::{Tree, walk_usage};
use support::{Engine, Volume, assert_same, noise};

/// How long two of our clients do.
const OWN_WORK: Duration = Duration::from_secs(20);
/// How long both clients work in the same directories.
const SHARED_WORK: Duration = Duration::from_secs(45);

/// A form of stored data.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Lz4,
    Zstd,
    Aes,
    ChaCha,
    HashPrefix,
    SmallBlocks,
    LargeBlocks,
}

impl Form {
    /// Flags of `format`, which both clients share.
    fn flags(self, dir: &Path) -> Vec<String> {
        let encrypted = |algorithm: &str| {
            let key = dir.join("key.pem");
            let out =
                Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output().unwrap();
            assert!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
            vec![format!("--encrypt-rsa-key={}", key.display()), format!("--encrypt-algo={algorithm}")]
        };
        let mut flags = match self {
            Self::Plain => vec![],
            Self::Lz4 => vec!["--compress=lz4".to_owned()],
            Self::Zstd => vec!["--compress=zstd".to_owned()],
            Self::Aes => encrypted("aes256gcm-rsa"),
            Self::ChaCha => encrypted("chacha20-rsa"),
            Self::HashPrefix => vec!["--hash-prefix".to_owned()],
            Self::SmallBlocks => vec!["--block-size=64K".to_owned()],
            Self::LargeBlocks => vec!["--block-size=16M".to_owned()],
        };
        flags.push("--trash-days=0".into());
        flags
    }
}

macro_rules! forms {
    ($($name:ident: $form:ident),* $(,)?) => {
        mod sqlite { $(#[test] fn $name() { super::exchange(super::Engine::Sqlite, super::Form::$form); })* }
        mod redis { $(#[test] fn $name() { super::exchange(super::Engine::Redis, super::Form::$form); })* }
    };
}

forms!(
    plain: Plain,
    lz4: Lz4,
    zstd: Zstd,
    aes256gcm: Aes,
    chacha20: ChaCha,
    hash_prefix: HashPrefix,
    blocks_of_64_kib: SmallBlocks,
    blocks_of_16_mib: LargeBlocks,
);

fn official() -> Official {
    Official::locate().unwrap_or_else(|e| panic!("{e:#}"))
}

#[track_caller]
fn mount_official(official: &Official, volume: &Volume) -> official::Mount {
    official.mount(&volume.meta, &volume.new_path(), &[]).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Unmounts the official client once it has written its directories' statistics, which it does every second.
#[track_caller]
fn unmount_official(mount: official::Mount) {
    std::thread::sleep(Duration::from_millis(1500));
    mount.unmount().unwrap_or_else(|e| panic!("{e:#}"));
}

/// One of everything.
fn fill(root: &Path, seed: u64) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("d/e/f")).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("small"), noise(seed, 100)).unwrap();
    fs::write(at("d/text"), "the same line again\n".repeat(20_000)).unwrap();
    fs::write(at("d/e/blocks"), noise(seed + 1, (9 << 20) + 4321)).unwrap();
    let file = File::create(at("d/e/overwritten")).unwrap();
    file.write_all_at(&noise(seed + 2, 3_000_000), 0).unwrap();
    file.sync_all().unwrap();
    for (n, from) in [1_000_000_u64, 64_000, 2_990_000, 4095].into_iter().enumerate() {
        file.write_all_at(&noise(seed + 3 + n as u64, 70_000), from).unwrap();
        file.sync_all().unwrap();
    }
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"over the first chunk", (64 << 20) - 10).unwrap();
    sparse.set_len((65 << 20) + 1).unwrap();
    let cut = File::create(at("cut")).unwrap();
    cut.write_all_at(&noise(seed + 9, 500_000), 0).unwrap();
    cut.set_len(123_456).unwrap();
    cut.set_len(200_000).unwrap();
    fs::hard_link(at("small"), at("d/hard")).unwrap();
    symlink("../small", at("d/soft")).unwrap();
    symlink("x".repeat(500), at("long-link")).unwrap();
    sh(root, "mkfifo fifo; mknod char c 10 200");
    fs::write(at("n\u{e4}me \u{1f34e} \\ \"quoted\""), b"name").unwrap();
    fs::write(
        root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"not\xffutf8")),
        b"raw",
    )
    .unwrap();
    for i in 0..120 {
        fs::write(at(&format!("d/e/f/{i:03}")), noise(seed + i, (i as usize * 37) % 3000)).unwrap();
    }
    fs::rename(at("d/e/f/000"), at("d/renamed")).unwrap();
    fs::rename(at("d/e/f/001"), at("d/e/f/002")).unwrap();
    for i in 3..20 {
        fs::remove_file(at(&format!("d/e/f/{i:03}"))).unwrap();
    }
    fs::set_permissions(at("small"), Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(at("d/e"), Permissions::from_mode(0o3771)).unwrap();
    chown(at("d/text"), Some(4_000_000_000), Some(1000)).unwrap();
    let time = |s, ns| SystemTime::UNIX_EPOCH + Duration::new(s, ns);
    File::open(at("d/text")).unwrap().set_modified(time(1, 999_999_999)).unwrap();
    File::open(at("d/e/f")).unwrap().set_modified(time(5_000_000_000, 1)).unwrap();
}

/// Changes to what the other client has made.
fn alter(root: &Path, seed: u64) {
    let at = |name: &str| root.join(name);
    let file = OpenOptions::new().write(true).open(at("d/e/blocks")).unwrap();
    file.write_all_at(&noise(seed, 5_000_000), 2_000_001).unwrap();
    drop(file);
    OpenOptions::new().append(true).open(at("d/text")).unwrap().write_all(b"and one more").unwrap();
    OpenOptions::new().write(true).open(at("d/e/overwritten")).unwrap().set_len(1_234_567).unwrap();
    fs::remove_file(at("cut")).unwrap();
    fs::remove_file(at("d/hard")).unwrap();
    fs::rename(at("d/soft"), at("soft")).unwrap();
    fs::remove_dir_all(at("d/e/f")).unwrap();
    fs::write(at("empty"), b"no more").unwrap();
    fs::hard_link(at("d/renamed"), at("twin")).unwrap();
}

/// Theirs writes, ours reads and alters, theirs reads; then the other way round.
fn exchange(engine: Engine, form: Form) {
    let official = official();
    for official_first in [true, false] {
        let volume = Volume::unformatted(engine);
        let flags = form.flags(volume.dir.path());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (before, altered);
        if official_first {
            volume.format_official(&official, &flags);
            let theirs = mount_official(&official, &volume);
            fill(theirs.path(), 100);
            before = Tree::read(theirs.path());
            unmount_official(theirs);
            let ours = volume.mount(&[]);
            assert_same("written by the official client", &before, &Tree::read(ours.path()));
            ours.unmount();
            volume.repair_statistics(&official);
            volume.check();
            let ours = volume.mount(&[]);
            alter(ours.path(), 200);
            altered = Tree::read(ours.path());
            ours.unmount();
            let theirs = mount_official(&official, &volume);
            assert_same("altered by us", &altered, &Tree::read(theirs.path()));
            unmount_official(theirs);
        } else {
            volume.format(&flags);
            let ours = volume.mount(&[]);
            fill(ours.path(), 300);
            before = Tree::read(ours.path());
            ours.unmount();
            let theirs = mount_official(&official, &volume);
            assert_same("written by us", &before, &Tree::read(theirs.path()));
            unmount_official(theirs);
            volume.check();
            let theirs = mount_official(&official, &volume);
            alter(theirs.path(), 400);
            altered = Tree::read(theirs.path());
            unmount_official(theirs);
            let ours = volume.mount(&[]);
            assert_same("altered by the official client", &altered, &Tree::read(ours.path()));
            ours.unmount();
            volume.repair_statistics(&official);
        }
        volume.check();
    }
}

/// What worker `me` of one mount does in directories that both mounts share.
fn work(root: &Path, me: u64, until: Instant) -> u64 {
    let mut x = 0x5851_f42d_4c95_7f2d_u64.wrapping_mul(me + 1);
    let mut random = move |below: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 11) % below
    };
    // Others may have removed, replaced or made what an operation needs.
    let expected = |e: &std::io::Error| {
        matches!(
            e.kind(),
            ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::DirectoryNotEmpty
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::StaleNetworkFileHandle
        )
    };
    let mut done = 0;
    while Instant::now() < until {
        let name = |n: u64| root.join(format!("shared{}/{}", n % 3, n / 3));
        let (a, b) = (name(random(90)), name(random(90)));
        let result = match random(10) {
            0..=3 => fs::write(&a, noise(random(1000), random(300_000) as usize)),
            4 => OpenOptions::new()
                .write(true)
                .open(&a)
                .and_then(|f| f.write_all_at(&noise(random(1000), 20_000), random(200_000))),
            5 => fs::remove_file(&a),
            6 => fs::rename(&a, &b),
            7 => fs::hard_link(&a, &b),
            8 => fs::create_dir(root.join(format!("shared{}/dir{}", random(3), random(5)))),
            _ => fs::remove_dir(root.join(format!("shared{}/dir{}", random(3), random(5)))),
        };
        match result {
            Err(e) if !expected(&e) => panic!("worker {me}, {} and {}: {e}", a.display(), b.display()),
            _ => done += 1,
        }
    }
    done
}

#[test]
fn both_clients_work_in_the_same_directories_at_once() {
    let official = official();
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let ours = volume.mount(&["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"]);
    let theirs = official
        .mount(
            &volume.meta,
            &volume.new_path(),
            &["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"],
        )
        .unwrap_or_else(|e| panic!("{e:#}"));
    for n in 0..3 {
        fs::create_dir(ours.join(format!("shared{n}"))).unwrap();
    }
    let until = Instant::now() + SHARED_WORK;
    let done: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|me| {
                let root = if me % 2 == 0 { ours.path() } else { theirs.path() };
                scope.spawn(move || work(root, me, until))
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    println!("operations: {done:?}");
    assert!(done.iter().all(|n| *n > 50), "{done:?}");
    // Removals of files that the other side had open end a little later.
    let agree = || Tree::read(ours.path()) == Tree::read(theirs.path());
    wait_for("both clients to see the same", agree);
    let seen = Tree::read(theirs.path());
    unmount_official(theirs);
    // Files that the other client deleted while they were written are reported.
    ours.unmount_after_errors();
    let ours = volume.mount(&[]);
    assert_same("after both have gone", &seen, &Tree::read(ours.path()));
    wait_for("deleted data to be gone", || volume.used() == walk_usage(ours.path()));
    ours.unmount();
    volume.repair_statistics(&official);
    // It leaves the data of some deleted files to its hourly job.
    volume.check_but_for_pending();
}

/// What [`Volume::check_but_for_pending`] lets pass, and why.
#[test]
fn the_official_client_forgets_the_list_of_a_file_that_it_made_empty() {
    let official = official();
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let theirs = mount_official(&official, &volume);
    let file = theirs.path().join("f");
    fs::write(&file, noise(1, 100_000)).unwrap();
    File::create(&file).unwrap();
    fs::remove_file(&file).unwrap();
    unmount_official(theirs);
    let said = official.gc(&volume.meta, &[]).unwrap_or_else(|e| panic!("{e:#}")).text();
    assert!(said.contains("found leaked chunk "), "{said}");
    volume.check_but_for_pending();
}

#[test]
fn two_of_ours_work_in_the_same_directories_at_once() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let ours = volume.mount(&["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"]);
    let theirs = volume.mount(&["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"]);
    for n in 0..3 {
        fs::create_dir(ours.join(format!("shared{n}"))).unwrap();
    }
    let until = Instant::now() + OWN_WORK;
    let done: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|me| {
                let root = if me % 2 == 0 { ours.path() } else { theirs.path() };
                scope.spawn(move || work(root, me, until))
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    println!("operations: {done:?}");
    assert!(done.iter().all(|n| *n > 50), "{done:?}");
    // Removals of files that the other side had open end a little later.
    let agree = || Tree::read(ours.path()) == Tree::read(theirs.path());
    wait_for("both clients to see the same", agree);
    let seen = Tree::read(theirs.path());
    theirs.unmount_after_errors();
    // Files that the other client deleted while they were written are reported.
    ours.unmount_after_errors();
    let ours = volume.mount(&[]);
    assert_same("after both have gone", &seen, &Tree::read(ours.path()));
    wait_for("deleted data to be gone", || volume.used() == walk_usage(ours.path()));
    ours.unmount();
    volume.check();
}

#[test]
fn a_running_mount_sees_what_the_other_client_writes() {
    let official = official();
    let volume = Volume::new(Engine::Redis, &[]);
    let ours = volume.mount(&[]);
    let theirs = mount_official(&official, &volume);
    for round in 0..20_u64 {
        let (writer, reader) =
            if round % 2 == 0 { (ours.path(), theirs.path()) } else { (theirs.path(), ours.path()) };
        let data = noise(round, 100_000 + (round as usize * 7919) % 50_000);
        fs::write(writer.join("f"), &data).unwrap();
        // Caches of names and attributes live for a second; content must be right as soon as the file is opened.
        wait_for("the new content", || {
            let mut open = File::open(reader.join("f")).unwrap();
            let mut got = Vec::new();
            std::io::Read::read_to_end(&mut open, &mut got).unwrap();
            got == data
        });
    }
    let text =
        run_within(Command::new(official.exe()).args(["status", &volume.meta]), Duration::from_secs(20));
    assert_eq!(text.stdout.matches("\"Sid\"").count(), 2, "both sessions are listed: {}", text.stdout);
    unmount_official(theirs);
    ours.unmount();
    volume.check();
}
