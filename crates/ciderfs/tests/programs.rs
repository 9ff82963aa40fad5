//! Programs that people run on a file system, on real mounts: fio, git, tar, rsync, SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::client::{run_within, sh};
use support::tree::Tree;
use support::{Engine, Volume, assert_same, noise};

on_engines!(
    fio_verifies_what_it_wrote,
    git_clones_and_checks,
    archives_and_copies_are_exact,
    sqlite_with_three_writers
);

/// How long a program may run on a slow machine.
const LONG: Duration = Duration::from_secs(300);

fn fio_verifies_what_it_wrote(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&["--buffer-size=64"]);
    let common = "--ioengine=psync --verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1 --group_reporting --minimal";
    for (name, job) in [
        ("seq", "--rw=write --bs=1m --size=24m --numjobs=4"),
        ("rand", "--rw=randwrite --bs=4k --size=4m --numjobs=4 --fsync=64"),
        ("mixed", "--rw=randrw --bs=16k --size=8m --numjobs=4"),
        ("odd", "--rw=randwrite --bsrange=512-70k --bs_unaligned=1 --size=8m --norandommap=0"),
        ("direct", "--rw=randwrite --bs=4k --size=2m --numjobs=4 --direct=1"),
        ("mmap", "--rw=randwrite --bs=4k --size=8m --ioengine=mmap"),
    ] {
        let script = format!(
            "fio --name={name} --directory=. {common} {job} > ../fio.{name} 2>&1 || {{ cat ../fio.{name}; exit 1; }}"
        );
        let ran = run_within(Command::new("sh").args(["-euc", &script]).current_dir(mount.path()), LONG);
        assert_eq!(ran.code, 0, "{job}\n{}{}", ran.stdout, ran.stderr);
    }
    // Once more from the object store.
    mount.unmount();
    let mount = volume.mount(&["--read-only"]);
    let script = "fio --name=seq --directory=. --ioengine=psync --rw=read --bs=1m --size=24m --numjobs=4 --verify=crc32c --verify_fatal=1 --minimal";
    let ran = run_within(Command::new("sh").args(["-euc", script]).current_dir(mount.path()), LONG);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    mount.unmount();
    volume.check();
}

fn git_clones_and_checks(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let origin = volume.dir.path().join("origin");
    fs::create_dir(&origin).unwrap();
    let git = "git -c user.name=a -c user.email=a@example.org -c init.defaultBranch=main -c gc.auto=0 -c protocol.file.allow=always";
    sh(&origin, &format!("{git} init -q ."));
    for commit in 0..8_u64 {
        for n in 0..40_u64 {
            let dir = origin.join(format!("d{}", n % 7));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("f{n}")), noise(commit * 100 + n, 100 + n as usize * 97)).unwrap();
        }
        sh(&origin, &format!("{git} add -A; {git} commit -q -m {commit}"));
    }
    let mount = volume.mount(&[]);
    let from = origin.display();
    sh(
        mount.path(),
        &format!("{git} clone -q --no-hardlinks {from} copy; cd copy; {git} fsck --full --strict"),
    );
    sh(
        &mount.join("copy"),
        &format!(
            "{git} checkout -q -b side HEAD~3; echo x > new; {git} add new; {git} commit -q -m side; \
             {git} checkout -q main; {git} merge -q -m merge side; {git} gc -q --prune=now; {git} fsck --full --strict; \
             test -z \"$({git} status --porcelain)\""
        ),
    );
    mount.unmount();
    let mount = volume.mount(&[]);
    sh(&mount.join("copy"), &format!("{git} fsck --full --strict; test -z \"$({git} status --porcelain)\""));
    mount.unmount();
    volume.check();
}

fn archives_and_copies_are_exact(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let source = volume.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    sh(
        &source,
        "mkdir -p a/b/c; ln -s ../x a/l; mkfifo a/p; mkdir -m 1777 a/tmp; touch -d '1999-12-31 23:59:58.125' a/old",
    );
    for n in 0..300_u64 {
        fs::write(source.join(format!("a/b/c/f{n}")), noise(n, (n * n) as usize % 30_000)).unwrap();
    }
    fs::write(source.join("big"), noise(9, 11 << 20)).unwrap();
    fs::hard_link(source.join("big"), source.join("a/again")).unwrap();
    let want = Tree::read(&source).without_inodes();
    let mount = volume.mount(&[]);
    let from = source.display();
    sh(
        mount.path(),
        &format!("mkdir untar copied; tar --format=posix -C {from} -cf - . | tar -C untar -xpf -"),
    );
    sh(
        mount.path(),
        &format!("rsync -aH {from}/ copied/; test -z \"$(rsync -aHnci --delete {from}/ copied/)\""),
    );
    assert_same("untar", &want, &Tree::read(&mount.join("untar")).without_inodes());
    assert_same("rsync", &want, &Tree::read(&mount.join("copied")).without_inodes());
    mount.unmount();
    let mount = volume.mount(&[]);
    assert_same("after a remount", &want, &Tree::read(&mount.join("untar")).without_inodes());
    sh(
        mount.path(),
        "tar --format=posix -C untar -cf ../out.tar .; mkdir ../out; tar -C ../out -xpf ../out.tar; rm -r untar",
    );
    assert_same("and back", &want, &Tree::read(&volume.dir.path().join("out")).without_inodes());
    mount.unmount();
    volume.check();
}

fn sqlite_with_three_writers(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    // Locks within one mount are the kernel's. The rollback journal: write-ahead logs need shared memory between hosts.
    let script = "
        sqlite3 db 'pragma journal_mode=delete; create table t(w int, n int, x blob);' > /dev/null
        for w in 1 2 3; do
            ( for n in $(seq 25); do
                sqlite3 -cmd '.timeout 60000' db \"begin immediate; insert into t values($w, $n, randomblob(3000)); update t set x = randomblob(100) where w = $w and n = $n - 1; commit;\"
              done ) &
            pids=\"${pids:-} $!\"
        done
        for p in $pids; do wait $p; done
        sqlite3 db 'select count(*), count(distinct w * 100 + n) from t; pragma integrity_check;'";
    let ran = run_within(Command::new("sh").args(["-euc", script]).current_dir(mount.path()), LONG);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "75|75\nok"), "{}", ran.stderr);
    mount.unmount();
    let mount = volume.mount(&[]);
    assert_eq!(
        sh(mount.path(), "sqlite3 db 'pragma integrity_check; select count(*) from t'").trim(),
        "ok\n75"
    );
    mount.unmount();
    volume.check();
}
