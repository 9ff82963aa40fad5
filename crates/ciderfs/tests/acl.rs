//! POSIX ACLs on real mounts, beside ext4 and beside the official client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use ciderfs_testkit::official::Official;
use support::beside::{Beside, Ext4, Who, shows};
use support::client::{run, sh, succeed};
use support::{Engine, Volume};

on_engines!(command_lines_do_what_they_do_on_ext4, acls_meet_the_official_client, acls_are_turned_on_once);

const ROOT: Who = Who::Root;
/// A user of the command lines.
const U: Who = Who::User(12_345, &[]);
/// Another one.
const V: Who = Who::User(12_346, &[]);
/// One who is in a group that the ACLs name.
const G: Who = Who::User(12_347, &[20_000]);

fn command_lines_do_what_they_do_on_ext4(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0", "--enable-acl"]);
    let mount = volume.mount(&[]);
    let ext4 = Ext4::new();
    let mut both = Beside::new(&ext4, mount.path());
    both.lines(
        ROOT,
        &[
            "umask 022; echo hi > f; mkdir d; ln -s f l; mkfifo p; echo mine > u; chown 12345:12345 u; chmod 640 u",
            "getfacl -n f d p",
            "setfacl -m u:12346:rw f; getfacl -n f",
            "getfattr -n system.posix_acl_access -e hex f; getfattr -d -m - -e hex f",
            "setfacl -m g:20000:r,m::r f; getfacl -n f",
            "chmod 670 f; getfacl -n f",
            "chmod g-w f; getfacl -n f; chmod 4755 f; getfacl -n f",
            "setfacl -x u:12346 f; getfacl -n f",
            "setfacl -m u::rwx,g::rx,o::- f; getfacl -n f",
            "setfacl -b f; getfacl -n f; getfattr -d -m - f",
            "setfacl -b f; setfacl -k f; getfacl -n f",
            "setfacl --set u::rw,g::r,o::-,u:12346:r,g:20000:rw,m::rw f; getfacl -n f",
            "setfacl -n -m u:12347:rwx f; getfacl -n f",
            "setfacl -d -m u:12346:rw f",
            "setfacl -m m::0 f; getfacl -n f; setfacl -m m::rwx f; getfacl -n f",
            "getfacl -n f | setfacl --set-file=- p; getfacl -n p",
            "setfacl -m u:12346:r l; getfacl -n l; setfacl -m u:12346:r nothing",
            "setfattr -n system.posix_acl_access -v nonsense f; getfacl -n f",
            "setfattr -n system.posix_acl_access -v 0x02000000010006000000000004000400000000002000000000000000 f; getfacl -n f",
            "setfattr -n system.posix_acl_access -v 0x0200000002000600ffffffff f",
            "setfattr -n system.posix_acl_default -v 0x0200000002000600ffffffff f",
            "setfattr -x system.posix_acl_access f; getfacl -n f; setfattr -x system.posix_acl_access f; setfattr -x system.posix_acl_default f",
            // Default ACLs.
            "setfacl -d -m u:12346:rwx,g:20000:rx d; getfacl -n d; getfattr -d -m - -e hex d",
            "umask 077; touch d/f; mkdir d/s; getfacl -n d/f d/s",
            "umask 0; mkdir -m 700 d/m; getfacl -n d/m; install -m 640 f d/i; getfacl -n d/i",
            "mkfifo d/p; mknod d/c c 1 3; ln -s x d/l; getfacl -n d/p d/c; stat -c %A d/l",
            "mkdir d/s/t; touch d/s/t/f; acls d/s",
            "setfacl -d -m m::rx d; touch d/masked; mkdir d/smasked; getfacl -n d/masked d/smasked",
            "mkdir e; setfacl -d -m u::rwx,g::r,o::- e; umask 022; touch e/f; mkdir e/s; acls e",
            "setfacl -k d; umask 027; touch d/plain; mkdir d/splain; getfacl -n d d/plain d/splain",
            "mkdir g; chgrp 20000 g; chmod 2770 g; setfacl -d -m g:20000:rwx g; touch g/f; mkdir g/s; acls g",
            "cp -a d d2; acls d2; cp -r d d3; acls d3",
            "setfacl -d -m u:12346:rwx d2; mv f d2/moved; getfacl -n d2/moved; cp d2/moved d2/copied; getfacl -n d2/copied; mv d2/moved f",
            "rsync -aAX d/ d4; acls d4; tar --acls -cf - d | tar --acls -C e -xf -; acls e",
            "setfacl -R -m u:12346:rX d; acls d; setfacl -Rb d; acls d",
            "ln f h; setfacl -m u:12346:rw h; getfacl -n f; rm h; chown 5:6 f; getfacl -n f; chown 0:0 f",
            "python3 -c 'import os; f = os.open(\"d/tmp\", os.O_CREAT | os.O_RDWR, 0o666); os.fchmod(f, 0o600)'; getfacl -n d/tmp",
        ],
    );
    // Who may what.
    both.lines(
        ROOT,
        &[
            "echo text > a; chmod 600 a; setfacl -m u:12345:r,u:12346:rw,g:20000:r a; chmod 755 .",
            "mkdir x; chmod 700 x; echo in > x/in; chmod 644 x/in; setfacl -m u:12346:x,g:20000:rwx x",
            "echo sum > m; chmod 640 m; setfacl -m u:12345:rw,m::r m; echo grp > o; chgrp 20000 o; chmod 604 o; setfacl -m u:12345:-,g:20000:- o",
        ],
    );
    let reads = "cat a; echo more >> a; cat x/in; ls x; touch x/new; rm -f x/new; cat m; echo more >> m; cat o; test -w a; echo $?; test -x x; echo $?";
    for who in [U, V, G] {
        both.line(who, reads);
    }
    both.lines(
        ROOT,
        &[
            "setfacl -m u:12345:rwx,m::rwx a; setfacl -m u:12345:rwx x; chmod g-r m",
            "setfacl -x g:20000 a; chmod o+r a",
        ],
    );
    for who in [U, V, G] {
        both.line(who, reads);
    }
    // Who may set what.
    both.lines(
        U,
        &[
            "setfacl -m u:12346:rw u; getfacl -n u; chmod 2755 u; setfacl -m u:12347:r u; stat -c %A u",
            "setfacl -m u:12346:rw f; setfacl -b a; setfacl -d -m u:12346:rw x; chmod 777 a",
            "chmod 664 u; getfacl -n u; setfattr -x system.posix_acl_access u; getfacl -n u",
        ],
    );
    both.line(ROOT, "chown 12345:20000 u; chmod 2775 u; chmod 777 .");
    both.line(U, "setfacl -m u:12346:rw u; stat -c %A u; mkdir mine; setfacl -d -m u:12346:rwx mine");
    both.line(V, "setfacl -m u:1:r u; touch mine/no; echo x >> u; stat -c %A u");
    both.line(G, "umask 077; cat u; mkdir gs; setfacl -d -m g:20000:rx gs; touch gs/f; acls gs");
    assert!(both.count() >= 50, "{} lines", both.count());
    // All of it is still there for a client that has just been started.
    let want = sh(mount.path(), &listed("."));
    mount.unmount();
    let mount = volume.mount(&["--read-only"]);
    assert_eq!(sh(mount.path(), &listed(".")), want);
    mount.unmount();
    volume.check();
}

fn acls_meet_the_official_client(engine: Engine) {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let dump = |root: &Path| sh(root, &listed("a b 2> /dev/null"));
    for ours_formats in [true, false] {
        let volume = Volume::unformatted(engine);
        let flags = ["--trash-days=0", "--enable-acl"];
        match ours_formats {
            true => volume.format(&flags),
            false => volume.format_official(&official, &flags),
        }
        let ours = volume.mount(&[]);
        let theirs =
            official.mount(&volume.meta, &volume.new_path(), &[]).unwrap_or_else(|e| panic!("{e:#}"));
        let fill = |root: &Path, name: &str, uid: u32| {
            let script = format!(
                "mkdir {name}; cd {name}; umask 022; echo hi > f; setfacl -m u:{uid}:rw,g:20000:r f; mkdir d
                 setfacl -d -m u:{uid}:rwx d; touch d/f; mkdir d/s d/s/t; echo x > d/s/t/f; chmod 640 d/f
                 touch shared; setfacl -m u:77:r,m::rwx shared; touch min; setfacl -m u::rw,g::-,o::r min"
            );
            sh(root, &script);
        };
        fill(ours.path(), "a", 12_345);
        shows("the official client", || dump(theirs.path()), &dump(ours.path()));
        fill(theirs.path(), "b", 12_346);
        let want = dump(theirs.path());
        assert!(want.contains("user:12346:rwx"), "{want}");
        shows("our client", || dump(ours.path()), &want);
        // Each goes on where the other one began.
        for (root, dir) in [(ours.path(), "b"), (theirs.path(), "a")] {
            let script = format!(
                "cd {dir}; umask 077; touch d/again; mkdir d/s/again; chmod 604 f; setfacl -m g:20001:rx d; setfacl -b shared"
            );
            sh(root, &script);
        }
        let want = dump(ours.path());
        shows("the official client", || dump(theirs.path()), &want);
        shows("our client", || dump(ours.path()), &dump(theirs.path()));
        // Both let the same people in.
        sh(ours.path(), "chmod 700 a; setfacl -m u:12345:x a");
        for root in [ours.path(), theirs.path()] {
            let ask = |uid: u32| {
                sh(
                    root,
                    &format!("setpriv --reuid={uid} --regid={uid} --clear-groups cat a/d/s/t/f 2>&1 || true"),
                )
            };
            shows("who is named", || ask(12_345), "x\n");
            shows("who is not", || ask(12_346), "cat: a/d/s/t/f: Permission denied\n");
        }
        std::thread::sleep(std::time::Duration::from_millis(1500));
        theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
        ours.unmount();
        volume.repair_statistics(&official);
        volume.check_official();
    }
}

/// A command line that shows the ACLs of trees.
fn listed(trees: &str) -> String {
    format!("find {trees} ! -type l | sort | getfacl -n -")
}

fn acls_are_turned_on_once(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let setting = |name: &str| {
        let status = succeed(&["status", &volume.meta]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["Setting"][name].clone()
    };
    assert_eq!(setting("MinClientVersion"), "1.1.0-A");
    let mount = volume.mount(&[]);
    let off = "setfacl: f: Operation not supported\n";
    assert_eq!(sh(mount.path(), "touch f; setfacl -m u:1:r f 2>&1 || true"), off);
    succeed(&["config", &volume.meta, "--enable-acl=false"]);
    succeed(&["config", &volume.meta, "--enable-acl"]);
    assert_eq!((setting("EnableACL"), setting("MinClientVersion")), (true.into(), "1.2.0-A".into()));
    // The kernel was told when the mount began.
    assert_eq!(sh(mount.path(), "setfacl -m u:1:r f 2>&1 || true"), off);
    mount.unmount();
    // ACLs need attributes.
    let mount = volume.mount(&["--enable-xattr=false"]);
    let shown = sh(mount.path(), "setfacl -m u:1:r f; getfacl -n f");
    assert!(shown.contains("user:1:r--"), "{shown}");
    let refused = run(&["config", &volume.meta, "--enable-acl=false"]);
    assert!(refused.code != 0 && refused.stderr.contains("ACLs cannot be turned off"), "{refused:?}");
    assert_eq!(setting("EnableACL"), true);
    mount.unmount();
    volume.check();
}
