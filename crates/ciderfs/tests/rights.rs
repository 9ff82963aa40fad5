//! Who may what where the kernel has checked nothing: commands by inode, virtual files, the trash, squashed users.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use support::client::{Ran, program, run, run_within, sh};
use support::{Engine, Volume};

on_engines!(
    closed_directories_stay_closed_to_info,
    virtual_files_have_modes,
    the_trash_shows_no_more_than_the_directories_did,
    a_mount_of_a_directory_tells_nothing_outside_it,
    squashed_users_make_no_devices,
    a_squashed_root_finds_nothing_in_closed_directories,
    nothing_leaves_the_trash_by_a_link,
);

/// Both ways of checking permissions.
const CHECKS: [&[&str]; 2] = [&[], &["--non-default-permission"]];
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";
const ANN: &str = "setpriv --reuid=1000 --regid=1000 --clear-groups";

/// `info` as somebody, in a directory.
fn info(who: &str, dir: &Path, args: &str) -> Ran {
    // Built by root, perhaps where others do not get.
    let copy = dir.ancestors().find(|d| d.join("ciderfs").exists()).expect("the program").join("ciderfs");
    let script = format!("exec {who} {} info --json {args}", copy.display());
    let mut command = std::process::Command::new("sh");
    command.args(["-euc", &script]).current_dir(dir);
    run_within(&mut command, support::client::PATIENCE)
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr))
}

/// A volume beside a program that everybody may run.
fn volume(engine: Engine, flags: &[&str]) -> Volume {
    let volume = Volume::new(engine, flags);
    let copy = volume.dir.path().join("ciderfs");
    fs::copy(program().get_program(), &copy).unwrap();
    sh(volume.dir.path(), "chmod 755 ciderfs");
    volume
}

fn closed_directories_stay_closed_to_info(engine: Engine) {
    let volume = volume(engine, &["--trash-days=0"]);
    for flags in CHECKS {
        let mount = volume.mount(flags);
        sh(
            mount.path(),
            "rm -rf home open; mkdir -m 700 home; mkdir -m 755 open home/inner; echo s > home/inner/secret; chown -R 1000:1000 home
            echo o > open/file; chmod 644 open/file home/inner/secret; mkdir -m 750 team; chown 0:77 team; echo t > team/file",
        );
        let ino = |name: &str| fs::metadata(mount.join(name)).unwrap().ino();
        let (secret, inner, team) = (ino("home/inner/secret"), ino("home/inner"), ino("team/file"));
        for ino in [secret, inner, team, 999_999] {
            let told = json(&info(NOBODY, mount.path(), &format!("-i {ino}")));
            assert_eq!((&told["Failed"], &told["Paths"]), (&true.into(), &serde_json::Value::Null), "{told}");
            assert_eq!(told["Reason"], "no such file or directory");
        }
        for (who, ino, path) in [
            (ANN, secret, "/home/inner/secret"),
            ("", secret, "/home/inner/secret"),
            (NOBODY, ino("open/file"), "/open/file"),
            ("setpriv --reuid=65534 --regid=65534 --groups=5,77", team, "/team/file"),
        ] {
            let told = json(&info(who, mount.path(), &format!("-i {ino}")));
            assert_eq!(told["Paths"], serde_json::json!([path]), "{flags:?} {who}: {told}");
            assert_eq!(told["Summary"]["Length"], 2, "{told}");
        }
        // By path as before, and not counting what lies in closed directories.
        let files =
            |who: &str| json(&info(who, mount.path(), "-r .")).get("Summary").unwrap()["Files"].clone();
        assert_eq!((files(""), files(NOBODY)), (3.into(), 1.into()));
        sh(mount.path(), "rm -r team");
        mount.unmount();
    }
    volume.check();
}

fn virtual_files_have_modes(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let all: [(&[&str], bool); 4] = [
        (&[], true),
        (&["--non-default-permission"], true),
        (&["--root-squash=65534:65534"], false),
        (&["--all-squash=65534:65534"], false),
    ];
    for (flags, root_reads) in all {
        let mount = volume.mount(flags);
        let script = format!(
            "{NOBODY} sh -c 'cat .stats > /dev/null; ! cat .config 2>/dev/null && ! head -c 1 .accesslog 2>/dev/null && ! (echo x > .stats) 2>/dev/null && : <> .control'"
        );
        sh(mount.path(), &script);
        let read = run_within(
            std::process::Command::new("cat").arg(mount.join(".config")),
            support::client::PATIENCE,
        );
        assert_eq!(read.code == 0, root_reads, "{flags:?}: {}", read.stderr);
        let log = std::fs::File::open(mount.join(".accesslog")).map(drop);
        assert_eq!(log.is_ok(), root_reads, "{flags:?}: {log:?}");
        mount.unmount();
    }
    volume.check();
}

fn the_trash_shows_no_more_than_the_directories_did(engine: Engine) {
    let volume = volume(engine, &["--trash-days=1"]);
    let setup = volume.mount(&[]);
    sh(
        setup.path(),
        "mkdir -m 755 open open/gone; mkdir -m 700 home; mkdir -m 755 home/inner
        for f in open/public open/gone/orphan home/closed home/inner/below; do echo $f > $f; chmod 644 $f; done
        mkdir -m 750 team; chown 0:77 team; echo t > team/shared; chmod 644 team/shared
        echo m > home/mine; chown 65534 home/mine; mkdir home/dir
        rm open/public open/gone/orphan home/closed home/inner/below team/shared home/mine; rmdir open/gone home/dir",
    );
    setup.unmount();
    let names = |who: &str, list: &str, at: &Path| -> Vec<String> {
        let said = sh(at, &format!("cd .trash/*; {who} {list} | sed 's/^[0-9]*-[0-9]*-//' | sort"));
        said.lines().map(str::to_owned).collect()
    };
    let everything = ["below", "closed", "dir", "gone", "mine", "orphan", "public", "shared"];
    let member = "setpriv --reuid=65534 --regid=65534 --groups=5,77";
    // With listings that the kernel would keep, names that it would keep, and names that it would miss.
    let keeps: &[&str] =
        &["--readdir-cache", "--entry-cache=1h", "--dir-entry-cache=1h", "--negative-entry-cache=1h"];
    for flags in CHECKS {
        let mount = volume.mount(&[flags, keeps].concat());
        let at = mount.path();
        for list in ["ls -1", "ls -1U --file-type", "find . -mindepth 1 -maxdepth 1 -printf '%f\\n'"] {
            let plain = |names: Vec<String>| -> Vec<String> {
                names.into_iter().map(|n| n.trim_end_matches('/').to_owned()).collect()
            };
            assert_eq!(plain(names(NOBODY, list, at)), ["gone", "mine", "public"], "{flags:?} {list}");
            assert_eq!(plain(names("", list, at)), everything, "{flags:?} {list}");
            assert_eq!(
                plain(names(member, list, at)),
                ["gone", "mine", "public", "shared"],
                "{flags:?} {list}"
            );
            assert_eq!(plain(names(NOBODY, list, at)), ["gone", "mine", "public"], "{flags:?} {list}, again");
        }
        // Root has just read each of them, so the kernel knows the names.
        sh(
            at,
            &format!(
                "cd .trash/*; cat *-closed *-below *-orphan > /dev/null
                for f in *-closed *-below *-orphan *-shared *-dir; do
                    {NOBODY} stat $f 2>/dev/null && exit 1
                    {NOBODY} cat $f 2>/dev/null && exit 2
                    test -e $f
                done
                {NOBODY} cat *-public > /dev/null; {NOBODY} cat *-mine > /dev/null
                {member} cat *-shared > /dev/null"
            ),
        );
        mount.unmount();
    }
    volume.check_official();
}

fn a_mount_of_a_directory_tells_nothing_outside_it(engine: Engine) {
    let volume = volume(engine, &["--trash-days=1"]);
    let whole = volume.mount(&[]);
    sh(
        whole.path(),
        "mkdir -m 755 sub; echo i > sub/in; echo o > out; ln sub/in both; echo g > gone; rm gone",
    );
    let ino = |name: &str| fs::metadata(whole.join(name)).unwrap().ino();
    let (inside, outside, top) = (ino("sub/in"), ino("out"), ino("sub"));
    let gone = sh(whole.path(), "stat -c %i .trash/*/*-gone").trim().to_owned();
    for flags in CHECKS {
        let mount = volume.mount(&[flags, &["--subdir=/sub"]].concat());
        for who in ["", NOBODY] {
            let told = json(&info(who, mount.path(), &format!("-i {inside}")));
            assert_eq!(told["Paths"], serde_json::json!(["/in"]), "{told}");
            for hidden in [outside.to_string(), gone.clone()] {
                let told = json(&info(who, mount.path(), &format!("-i {hidden}")));
                assert_eq!(told["Reason"], "no such file or directory", "{told}");
            }
            assert_eq!(json(&info(who, mount.path(), "."))["Paths"], serde_json::json!(["/"]));
            assert_eq!(
                json(&info(who, mount.path(), &format!("-i {top}")))["Paths"],
                serde_json::json!(["/"])
            );
        }
        mount.unmount();
    }
    whole.unmount();
}

fn squashed_users_make_no_devices(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    for flags in ["--root-squash=1234:1234", "--all-squash=1234:1234"] {
        let mount = volume.mount(&[]);
        sh(mount.path(), "chmod 777 .; mknod null c 1 3; mknod disk b 8 0; rm null disk");
        mount.unmount();
        let mount = volume.mount(&[flags, "-o", "dev"]);
        sh(
            mount.path(),
            "for node in 'c 1 3' 'b 8 0' 'b 0 0' 'c 0 1'; do
                said=$(LC_ALL=C mknod node $node 2>&1) && exit 1
                case $said in *'not permitted'*) ;; *) echo \"$said\"; exit 2;; esac
                test ! -e node
            done
            mkfifo pipe; mknod whiteout c 0 0; rm pipe whiteout",
        );
        mount.unmount();
    }
    volume.check();
}

/// Also what others have just used, whose names the kernel holds.
fn a_squashed_root_finds_nothing_in_closed_directories(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    sh(
        mount.path(),
        "mkdir -m 755 open closed; mkdir -m 755 closed/below
        for f in open closed closed/below; do echo text > $f/file; chmod 644 $f/file; done
        ln -s text closed/link; chown -R 1000:1000 closed; chmod 700 closed",
    );
    mount.unmount();
    let caches = ["--attr-cache=60", "--entry-cache=60", "--dir-entry-cache=60"];
    for check in CHECKS {
        let mount = volume.mount(&[&caches[..], &["--root-squash=1234:1234"], check].concat());
        sh(
            mount.path(),
            &format!(
                "used() {{
                    {ANN} sh -euc 'ls -lR closed; cat closed/file closed/below/file; umask 022
                        mkdir -p closed/new; echo text > closed/new-file; ln closed/file closed/linked' > /dev/null
                }}
                used
                for name in file below/file link linked new new-file nothing; do
                    used 2> /dev/null || true
                    said=$(LC_ALL=C ls -d closed/$name 2>&1) && {{ echo \"$name is shown\"; exit 1; }}
                    case $said in *'Permission denied'*) ;; *) echo \"$said\"; exit 2;; esac
                    ! cat closed/$name > /dev/null 2>&1
                done
                {ANN} cat open/file; cat open/file; {ANN} rm -r closed/new closed/new-file closed/linked"
            ),
        );
        mount.unmount();
    }
    volume.check();
}

fn nothing_leaves_the_trash_by_a_link(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let mount = volume.mount(&[]);
    sh(
        mount.path(),
        &format!(
            "chmod 777 .; umask 0
            {NOBODY} sh -c 'echo mine > one; echo mine > two; ln two two2; rm one two two2'
            ls .trash/* > /dev/null
            refused() {{
                said=$(LC_ALL=C \"$@\" 2>&1) && exit 1
                case $said in *'not permitted'*) ;; *) echo \"$said\"; exit 2;; esac
            }}
            for f in .trash/*/*-one .trash/*/*-two; do
                refused {NOBODY} ln $f out
            done
            for who in '{NOBODY}' ''; do
                for f in .trash/*/*-one .trash/*/*-two; do
                    refused $who setfattr -n user.x -v 1 $f
                    refused $who chmod 600 $f
                done
            done"
        ),
    );
    // A file without a name gets one, by its descriptor.
    let python = "import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(fd, b'named')
os.link('/proc/self/fd/%d' % fd, 'named', src_dir_fd=fd, follow_symlinks=True)
fd = os.open('held', os.O_CREAT | os.O_RDWR, 0o600)
os.unlink('held')
try: os.link('/proc/self/fd/%d' % fd, 'back', src_dir_fd=fd, follow_symlinks=True)
except FileNotFoundError: print('ENOENT')
os.setxattr(fd, 'user.x', b'1')
print(os.getxattr(fd, 'user.x'))";
    fs::write(volume.dir.path().join("link.py"), python).unwrap();
    let said = sh(mount.path(), "python3 ../link.py; cat named");
    assert_eq!(said, "ENOENT\nb'1'\nnamed");
    mount.unmount();
    volume.check_official();
}

#[test]
fn numbers_that_do_not_fit_are_refused_before_anything_else() {
    for (line, says) in [
        ("mount --buffer-size 99999999999999999999 M P", "--buffer-size"),
        ("mount --buffer-size=16E M P", "--buffer-size"),
        ("mount --metrics=127.0.0.1:65536 M P", "--metrics"),
        ("mount --heartbeat=2d M P", "--heartbeat"),
        ("mount --free-space-ratio=nan M P", "--free-space-ratio"),
        ("format --trash-days -1 M vol", "--trash-days"),
        ("format --capacity=1e30 M vol", "--capacity"),
        ("format --shards=257 M vol", "--shards"),
        ("quota set M --uid 4294967296 --capacity 1", "--uid"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = run(&words);
        assert!(
            ran.code == 1 && ran.stderr.contains(&format!("for flag {says}: use ")),
            "{line}: {}",
            ran.stderr
        );
    }
}
