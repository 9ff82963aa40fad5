//! Immutable and append-only nodes, access times, times far away.

use ciderfs_format::attr::flags::{APPEND, HIDDEN, IMMUTABLE, SKIP_TRASH};
use ciderfs_format::{Ino, Time};

use crate::error::Errno;
use crate::ops::rename::EXCHANGE;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::{Caller, OpenFlags, SetAttr, SetTime};
use crate::volume::{AtimeMode, MetaConfig};

async fn flag(c: &Client, ino: Ino, bits: u8) {
    let set = SetAttr { flags: Some(bits), ..SetAttr::default() };
    assert_eq!(c.meta.setattr(&root(), ino, &set).await.unwrap().attr.flags, bits);
}

/// What each flag forbids, operation by operation, as ext4 does; all of it also to the superuser.
pub async fn flags_forbid(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (d, e) = (c.dir(ROOT, "d").await, c.dir(ROOT, "e").await);
    let f = c.file(d, "f").await;
    c.file(e, "g").await;
    let at = Some(SetTime::At(Time { sec: 1, nsec: 1 }));
    let now = Some(SetTime::Now);
    let none = SetAttr::default();
    for bits in [IMMUTABLE, APPEND, IMMUTABLE | APPEND, APPEND | HIDDEN] {
        let append_only = bits & IMMUTABLE == 0;
        flag(&c, f, bits).await;
        let allowed = |set: SetAttr| {
            let c = c.clone();
            async move { c.meta.setattr(&root(), f, &set).await.map(drop).map_err(|e| e.errno()) }
        };
        for set in [
            SetAttr { mode: Some(0o600), ..none },
            SetAttr { uid: Some(1), ..none },
            SetAttr { gid: Some(1), ..none },
            SetAttr { atime: at, ..none },
            SetAttr { mtime: at, ..none },
            SetAttr { atime: now, ..none },
            SetAttr { atime: now, mtime: at, ..none },
        ] {
            assert_eq!(allowed(set).await, Err(Errno::EPERM), "{bits} {set:?}");
        }
        let touch = SetAttr { atime: now, mtime: now, ..none };
        assert_eq!(allowed(touch).await.is_ok(), append_only);
        let open = |how: OpenFlags| {
            let c = c.clone();
            async move {
                let opened = c.meta.open(&root(), f, how).await;
                if opened.is_ok() {
                    c.meta.close(f).await.unwrap();
                }
                opened.map(drop).map_err(|e| e.errno())
            }
        };
        let how = OpenFlags::default();
        open(OpenFlags { read: true, ..how }).await.unwrap();
        assert_eq!(open(OpenFlags { write: true, ..how }).await, Err(Errno::EPERM));
        assert_eq!(open(OpenFlags { read: true, truncate: true, ..how }).await, Err(Errno::EPERM));
        assert_eq!(open(OpenFlags { write: true, append: true, ..how }).await.is_ok(), append_only);
        assert_eq!(c.meta.access(&root(), f, 2).await.is_ok(), append_only);
        c.meta.access(&root(), f, 4).await.unwrap();
        assert_eq!(errno(c.truncate(f, 5).await), Errno::EPERM);
        assert_eq!(errno(c.meta.rename(&root(), d, b"f", e, b"g", EXCHANGE).await), Errno::EPERM);
        assert_eq!(errno(c.meta.rename(&root(), e, b"g", d, b"f", EXCHANGE).await), Errno::EPERM);
        flag(&c, f, 0).await;
        // The directory: nothing is taken out of it or replaced in it.
        flag(&c, d, bits).await;
        assert_eq!(errno(c.rename((e, "g"), (d, "f")).await), Errno::EPERM);
        assert_eq!(errno(c.meta.rename(&root(), e, b"g", d, b"f", EXCHANGE).await), Errno::EPERM);
        assert_eq!(errno(c.rename((d, "f"), (d, "h")).await), Errno::EPERM);
        let came = c.rename((e, "g"), (d, "g")).await;
        assert_eq!(came.is_ok(), append_only);
        let linked = c.link(f, d, "l").await;
        assert_eq!(linked.is_ok(), append_only);
        // What lies in it is as free as before.
        c.chmod(f, 0o640).await;
        flag(&c, d, 0).await;
        if append_only {
            c.rename((d, "g"), (e, "g")).await.unwrap();
            c.unlink(d, "l").await.unwrap();
        }
    }
    w.check().await;
}

/// Who may change them; that they are kept by everything else; that another client learns of them in time.
pub async fn flags_are_changed(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    c.chown(d, 7, 7).await;
    let set = |bits| SetAttr { flags: Some(bits), ..SetAttr::default() };
    for bits in [IMMUTABLE, APPEND] {
        assert_eq!(errno(c.meta.setattr(&user(7, 7), d, &set(bits)).await), Errno::EPERM);
    }
    assert_eq!(errno(c.meta.setattr(&user(8, 8), d, &set(SKIP_TRASH)).await), Errno::EPERM);
    c.meta.setattr(&user(7, 7), d, &set(SKIP_TRASH)).await.unwrap();
    // Where the kernel has checked the capability, the caller may be anybody.
    c.meta.setattr(&Caller::kernel_checked(7, 7, 1), d, &set(IMMUTABLE | SKIP_TRASH)).await.unwrap();
    // A client that believes the old flags finds out.
    let other = w.client().await;
    flag(&c, d, 0).await;
    other.file(d, "f").await;
    flag(&c, d, IMMUTABLE).await;
    assert_eq!(errno(other.make(d, "g", ciderfs_format::FileType::File).await), Errno::EPERM);
    assert_eq!(errno(other.unlink(d, "f").await), Errno::EPERM);
    // Flags advance the ctime, and only that.
    let before = c.stat(d).await;
    flag(&c, d, SKIP_TRASH).await;
    let after = c.stat(d).await;
    assert!(after.ctime > before.ctime);
    assert_eq!((after.mtime, after.mode), (before.mtime, before.mode));
    c.chmod(d, 0o711).await;
    assert_eq!(c.stat(d).await.flags, SKIP_TRASH);
    // Children of such a directory skip the trash.
    let s = c.dir(d, "s").await;
    assert_eq!(c.stat(s).await.flags, SKIP_TRASH);
    c.rmdir(d, "s").await.unwrap();
    assert!(c.gone(s).await);
    w.check().await;
}

/// Access times in each mode, and that they give way to times that are set.
pub async fn access_times(engine: Engine) {
    let w = World::new(engine).await;
    for mode in [AtimeMode::NoAtime, AtimeMode::Relatime, AtimeMode::Strict] {
        let c = w.client_with(MetaConfig { atime_mode: mode, ..World::config() }).await;
        let name = format!("{mode:?}");
        let f = c.file(ROOT, &name).await;
        let mut touched = Vec::new();
        for _ in 0..3 {
            w.clock.advance(10);
            let (now, before) = (c.meta.now(), c.stat(f).await);
            c.meta.touch_atime(f, now).await.unwrap();
            let after = c.stat(f).await;
            assert_eq!((after.mtime, after.ctime), (before.mtime, before.ctime));
            touched.push(after.atime == now);
        }
        let once = [true, false, false];
        let want = match mode {
            AtimeMode::NoAtime => [false; 3],
            AtimeMode::Relatime => once,
            AtimeMode::Strict => [true; 3],
        };
        assert_eq!(touched, want, "{mode:?}");
        // After a day, and after a change.
        w.clock.advance(24 * 3600);
        c.meta.touch_atime(f, c.meta.now()).await.unwrap();
        c.chmod(f, 0o600).await;
        w.clock.advance(10);
        let now = c.meta.now();
        c.meta.touch_atime(f, now).await.unwrap();
        assert_eq!(c.stat(f).await.atime == now, mode != AtimeMode::NoAtime);
        assert_eq!(errno(c.meta.touch_atime(Ino(987_654), now).await), Errno::ENOENT);
    }
    let reader = MetaConfig { read_only: true, atime_mode: AtimeMode::Strict, ..World::config() };
    assert_eq!(w.client_with(reader).await.meta.atime_mode(), AtimeMode::NoAtime);
    w.check().await;
}

/// Times long ago and far ahead, exact to the nanosecond, as another client sees them.
pub async fn far_times(engine: Engine) {
    let w = World::new(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let f = c.file(ROOT, "f").await;
    for sec in [
        0,
        -1,
        1,
        -2,
        i64::from(i32::MIN) - 1,
        i64::from(i32::MAX) + 1,
        i64::from(u32::MAX) + 1,
        -9_223_372_037,
        9_223_372_036,
        9_223_372_037,
        253_402_300_800,
        -62_135_596_801,
        1 << 42,
        -(1 << 42),
    ] {
        for nsec in [0, 1, 999, 1000, 123_456_789, 999_999_999] {
            let (atime, mtime) = (Time { sec, nsec }, Time { sec: sec.wrapping_neg(), nsec });
            let set = SetAttr {
                atime: Some(SetTime::At(atime)),
                mtime: Some(SetTime::At(mtime)),
                ..SetAttr::default()
            };
            c.meta.setattr(&root(), f, &set).await.unwrap();
            let seen = other.stat(f).await;
            assert_eq!((seen.atime, seen.mtime), (atime, mtime));
        }
    }
    w.check().await;
}

/// More links than ext4 allows.
pub async fn very_many_links(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let d = c.dir(ROOT, "d").await;
    // The record is set to just below the limit of other file systems; walking there one by one would only take time.
    let high = crate::store::AttrPatch { nlink: 64_999, ..Default::default() };
    let commit =
        crate::store::Commit { guards: Vec::new(), writes: vec![crate::store::Write::PatchAttr(f, high)] };
    w.store.commit(&commit).await.unwrap();
    for i in 0..3 {
        c.link(f, d, &format!("l{i}")).await.unwrap();
    }
    assert_eq!(c.nlink(f).await, 65_003);
    c.unlink(d, "l0").await.unwrap();
    assert_eq!(c.nlink(f).await, 65_002);
}
