//! Extended attributes on real mounts, beside ext4 and beside the official client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciderfs_testkit::official::Official;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use support::beside::{Beside, Ext4, Who, shows};
use support::client::sh;
use support::{Engine, Volume};

on_engines!(
    command_lines_do_what_they_do_on_ext4,
    capabilities_go_when_the_content_or_owner_changes,
    an_unlinked_file_keeps_its_attributes_until_it_is_closed,
    values_and_lists_of_any_size,
    attributes_meet_the_official_client,
);

/// A user of the command lines.
const U: Who = Who::User(12_345, &[]);
const ROOT: Who = Who::Root;

fn command_lines_do_what_they_do_on_ext4(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let ext4 = Ext4::new();
    let mut both = Beside::new(&ext4, mount.path());
    both.lines(
        ROOT,
        &[
            "umask 022; echo hi > f; mkdir d s; chmod 1777 s; ln -s f l; ln -s nowhere dangling; mkfifo p; mknod c c 1 3",
            "echo mine > u; chown 12345:12345 u; chmod 644 u; echo secret > r; chmod 600 r",
            // Setting, reading, listing.
            "setfattr -n user.a -v 1 f",
            "getfattr -d f",
            "getfattr -n user.a f",
            "getfattr -n user.a --only-values f",
            "getfattr -d -e hex f; getfattr -d -e base64 f",
            "setfattr -n user.a -v 22 f; getfattr -n user.a f",
            "setfattr -n user.empty f; getfattr -n user.empty f",
            "setfattr -n user.bin -v 0x00ff0a f; getfattr -n user.bin -e hex f",
            "getfattr -d -m - f | sort",
            "getfattr -n user.none f",
            "setfattr -x user.none f",
            "setfattr -x user.empty f; getfattr -d f | sort",
            "setfattr -n user.d -v dir d; getfattr -d d",
            // Namespaces.
            "setfattr -n trusted.a -v t f; getfattr -n trusted.a f; getfattr -d -m - f | sort",
            "setfattr -n security.any -v s f; getfattr -n security.any f",
            "setfattr -n nothing -v 1 f",
            "setfattr -n user -v 1 f",
            "setfattr -n user. -v 1 f; getfattr -n user. f; setfattr -x user. f",
            "setfattr -n trusted. -v 1 f; setfattr -n security. -v 1 f",
            "setfattr -n os2.a -v 1 f; getfattr -n os2.a f; setfattr -x os2.a f",
            "setfattr -n system.any -v 1 f; getfattr -n system.any f; setfattr -x system.any f",
            // What is no file and no directory.
            "setfattr -h -n user.a -v 1 l; setfattr -h -n trusted.a -v 1 l; getfattr -h -d -m - l",
            "setfattr -n user.l -v 1 l; getfattr -d f | sort; setfattr -n user.a -v 1 dangling",
            "setfattr -h -n security.a -v 1 dangling; getfattr -h -d -m - dangling",
            "setfattr -n user.a -v 1 p; setfattr -n trusted.a -v 1 p; getfattr -d -m - p",
            "setfattr -n user.a -v 1 c; getfattr -n user.a c",
            // Names and copies.
            "n=$(printf n%.0s $(seq 250)); setfattr -n user.$n -v long d; getfattr -d d | sort",
            "n=$(printf n%.0s $(seq 251)); setfattr -n user.$n -v long d; getfattr -n user.$n d",
            "cp -a f copy; getfattr -d -m - copy | sort; cp f plain; getfattr -d -m - plain",
            "mkdir t; tar --xattrs --xattrs-include='*' -cf - f d | tar --xattrs --xattrs-include='*' -C t -xf -; getfattr -d -m - t/f t/d | sort",
            "rsync -aX f d copies/; getfattr -d -m - copies/f copies/d | sort",
            "mv f g; ln g h; rm g; getfattr -d -m - h | sort; mv h f",
            "setfattr -n user.e -v 1 d/none; getfattr -d d/none",
        ],
    );
    both.lines(
        U,
        &[
            "setfattr -n user.a -v mine u; getfattr -d u; setfattr -x user.a u; getfattr -d u",
            "setfattr -n user.a -v 1 f; getfattr -n user.a f",
            "getfattr -d -m - f | sort",
            "getfattr -n trusted.a f; setfattr -n trusted.a -v 1 u; setfattr -x trusted.a f",
            "getfattr -n security.any f; setfattr -n security.any -v 1 u; setfattr -x security.any f",
            "setfattr -n user.a -v 1 r; getfattr -n user.a r; getfattr -d r",
            "setfattr -n user.a -v 1 s; getfattr -n user.a s",
            "mkdir s/own; chmod 1777 s/own; setfattr -n user.a -v 1 s/own; getfattr -d s/own",
            "chmod 444 u; setfattr -n user.a -v 1 u; getfattr -d u; chmod 644 u",
            "chmod 200 u; setfattr -n user.a -v 2 u; getfattr -d u; chmod 644 u; getfattr -d u",
        ],
    );
    // ACLs are off: nobody hears of them, and the kernel does not apply any.
    let acl =
        rustix::fs::setxattr(mount.join("f"), "system.posix_acl_access", b"\x02\0\0\0", XattrFlags::empty());
    assert_eq!(acl, Err(Errno::OPNOTSUPP));
    let mut room = [0; 10];
    let acl = rustix::fs::getxattr(mount.join("f"), "system.posix_acl_default", &mut room[..]);
    assert_eq!(acl, Err(Errno::OPNOTSUPP));
    assert!(both.count() >= 45, "{} lines", both.count());
    mount.unmount();
    // Turned off, as it is in the official client unless asked for.
    let mount = volume.mount(&["--enable-xattr=false"]);
    for _ in 0..2 {
        let set = rustix::fs::setxattr(mount.join("f"), "user.a", b"1", XattrFlags::empty());
        assert_eq!(set, Err(Errno::OPNOTSUPP));
    }
    mount.unmount();
    let mount = volume.mount(&["--enable-xattr", "--enable-cap=false", "--enable-selinux=false"]);
    let set = rustix::fs::setxattr(mount.join("f"), "security.selinux", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::OPNOTSUPP));
    let said = sh(mount.path(), "setcap cap_net_raw+ep f 2>&1 || getcap f");
    assert!(said.contains("not supported"), "{said}");
    for (name, answer) in [("security.capability", Errno::NODATA), ("security.selinux", Errno::OPNOTSUPP)] {
        assert_eq!(rustix::fs::getxattr(mount.join("f"), name, &mut room[..]), Err(answer), "{name}");
    }
    mount.unmount();
    volume.check();
}

fn capabilities_go_when_the_content_or_owner_changes(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&["--enable-cap"]);
    let ext4 = Ext4::new();
    let mut both = Beside::new(&ext4, mount.path());
    let set = "setcap cap_net_raw+ep t && getcap t; ";
    both.line(ROOT, "cp /bin/true t; chown 12345:12345 t; chmod 4755 t");
    for change in [
        "echo more >> t",
        "printf x | dd of=t conv=notrunc status=none",
        "dd if=/dev/zero of=t bs=4096 count=2 oflag=direct conv=notrunc status=none",
        "truncate -s 5000 t",
        "truncate -s 5000 t",
        ": > t",
        "cat /bin/true > t",
        "chown 12345 t",
        "chgrp 12346 t",
        "chown 12345:12345 t",
        "chmod 755 t",
        "touch t",
        "fallocate -l 100000 t 2> /dev/null || truncate -s 100000 t",
        "setcap -r t",
        "setcap -r t",
        "cp t t2; getcap t2; cp -a t t3; getcap t3; mv t3 t; getcap t",
        "setcap cap_chown=i t",
        "setcap -v cap_net_raw=ep t",
    ] {
        both.line(ROOT, &format!("{set}{change}; getcap t; stat -c %A t"));
        if !change.starts_with("fallocate") && change != ": > t" {
            both.line(U, "echo mine >> t; getcap t; stat -c %A t");
        }
    }
    both.line(U, "setcap cap_net_raw+ep t; getcap t");
    both.line(ROOT, &format!("{set} python3 -c 'import os; f = os.open(\"t\", os.O_RDWR); os.pwrite(f, b\"x\", 9); os.system(\"getcap t\"); os.setxattr(\"t\", \"user.a\", b\"1\"); os.pwrite(f, b\"x\", 9)'; getcap t"));
    // Set through one descriptor while another one writes.
    both.line(
        ROOT,
        "python3 -c '
import os
f = os.open(\"t\", os.O_WRONLY)
for i in range(3):
    os.pwrite(f, b\"x\", i)
    os.system(\"setcap cap_net_raw+ep t; getcap t\")
os.pwrite(f, b\"x\", 5)
os.close(f)
'; getcap t",
    );
    mount.unmount();
    volume.check();
}

fn an_unlinked_file_keeps_its_attributes_until_it_is_closed(engine: Engine) {
    for flags in [&["--trash-days=0"], &["--trash-days=1"]] {
        let volume = Volume::new(engine, flags);
        let mount = volume.mount(&[]);
        let file = File::create(mount.join("f")).unwrap();
        (&file).write_all(b"content").unwrap();
        rustix::fs::fsetxattr(&file, "user.a", b"1", XattrFlags::CREATE).unwrap();
        fs::remove_file(mount.join("f")).unwrap();
        let mut room = [0; 100];
        let get = |name: &str, room: &mut [u8]| rustix::fs::fgetxattr(&file, name, room);
        assert_eq!(get("user.a", &mut room), Ok(1));
        rustix::fs::fsetxattr(&file, "user.b", b"22", XattrFlags::CREATE).unwrap();
        assert_eq!(get("user.b", &mut room), Ok(2));
        rustix::fs::fremovexattr(&file, "user.a").unwrap();
        let n = rustix::fs::flistxattr(&file, &mut room[..]).unwrap();
        assert_eq!(&room[..n], b"user.b\0");
        assert_eq!(get("user.a", &mut room), Err(Errno::NODATA));
        drop(file);
        mount.unmount();
        volume.check();
    }
}

fn values_and_lists_of_any_size(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let path = mount.join("f");
    fs::write(&path, b"x").unwrap();
    let value = support::noise(3, 65_536);
    let set = |name: &str, value: &[u8], how| rustix::fs::setxattr(&path, name, value, how);
    set("user.big", &value, XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.big", &value, XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.other", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(set("user.other", &[0; 65_537], XattrFlags::empty()), Err(Errno::TOOBIG));
    let mut room = vec![0; 65_536];
    assert_eq!(rustix::fs::getxattr(&path, "user.big", &mut room[..65_535]), Err(Errno::RANGE));
    assert_eq!(rustix::fs::getxattr(&path, "user.big", &mut room[..]), Ok(65_536));
    assert_eq!(room, value);
    // Tools ask for the size first.
    assert_eq!(sh(mount.path(), "getfattr --only-values -n user.big f | wc -c").trim(), "65536");
    // A list that nearly fills what the kernel takes.
    let names: Vec<String> = (0..240).map(|i| format!("user.{i:03}.{}", "n".repeat(246))).collect();
    for name in &names {
        set(name, b"", XattrFlags::CREATE).unwrap();
    }
    let size = names.iter().map(|n| n.len() + 1).sum::<usize>() + "user.big\0".len();
    assert_eq!(rustix::fs::listxattr(&path, &mut room[..size - 1]), Err(Errno::RANGE));
    assert_eq!(rustix::fs::listxattr(&path, &mut room[..]), Ok(size));
    let listed: Vec<&[u8]> = room[..size - 1].split(|b| *b == 0).collect();
    assert_eq!(listed.len(), names.len() + 1);
    assert_eq!(sh(mount.path(), "getfattr f | grep -c ^user").trim(), "241");
    fs::remove_file(&path).unwrap();
    mount.unmount();
    volume.check();
}

/// Everything that `getfattr` says of a tree.
fn dump(root: &Path) -> String {
    sh(root, "find . -mindepth 1 ! -path './.*' -exec getfattr -h -d -m - -e hex {} + | sort")
}

fn attributes_meet_the_official_client(engine: Engine) {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let flags = ["--enable-xattr", "--enable-cap", "--enable-selinux"];
    let ours = volume.mount(&["--enable-selinux"]);
    let theirs = official.mount(&volume.meta, &volume.new_path(), &flags).unwrap_or_else(|e| panic!("{e:#}"));
    let fill = |root: &Path, name: &str| {
        let script = format!(
            "mkdir {name}; cd {name}; echo hi > f; mkdir d; ln -s f l; mkfifo p; cp /bin/true t
             setfattr -n user.a -v 1 f; setfattr -n user.empty f; setfattr -n user.bin -v 0x00ff0a d
             setfattr -n trusted.x -v y f; setfattr -h -n trusted.x -v y l; setfattr -n security.x -v y p
             setfattr -n security.selinux -v label f; setcap cap_net_raw+ep t
             python3 -c 'import os; os.setxattr(b\"f\", b\"user.\\xff\\xfe\", b\"raw\"); os.setxattr(\"d\", \"user.big\", b\"v\" * 60000)'
             setfattr -n user.gone -v 1 f; setfattr -x user.gone f"
        );
        sh(root, &script);
    };
    fill(ours.path(), "ours");
    fill(theirs.path(), "theirs");
    let want = dump(ours.path());
    assert!(want.lines().count() > 30, "{want}");
    shows("the official client", || dump(theirs.path()), &want);
    // Each changes what the other one set.
    let change = "cd $0; setfattr -n user.a -v changed f; setfattr -x user.empty f; setfattr -n user.new -v 1 d; setcap -r t";
    for (root, dir) in [(ours.path(), "theirs"), (theirs.path(), "ours")] {
        sh(root, &change.replace("$0", dir));
    }
    let want = dump(theirs.path());
    assert!(want.contains("user.new") && !want.contains("user.empty"), "{want}");
    shows("our client", || dump(ours.path()), &want);
    // A capability that the other client set goes with the next write here.
    sh(theirs.path(), "cd ours; setcap cap_net_raw+ep t; getcap t");
    shows("a capability", || sh(ours.path(), "getcap ours/t"), "ours/t cap_net_raw=ep\n");
    sh(ours.path(), "echo more >> ours/t; getcap ours/t");
    shows("no capability", || sh(theirs.path(), "getcap ours/t"), "");
    for dir in ["ours", "theirs"] {
        sh(ours.path(), &format!("rm -r {dir}"));
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    ours.unmount();
    volume.repair_statistics(&official);
    volume.check_official();
}

/// Turns to the metadata engine so far, as the mount counts them.
fn turns(mount: &Path) -> u64 {
    let stats = fs::read_to_string(mount.join(".stats")).unwrap();
    let line = stats.lines().find(|l| l.contains("meta_turns_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

/// What `ls -l` asks of each entry is known from the listing or refused once for all.
#[test]
fn a_long_listing_takes_few_turns() {
    const ENTRIES: u64 = 5000;
    for engine in [Engine::Redis, Engine::Sqlite] {
        let volume = Volume::new(engine, &["--trash-days=1"]);
        // Neither heartbeats in between, nor the kernel's knowledge of an earlier mount.
        let flags = ["--heartbeat=1h", "--no-bgjob", "--enable-selinux=false"];
        let mount = volume.mount(&flags);
        fs::create_dir(mount.join("d")).unwrap();
        for n in 0..ENTRIES {
            fs::write(mount.join(format!("d/{n}")), if n % 100 == 0 { "data" } else { "" }).unwrap();
        }
        mount.unmount();
        // A reader that is kept from its work for a second gets smaller pages: that must not count.
        let cold = || {
            let mount = volume.mount(&flags);
            let before = turns(mount.path());
            let listed = sh(mount.path(), "ls -l d | wc -l");
            assert_eq!(listed.trim(), (ENTRIES + 1).to_string());
            let took = turns(mount.path()) - before;
            mount.unmount();
            took
        };
        let least = (0..3).map(|_| cold()).min().unwrap();
        assert!(least <= ENTRIES / 2000 + 3, "{engine:?}: {least} turns");
    }
}

/// The kernel asks for `security.capability` before it writes; that must not cost anything.
#[test]
fn writing_takes_no_more_turns_than_without_attributes() {
    let count = |flags: &[&str]| {
        let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
        // No heartbeat in between, and attributes that do not expire.
        let all = [flags, &["--heartbeat=1h", "--no-bgjob", "--attr-cache=1h", "--entry-cache=1h"]].concat();
        let mount = volume.mount(&all);
        // The least of several: numbers are sometimes reserved in the background.
        let step = |work: &dyn Fn(&Path)| {
            let once = |i| {
                let before = turns(mount.path());
                work(&mount.join(format!("file{i}")));
                turns(mount.path()) - before
            };
            (0..6).map(once).min().unwrap()
        };
        let create = step(&|file| fs::write(file, vec![1; 100_000]).unwrap());
        let overwrite = step(&|file| fs::write(file, vec![1; 200_000]).unwrap());
        let append = step(&|file| {
            let mut f = OpenOptions::new().append(true).open(file).unwrap();
            for _ in 0..10 {
                f.write_all(b"more").unwrap();
            }
        });
        let update = step(&|file| {
            let f = OpenOptions::new().write(true).open(file).unwrap();
            f.write_at(b"x", 9).unwrap();
            f.set_len(1000).unwrap();
            f.write_at(b"x", 999).unwrap();
        });
        mount.unmount();
        [create, overwrite, append, update]
    };
    let (with, without) = (count(&[]), count(&["--enable-xattr=false"]));
    assert_eq!(with, without, "create, overwrite, append, update");
    eprintln!("turns to create, overwrite, append, update: {with:?}");
}

/// Tools ask about the attributes of everything that they list.
#[test]
fn listing_takes_few_more_turns_than_without_attributes() {
    const FILES: u64 = 300;
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    sh(
        mount.path(),
        &format!("mkdir d; cd d; for i in $(seq {FILES}); do : > f$i; done; setfattr -n user.a -v 1 f7"),
    );
    mount.unmount();
    let count = |flags: &[&str], work: &str| {
        let all = [flags, &["--heartbeat=1h", "--no-bgjob", "--attr-cache=1h", "--entry-cache=1h"]].concat();
        let mount = volume.mount(&all);
        let before = turns(mount.path());
        let said = sh(mount.path(), work);
        let turns = turns(mount.path()) - before;
        mount.unmount();
        (turns, said)
    };
    let off = "--enable-xattr=false";
    for (work, own) in
        [("ls -l --color=always d", 0), ("getfattr -d d/* | grep -c user", 0), ("chown -R 5:6 d", FILES)]
    {
        let (with, _) = count(&[], work);
        let (without, _) = count(&[off], &format!("{work} || true"));
        eprintln!("{work}: {with} turns, {without} without attributes");
        assert!(with <= without + 20, "{work}: {with} turns, {without} without attributes");
        assert!(with <= own + 30, "{work}: {with} turns");
    }
    assert_eq!(count(&[], "getfattr -d d/* | grep user").1, "user.a=\"1\"\n");
    volume.check_official();
}
