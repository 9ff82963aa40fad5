//! Quotas of directories, users and groups.

use ciderfs_format::quota::Quota;
use ciderfs_format::{FileType, Ino, SessionId, align4k};

use crate::error::Errno;
use crate::ops::rename::EXCHANGE;
use crate::store::{Commit, DirStat, QuotaKey, Read, Value, Write};
use crate::suite::Engine;
use crate::suite::flaky::When;
use crate::suite::world::*;
use crate::{Allocate, MetaConfig, OpenFlags, SetAttr};

const KIB: i64 = 1 << 10;

async fn used(w: &World, key: QuotaKey) -> (i64, i64) {
    match w.store.read(&[Read::Quota(key)]).await.unwrap().remove(0) {
        Value::Quota(Some(q)) => (q.used_space, q.used_inodes),
        other => panic!("{key:?}: {other:?}"),
    }
}

/// Every operation that takes something under a directory's quota is refused beyond it, and nothing that gives.
pub async fn directory_quota(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (q, out) = (c.dir(ROOT, "q").await, c.dir(ROOT, "out").await);
    let sub = c.dir(q, "sub").await;
    let f = c.file(sub, "f").await;
    c.put(f, 0, 0, 5000).await;
    let key = QuotaKey::Dir(q);
    let set = c.meta.set_quota(key, Some(64 * KIB), Some(5)).await.unwrap();
    assert_eq!((set.used_space, set.used_inodes), (3 * 4096, 2), "a new quota knows what is there");
    w.check().await;
    // Space: write, truncate, fallocate, a copy.
    let slice = c.fresh(5000, 60_000).await;
    assert_eq!(errno(c.append(f, 0, vec![slice]).await), Errno::EDQUOT);
    assert_eq!(errno(c.truncate(f, 100_000).await), Errno::EDQUOT);
    for how in [Allocate::Grow, Allocate::Reserve] {
        assert_eq!(errno(c.meta.fallocate(&root(), f, how, 0, 100_000).await), Errno::EDQUOT);
    }
    // Inodes: create of every kind, link, rename into it.
    let g = c.file(q, "g").await;
    let h = c.file(q, "h").await;
    c.dir(sub, "d").await;
    for kind in [FileType::File, FileType::Directory, FileType::Symlink, FileType::Fifo] {
        assert_eq!(errno(c.make(sub, "more", kind).await), Errno::EDQUOT, "{kind:?}");
    }
    assert_eq!(errno(c.link(g, sub, "more").await), Errno::EDQUOT);
    let o = c.file(out, "o").await;
    assert_eq!(errno(c.rename((out, "o"), (sub, "more")).await), Errno::EDQUOT);
    assert_eq!(errno(c.link(o, q, "more").await), Errno::EDQUOT);
    w.check().await;
    // What adds nothing is free: moves within, replacing, overwriting, shrinking, removing.
    c.rename((q, "g"), (sub, "g2")).await.unwrap();
    c.rename((out, "o"), (q, "h")).await.unwrap();
    assert!(c.gone(h).await);
    c.put(f, 0, 0, 5000).await;
    c.truncate(f, 10).await.unwrap();
    c.unlink(q, "h").await.unwrap();
    c.file(q, "again").await;
    w.check().await;
    assert_eq!(used(&w, key).await, (5 * 4096, 5));
    // The directory itself is not counted, and takes its quota along.
    for (dir, name) in [(q, "again"), (sub, "g2"), (sub, "f")] {
        c.unlink(dir, name).await.unwrap();
    }
    c.rmdir(sub, "d").await.unwrap();
    c.rmdir(q, "sub").await.unwrap();
    assert_eq!(used(&w, key).await, (0, 0));
    c.rmdir(ROOT, "q").await.unwrap();
    assert_eq!(c.meta.quota(key).await.unwrap(), None);
    w.check().await;
}

/// Quotas within quotas are all charged and all bind; a moved tree changes them as a whole.
pub async fn nested_quotas(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    let inner = c.dir(a, "inner").await;
    for (dir, inodes) in [(ROOT, 100), (a, 10), (inner, 20), (b, 4)] {
        c.meta.set_quota(QuotaKey::Dir(dir), None, Some(inodes)).await.unwrap();
    }
    let t = c.dir(inner, "t").await;
    let u = c.dir(t, "u").await;
    for i in 0..3 {
        let f = c.file(u, &format!("f{i}")).await;
        c.put(f, 0, 0, 10_000 * (i + 1)).await;
    }
    w.check().await;
    let tree = (2 * 4096 + (12 + 20 + 32) * KIB, 5);
    assert_eq!(used(&w, QuotaKey::Dir(inner)).await, tree);
    assert_eq!(used(&w, QuotaKey::Dir(a)).await, (tree.0 + 4096, 6));
    // Into another quota: too much, then moved.
    assert_eq!(errno(c.rename((inner, "t"), (b, "t")).await), Errno::EDQUOT);
    c.meta.set_quota(QuotaKey::Dir(b), None, Some(5)).await.unwrap();
    c.rename((inner, "t"), (b, "t")).await.unwrap();
    assert_eq!(used(&w, QuotaKey::Dir(inner)).await, (0, 0));
    assert_eq!(used(&w, QuotaKey::Dir(b)).await, tree);
    w.check().await;
    // Exchange: each takes its tree along.
    let x = c.dir(inner, "x").await;
    c.file(x, "one").await;
    c.meta.rename(&root(), inner, b"x", b, b"t", EXCHANGE).await.unwrap();
    assert_eq!(used(&w, QuotaKey::Dir(inner)).await, tree);
    assert_eq!(used(&w, QuotaKey::Dir(b)).await, (2 * 4096, 2));
    w.check().await;
    // A quota in the tree that moves goes with it, and the tree counts for those above it.
    c.meta.set_quota(QuotaKey::Dir(u), None, None).await.unwrap();
    c.rename((inner, "x"), (ROOT, "t")).await.unwrap();
    assert_eq!(used(&w, QuotaKey::Dir(u)).await.1, 3);
    assert_eq!(used(&w, QuotaKey::Dir(a)).await, (4096, 1));
    w.check().await;
    // Without usage records the tree is walked.
    for dir in [t, u] {
        w.store
            .commit(&Commit { guards: Vec::new(), writes: vec![Write::PutDirStat(dir, DirStat::default())] })
            .await
            .unwrap();
    }
    let checked = c.meta.check_quota(Some(QuotaKey::Dir(ROOT)), true, false).await.unwrap();
    assert!(checked[0].is_consistent(), "{checked:?}");
}

/// Two clients that know of two directories with a quota.
async fn two_quotas(w: &World) -> ([Client; 2], [Ino; 2]) {
    let (c, other) = (w.client().await, w.client().await);
    let dirs = [c.dir(ROOT, "a").await, c.dir(ROOT, "b").await];
    for dir in dirs {
        c.meta.set_quota(QuotaKey::Dir(dir), Some(1 << 40), None).await.unwrap();
    }
    other.meta.reload_quotas().await.unwrap();
    ([c, other], dirs)
}

/// A tree that changes while it is moved to another quota is moved with the change.
pub async fn moved_tree_under_change(engine: Engine) {
    let w = World::new(engine).await;
    let ([c, other], [a, b]) = two_quotas(&w).await;
    let t = c.dir(a, "t").await;
    let deep = c.dir(t, "deep").await;
    for round in 0..30 {
        let name = format!("n{round}");
        let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
        let (moved, made) = futures_util::join!(c.rename((from, "t"), (to, "t")), other.file(deep, &name));
        moved.unwrap();
        other.put(made, 0, 0, 5000).await;
    }
    w.check().await;
    assert_eq!(used(&w, QuotaKey::Dir(a)).await, (2 * 4096 + 30 * 2 * 4096, 32));
}

/// The same with a tree of many directories.
pub async fn great_tree_moved_under_change(engine: Engine) {
    const DIRS: usize = 600;
    let w = World::new(engine).await;
    let ([c, other], [a, b]) = two_quotas(&w).await;
    let t = c.dir(a, "t").await;
    let mut dirs = Vec::new();
    for n in 0..DIRS {
        dirs.push(c.dir(t, &format!("d{n:03}")).await);
    }
    for round in 0..12 {
        let name = format!("n{round}");
        let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
        // The youngest directories come last in the sum.
        let changed = dirs[DIRS - 1 - round];
        let (moved, made) = futures_util::join!(c.rename((from, "t"), (to, "t")), other.file(changed, &name));
        moved.unwrap();
        other.put(made, 0, 0, 5000).await;
    }
    w.check().await;
    let inodes = (1 + DIRS + 12) as i64;
    assert_eq!(used(&w, QuotaKey::Dir(a)).await, (inodes * 4096 + 12 * 4096, inodes));
}

/// Trees that move while another client changes them, before each call in turn, also in ways that no usage record above
/// shows.
pub async fn moved_trees_under_late_change(engine: Engine) {
    let w = World::new(engine).await;
    let ([plain, other], [a, b]) = two_quotas(&w).await;
    let (between, c) = w.client_behind(1).await;
    let out = plain.dir(ROOT, "out").await;
    for kind in 0..8 {
        let mut call = 0;
        loop {
            let [t, u, y] = ["t", "u", "y"].map(|name| format!("{name}{kind}.{call}"));
            // a/t holds a directory and a link, one level down; b/u one file; out/y three.
            let top = plain.dir(a, &t).await;
            let mid = plain.dir(top, "mid").await;
            let leaf = plain.dir(mid, "leaf").await;
            plain.make(mid, "link", FileType::Symlink).await.unwrap();
            let second = plain.dir(b, &u).await;
            let third = plain.dir(out, &y).await;
            for (dir, name) in [(second, "f"), (third, "f"), (third, "g"), (third, "h")] {
                plain.file(dir, name).await;
            }
            let o = other.clone();
            between.at(When::Call(call), async move {
                match kind {
                    0 => _ = o.file(leaf, "late").await,
                    1 => _ = o.file(second, "late").await,
                    2 => _ = (o.file(leaf, "late").await, o.dir(second, "late").await),
                    3 => o.rename_with(EXCHANGE, (mid, "leaf"), (out, &y)).await.unwrap(),
                    4 => o.rename_with(EXCHANGE, (mid, "link"), (out, &y)).await.unwrap(),
                    5 => _ = o.rename((out, &y), (mid, "leaf")).await.unwrap(),
                    6 => {
                        o.rename((mid, "leaf"), (out, "gone")).await.unwrap();
                        o.rename((out, &y), (mid, "leaf")).await.unwrap();
                        o.rename((out, "gone"), (out, &y)).await.unwrap();
                    }
                    _ => _ = o.rename((mid, "leaf"), (second, "leaf")).await.unwrap(),
                }
            });
            match kind {
                0..=2 | 7 => c.rename_with(EXCHANGE, (a, &t), (b, &u)).await.unwrap(),
                _ => _ = c.rename((a, &t), (b, &t)).await.unwrap(),
            }
            if between.give_up().await {
                break;
            }
            w.check().await;
            call += 1;
        }
        assert!(call > 3, "kind {kind}");
    }
}

/// Users and groups: charged for what they own, wherever it is, until it is gone.
pub async fn owner_quotas(engine: Engine) {
    let w = World::with(engine, |s| (s.user_group_quota, s.trash_days) = (true, 1)).await;
    let c = w.client().await;
    let (user, group) = (QuotaKey::User(1000), QuotaKey::Group(2000));
    let d = c.dir(ROOT, "d").await;
    c.chmod(d, 0o777).await;
    let me = user_of(1000, 2000);
    let make = async |name: &str| {
        c.meta.create(&me, d, name.as_bytes(), &node(FileType::File, 0o644)).await.map(|(ino, _)| ino)
    };
    let f = make("f").await.unwrap();
    c.put(f, 0, 0, 10_000).await;
    assert_eq!((used(&w, user).await, used(&w, group).await), ((12 * KIB, 1), (12 * KIB, 1)));
    c.meta.set_quota(user, Some(32 * KIB), Some(3)).await.unwrap();
    assert_eq!(errno(c.truncate(f, 40_000).await), Errno::EDQUOT);
    make("g").await.unwrap();
    make("h").await.unwrap();
    assert_eq!(errno(make("i").await), Errno::EDQUOT);
    // Another name is no other node.
    c.link(f, d, "f2").await.unwrap();
    assert_eq!(used(&w, user).await, (20 * KIB, 3));
    // What lies in the trash is still somebody's.
    c.unlink(d, "g").await.unwrap();
    assert_eq!(errno(make("i").await), Errno::EDQUOT);
    w.check().await;
    w.clock.advance(3 * 86_400);
    c.meta.run_hourly_jobs().await.unwrap();
    make("i").await.unwrap();
    w.check().await;
    // Giving moves the charge, of every kind of node; the superuser may give beyond a limit, others may not.
    let l = c.make(d, "l", FileType::Symlink).await.unwrap();
    for ino in [l, d] {
        c.chown(ino, 1000, 2000).await;
    }
    assert_eq!(used(&w, user).await, (28 * KIB, 5));
    w.check().await;
    c.meta.set_quota(QuotaKey::Group(3000), None, Some(1)).await.unwrap();
    let mut in_both = user_of(1000, 2000);
    in_both.groups = vec![3000];
    let give = |ino| {
        let set = SetAttr { gid: Some(3000), ..SetAttr::default() };
        let (meta, caller) = (&c.meta, &in_both);
        async move { meta.setattr(caller, ino, &set).await }
    };
    give(f).await.unwrap();
    assert_eq!(errno(give(d).await), Errno::EDQUOT);
    w.check().await;
    // An open file that lost its last name is charged until it is closed.
    let m = w.mounted().await;
    let open = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let h = m.find(d, "h").await.unwrap();
    m.meta.open(&root(), h, open).await.unwrap();
    m.meta.trash_hour.lock().take();
    let skip = SetAttr { flags: Some(ciderfs_format::attr::flags::SKIP_TRASH), ..SetAttr::default() };
    m.meta.setattr(&root(), h, &skip).await.unwrap();
    let before = used(&w, user).await;
    m.unlink(d, "h").await.unwrap();
    m.truncate(h, 5000).await.unwrap();
    assert_eq!(used(&w, user).await, (before.0 + 4096, before.1));
    w.check().await;
    m.meta.close(h).await.unwrap();
    assert_eq!(used(&w, user).await, (before.0 - 4096, before.1 - 1));
    w.check().await;
    // A quota that is deleted still counts.
    c.meta.delete_quota(user).await.unwrap();
    assert_eq!(c.meta.quota(user).await.unwrap(), None);
    c.truncate(f, 400_000).await.unwrap();
    w.check().await;
    let checked = c.meta.check_quota(None, false, false).await.unwrap();
    assert!(checked.iter().all(crate::QuotaCheck::is_consistent), "{checked:?}");
    m.meta.close_session().await.unwrap();
}

fn user_of(uid: u32, gid: u32) -> crate::Caller {
    user(uid, gid)
}

/// Two clients never get beyond a limit together, whatever each of them believes.
pub async fn limits_shared_by_clients(engine: Engine) {
    let w = World::with(engine, |s| s.inodes = 26).await;
    let clients = [w.client().await, w.client().await, w.client().await];
    let q = clients[0].dir(ROOT, "q").await;
    clients[0].meta.set_quota(QuotaKey::Dir(q), None, Some(10)).await.unwrap();
    for c in &clients {
        c.meta.reload_quotas().await.unwrap();
    }
    let fill = async |dir: Ino, errno: Errno| {
        let fill_one = async |c: &Client, i: usize| {
            for n in 0.. {
                match c.make(dir, &format!("c{i}-{n}"), FileType::File).await {
                    Ok(_) => {}
                    Err(e) => return assert_eq!(e.errno(), errno),
                }
            }
        };
        futures_util::join!(fill_one(&clients[0], 0), fill_one(&clients[1], 1), fill_one(&clients[2], 2));
    };
    fill(q, Errno::EDQUOT).await;
    assert_eq!(used(&w, QuotaKey::Dir(q)).await, (40 * KIB, 10));
    fill(ROOT, Errno::ENOSPC).await;
    assert_eq!(clients[1].meta.statfs().await.unwrap().used_inodes, 26);
    w.check().await;
    // Room that one makes, the others find at once; a raised limit is found too, since a refusal asks the engine.
    clients[0].unlink(q, &clients[0].ls(q).await[0]).await.unwrap();
    clients[2].file(q, "more").await;
    clients[0].unlink(ROOT, &clients[0].ls(ROOT).await[0]).await.unwrap();
    clients[1].meta.set_quota(QuotaKey::Dir(q), None, Some(11)).await.unwrap();
    clients[2].file(q, "even more").await;
    w.check().await;
}

/// A client learns of quotas that others set, and of those that are gone, with its heartbeat or from a refusal.
pub async fn quotas_come_and_go(engine: Engine) {
    let w = World::new(engine).await;
    let (c, admin) = (w.client().await, w.client().await);
    let q = c.dir(ROOT, "q").await;
    let key = QuotaKey::Dir(q);
    admin.meta.set_quota(key, None, Some(1)).await.unwrap();
    c.meta.reload_quotas().await.unwrap();
    c.file(q, "a").await;
    assert_eq!(errno(c.make(q, "b", FileType::File).await), Errno::EDQUOT);
    admin.meta.delete_quota(key).await.unwrap();
    c.file(q, "b").await;
    assert_eq!(c.meta.quotas().await.unwrap(), []);
    // Records that are wrong are found and repaired.
    admin.meta.set_quota(key, Some(1 << 30), None).await.unwrap();
    let wrong = Commit { guards: Vec::new(), writes: vec![Write::PutQuotaUsage(key, 5, -3)] };
    w.store.commit(&wrong).await.unwrap();
    for (strict, repair, consistent) in [(false, false, false), (true, true, false), (true, false, true)] {
        let checked = admin.meta.check_quota(Some(key), strict, repair).await.unwrap();
        assert_eq!(checked[0].is_consistent(), consistent);
        assert_eq!((checked[0].space, checked[0].inodes), (2 * 4096, 2));
    }
    w.check().await;
    let missing = admin.meta.check_quota(Some(QuotaKey::Dir(ROOT)), false, false).await;
    assert_eq!(errno(missing), Errno::ENODATA);
    assert_eq!(errno(admin.meta.set_quota(QuotaKey::Dir(Ino(77)), None, None).await), Errno::ENOENT);
    let a = c.find(q, "a").await.unwrap();
    assert_eq!(errno(admin.meta.set_quota(QuotaKey::Dir(a), None, None).await), Errno::ENOTDIR);
    // The first quota of a user counts what is there.
    c.chown(a, 1000, 1000).await;
    admin.meta.set_quota(QuotaKey::User(1000), Some(8 * KIB), None).await.unwrap();
    c.meta.reload_settings().await.unwrap();
    c.meta.reload_quotas().await.unwrap();
    w.check().await;
    assert_eq!(errno(c.truncate(a, 9000).await), Errno::EDQUOT);
    let Quota { used_space, .. } = c.meta.quota(QuotaKey::User(1000)).await.unwrap().unwrap();
    assert_eq!(used_space, align4k(0) as i64);
}

/// What was made while mounts did not know of a new quota is counted some heartbeats later, by one of them.
pub async fn quotas_under_change(engine: Engine) {
    let w = World::new(engine).await;
    let (admin, c, other) = (w.client().await, w.mounted().await, w.mounted().await);
    let q = c.dir(ROOT, "q").await;
    let key = QuotaKey::Dir(q);
    admin.meta.set_quota(key, None, Some(100)).await.unwrap();
    c.file(q, "unseen").await;
    assert_eq!(used(&w, key).await, (0, 0), "nobody has charged it");
    let beat = async |m: &Client| {
        m.meta.follow_quotas().await.unwrap();
        m.meta.count_young_quotas().await.unwrap();
        m.meta.young_quotas.lock().len()
    };
    beat(&c).await;
    c.file(q, "seen").await;
    other.file(q, "unseen by the other").await;
    beat(&other).await;
    assert_eq!(used(&w, key).await, (4096, 1));
    for _ in 0..3 {
        assert_eq!(beat(&other).await, 1, "the older session counts");
    }
    assert_eq!((beat(&c).await, used(&w, key).await), (1, (4096, 1)), "somebody may not know it yet");
    // The official client counts itself, whatever its clock says.
    let official = |write| Commit { guards: Vec::new(), writes: vec![write] };
    let behind = c.meta.fleet_now() - 3 * 3600;
    let put = Write::PutSession(SessionId(77), behind, r#"{"Version":"1.3.0"}"#.into());
    w.store.commit(&official(put)).await.unwrap();
    assert_eq!((beat(&c).await, used(&w, key).await), (1, (4096, 1)), "charged twice");
    w.store.commit(&official(Write::DelSession(SessionId(77)))).await.unwrap();
    // Beside somebody who goes on.
    let (due, ()) = futures_util::join!(beat(&c), async {
        for n in 0..10 {
            other.file(q, &format!("more{n}")).await;
        }
    });
    assert_eq!((due, used(&w, key).await), (0, (13 * 4096, 13)));
    // A directory under too much change, or in another's care, is given up at last.
    for _ in 0..30 {
        beat(&other).await;
    }
    assert_eq!(beat(&other).await, 0);
    w.check().await;
}

/// Free space under quotas, from the presented root upwards.
pub async fn statistics_under_quotas(engine: Engine) {
    let w = World::with(engine, |s| s.capacity = 1 << 30).await;
    let c = w.client().await;
    let a = c.dir(ROOT, "a").await;
    let b = c.dir(a, "b").await;
    let f = c.file(b, "f").await;
    c.put(f, 0, 0, 8192).await;
    c.meta.set_quota(QuotaKey::Dir(b), Some(1 << 20), Some(10)).await.unwrap();
    let sub = |path: &str| MetaConfig { subdir: Some(path.into()), ..World::config() };
    let s = w.client_with(sub("a/b")).await.meta.statfs().await.unwrap();
    assert_eq!((s.total_space, s.used_space, s.avail_space), (1 << 20, 8192, (1 << 20) - 8192));
    assert_eq!((s.used_inodes, s.avail_inodes), (1, 9));
    c.meta.set_quota(QuotaKey::Dir(a), Some(100 << 10), None).await.unwrap();
    let s = w.client_with(sub("a/b")).await.meta.statfs().await.unwrap();
    assert_eq!((s.used_space, s.avail_space), (8192, (100 << 10) - 12_288));
    let s = w.client_with(sub("a")).await.meta.statfs().await.unwrap();
    assert_eq!((s.total_space, s.used_space), (100 << 10, 12_288));
    // Within one mount each directory has its own figures, and a file those of the directory that it is in.
    let at = async |ino| c.meta.statfs_at(ino).await.unwrap();
    assert_eq!((at(a).await.total_space, at(a).await.used_space), (100 << 10, 12_288));
    assert_eq!((at(b).await.used_space, at(b).await.avail_space), (8192, (100 << 10) - 12_288));
    assert_eq!(at(f).await, at(b).await);
    // What has two names may be in two places, and what is removed in none.
    let whole = c.meta.statfs().await.unwrap();
    c.meta.link(&crate::Caller::root(), f, a, b"second").await.unwrap();
    assert_eq!(at(f).await.total_space, whole.total_space);
    c.unlink(a, "second").await.unwrap();
    assert_eq!(at(Ino(999_999)).await, c.meta.statfs().await.unwrap());
    // The root of the volume has none: the volume's own figures.
    let s = c.meta.statfs().await.unwrap();
    assert_eq!((s.total_space, s.used_space), (1 << 30, 16_384));
}

/// Limits and quotas cost no turn: what is believed is guarded, not asked for.
pub async fn limits_cost_no_turn(engine: Engine) {
    let w = World::with(engine, |s| {
        (s.capacity, s.inodes, s.user_group_quota) = (1 << 40, 1 << 30, true);
    })
    .await;
    let c = w.client().await;
    let a = c.dir(ROOT, "a").await;
    let b = c.dir(a, "b").await;
    let turns = async |dir: Ino, name: &str| {
        let before = c.meta.counters().turns;
        let f = c.file(dir, name).await;
        let created = c.meta.counters().turns - before;
        let slice = c.fresh(0, 100_000).await;
        let before = c.meta.counters().turns;
        c.append(f, 0, vec![slice]).await.unwrap();
        let written = c.meta.counters().turns - before;
        let before = c.meta.counters().turns;
        c.unlink(dir, name).await.unwrap();
        (created, written, c.meta.counters().turns - before)
    };
    // Once, so that numbers are allocated, scripts are loaded and the directory is known.
    turns(b, "warm").await;
    // A name that is looked up for the first time costs a turn: the entry is not known to be free.
    assert_eq!(turns(b, "plain").await, (2, 1, 1));
    for (key, space, inodes) in [
        (QuotaKey::Dir(ROOT), 1 << 39, 1 << 29),
        (QuotaKey::Dir(b), 1 << 38, 1 << 28),
        (QuotaKey::User(0), 1 << 37, 1 << 27),
        (QuotaKey::Group(0), 1 << 36, 1 << 26),
    ] {
        c.meta.set_quota(key, Some(space), Some(inodes)).await.unwrap();
    }
    assert_eq!(turns(b, "limited").await, (2, 1, 1));
    w.check().await;
}
