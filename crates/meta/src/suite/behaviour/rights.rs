//! Who may reach what where the kernel has checked no path.

use bytes::Bytes;
use ciderfs_format::acl::{AclEntry, AclRule, XATTR_ACCESS};
use ciderfs_format::settings::Settings;
use ciderfs_format::{FileType, Ino};

use crate::error::Errno;
use crate::store::DirCursor;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::{Caller, OpenFlags, XattrSet};
use crate::{Meta, MetaConfig, SetAttr};

const ANN: (u32, u32) = (1000, 1000);
const BOB: (u32, u32) = (2000, 2000);

fn ann() -> Caller {
    user(ANN.0, ANN.1)
}

fn bob() -> Caller {
    user(BOB.0, BOB.1)
}

impl Client {
    /// Names that somebody sees in a directory; what is listed with attributes is what is listed without.
    async fn seen(&self, who: &Caller, dir: Ino) -> Vec<String> {
        let mut all = Vec::new();
        for attrs in [false, true] {
            let (mut names, mut cursor) = (Vec::new(), DirCursor::Start);
            while cursor != DirCursor::End {
                let page = self.meta.list_dir(who, dir, &cursor, 1000, attrs).await.unwrap();
                assert!(attrs || page.entries.iter().all(|e| e.attr.is_none()));
                names.extend(page.entries.into_iter().map(|e| String::from_utf8(e.name).unwrap()));
                cursor = page.next;
            }
            names.sort();
            all.push(names);
        }
        assert_eq!(all[0], all[1]);
        all.remove(0)
    }

    /// Paths by which somebody comes to a node.
    async fn ways(&self, who: &Caller, ino: Ino) -> Vec<String> {
        let paths = self.meta.paths(who, ino).await.unwrap();
        paths.into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
    }

    async fn owned(&self, dir: Ino, name: &str, kind: FileType, mode: u16, owner: (u32, u32)) -> Ino {
        let ino = self.make(dir, name, kind).await.unwrap();
        self.chown(ino, owner.0, owner.1).await;
        self.chmod(ino, mode).await;
        ino
    }
}

/// In the trash everybody sees what was readable where it was, and what is his own.
pub async fn trash_shows_what_was_readable(engine: Engine) {
    let w = World::with(engine, |s| (s.trash_days, s.enable_acl) = (1, true)).await;
    let c = w.client().await;
    let home = c.owned(ROOT, "home", FileType::Directory, 0o700, ANN).await;
    let inner = c.owned(home, "inner", FileType::Directory, 0o755, ANN).await;
    let team = c.owned(ROOT, "team", FileType::Directory, 0o750, (ANN.0, 77)).await;
    let through = c.owned(ROOT, "through", FileType::Directory, 0o711, ANN).await;
    let open = c.owned(ROOT, "open", FileType::Directory, 0o755, ANN).await;
    let gone = c.owned(open, "gone", FileType::Directory, 0o755, ANN).await;
    let mut nodes = Vec::new();
    for (dir, name, owner) in [
        (home, "closed", ANN),
        (inner, "below", ANN),
        (home, "his", BOB),
        (team, "shared", ANN),
        (through, "unlisted", ANN),
        (open, "public", ANN),
        (gone, "orphan", ANN),
        (gone, "mine", BOB),
        (ROOT, "top", ANN),
    ] {
        let ino = c.owned(dir, name, FileType::File, 0o644, owner).await;
        c.unlink(dir, name).await.unwrap();
        nodes.push((format!("{dir}-{ino}-{name}"), ino));
    }
    c.rmdir(open, "gone").await.unwrap();
    let hour = c.find(Ino::TRASH, &c.ls(Ino::TRASH).await[0]).await.unwrap();
    let shown = |names: &[&str]| -> Vec<String> {
        let ends = |n: &str| names.iter().any(|name| n.ends_with(&format!("-{name}")));
        let mut out: Vec<String> = nodes.iter().map(|(n, _)| n.clone()).filter(|n| ends(n)).collect();
        out.extend(names.contains(&"gone").then(|| format!("{open}-{gone}-gone")));
        out.sort();
        out
    };
    let everything =
        ["closed", "below", "his", "shared", "unlisted", "public", "orphan", "mine", "top", "gone"];
    assert_eq!(c.seen(&root(), hour).await, shown(&everything));
    let for_bob = ["his", "mine", "public", "top", "gone"];
    assert_eq!(c.seen(&bob(), hour).await, shown(&for_bob));
    let anns: Vec<&str> = everything.into_iter().filter(|n| !["mine"].contains(n)).collect();
    assert_eq!(c.seen(&ann(), hour).await, shown(&anns));
    // A group counts, also where the kernel checks the rest.
    let member = Caller { groups: vec![77], check: false, ..bob() };
    let for_members = ["his", "mine", "public", "top", "gone", "shared"];
    assert_eq!(c.seen(&member, hour).await, shown(&for_members));
    // So does an ACL.
    let rule = AclRule {
        owner: 7,
        group: 0,
        mask: 5,
        other: 0,
        named_users: vec![AclEntry { id: BOB.0, perm: 5 }],
        named_groups: Vec::new(),
    };
    let name = XATTR_ACCESS.as_bytes();
    c.meta.set_xattr(&root(), team, name, rule.to_xattr().into(), XattrSet::default()).await.unwrap();
    assert_eq!(c.seen(&bob(), hour).await, shown(&for_members));
    // Names that are not shown are not found.
    for (name, ino) in &nodes {
        let found = c.meta.lookup(&bob(), hour, name.as_bytes()).await.map(|(ino, _)| ino);
        let is_shown = shown(&for_members).contains(name);
        assert_eq!(
            found.map_err(|e| e.errno()),
            if is_shown { Ok(*ino) } else { Err(Errno::ENOENT) },
            "{name}"
        );
        assert_eq!(!c.ways(&bob(), *ino).await.is_empty(), is_shown, "{name}");
    }
    // What counts is who may read there now.
    c.chmod(open, 0o700).await;
    assert_eq!(c.seen(&bob(), hour).await, shown(&["his", "mine", "shared", "top"]));
    w.check().await;
}

/// A page of the trash costs a turn for each level of directories above, not for each entry.
pub async fn trash_pages_cost_few_turns(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let mut dirs = Vec::new();
    for i in 0..5 {
        let a = c.dir(ROOT, &format!("a{i}")).await;
        dirs.push(c.dir(a, "b").await);
    }
    for i in 0..50 {
        let (dir, name) = (dirs[i % 5], format!("f{i}"));
        c.file(dir, &name).await;
        c.unlink(dir, &name).await.unwrap();
    }
    let hour = c.find(Ino::TRASH, &c.ls(Ino::TRASH).await[0]).await.unwrap();
    let turns = || c.meta.counters().turns;
    let unchecked = |c: Caller| Caller { check: false, ..c };
    let list = async |who: &Caller| {
        let before = turns();
        let page = c.meta.list_dir(who, hour, &DirCursor::Start, 1000, true).await.unwrap();
        (page.entries.len(), turns() - before)
    };
    let (all, of_root) = list(&unchecked(root())).await;
    let (shown, of_others) = list(&unchecked(bob())).await;
    assert_eq!((all, shown), (50, 50));
    assert_eq!(of_others - of_root, 3, "b, a, the root");
}

/// A node is asked about by its number as if the caller walked there.
pub async fn paths_are_walked_as_the_caller(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let home = c.owned(ROOT, "home", FileType::Directory, 0o700, ANN).await;
    let inner = c.owned(home, "inner", FileType::Directory, 0o755, ANN).await;
    let through = c.owned(ROOT, "through", FileType::Directory, 0o711, ANN).await;
    let secret = c.owned(inner, "secret", FileType::File, 0o644, ANN).await;
    let half = c.owned(through, "half", FileType::File, 0o644, ANN).await;
    let both = c.owned(home, "hidden", FileType::File, 0o644, ANN).await;
    c.link(both, ROOT, "shown").await.unwrap();
    for (who, of_secret, of_inner, of_half, of_both) in [
        (
            ann(),
            &["/home/inner/secret"][..],
            &["/home/inner"][..],
            "/through/half",
            &["/home/hidden", "/shown"][..],
        ),
        (root(), &["/home/inner/secret"], &["/home/inner"], "/through/half", &["/home/hidden", "/shown"]),
        (bob(), &[], &[], "/through/?", &["/shown"]),
    ] {
        assert_eq!(c.ways(&who, secret).await, of_secret);
        assert_eq!(c.ways(&who, inner).await, of_inner);
        assert_eq!(c.ways(&who, half).await, [of_half]);
        assert_eq!(c.ways(&who, both).await, of_both);
        assert_eq!(c.ways(&who, home).await, ["/home"]);
        assert_eq!(c.ways(&who, ROOT).await, ["/"]);
    }
    assert_eq!(errno(c.meta.paths(&bob(), Ino(999_999)).await), Errno::ENOENT);
    // What lies in closed directories is not counted either.
    let files = async |who: &Caller| c.meta.tree_usage(who, ROOT, true, &|_| {}).await.unwrap().files;
    assert_eq!((files(&root()).await, files(&ann()).await, files(&bob()).await), (4, 4, 1));
    // A mount of a directory knows nothing outside it, the superuser's included.
    let sub = w.client_with(MetaConfig { subdir: Some("/through".into()), ..World::config() }).await;
    for who in [root(), ann(), bob()] {
        for ino in [secret, inner, both, home] {
            assert_eq!(sub.ways(&who, ino).await, [""; 0]);
        }
        assert_eq!(sub.ways(&who, ROOT).await, ["/"]);
    }
    assert_eq!(sub.ways(&ann(), half).await, ["/half"]);
    assert_eq!(sub.ways(&bob(), half).await, ["/?"]);
    c.chmod(through, 0o700).await;
    assert_eq!(sub.ways(&bob(), half).await, [""; 0]);
    c.unlink(through, "half").await.unwrap();
    assert_eq!(sub.ways(&root(), half).await, [""; 0], "the trash is outside");
    assert_eq!(c.ways(&root(), half).await.len(), 1);
    w.check().await;
}

/// Nothing is linked out of the trash except by the superuser, and nothing is changed there.
pub async fn trash_gives_nothing_away(engine: Engine) {
    let w = World::with(engine, |s| (s.trash_days, s.enable_acl) = (1, true)).await;
    let c = w.mounted().await;
    let pub_dir = c.owned(ROOT, "pub", FileType::Directory, 0o777, ANN).await;
    let link = async |who: &Caller, ino, name: &str| {
        c.meta.link(who, ino, pub_dir, name.as_bytes()).await.map(|_| ()).map_err(|e| e.errno())
    };
    let one = c.owned(pub_dir, "one", FileType::File, 0o666, ANN).await;
    let two = c.owned(pub_dir, "two", FileType::File, 0o666, ANN).await;
    assert_eq!(link(&ann(), two, "two'").await, Ok(()));
    c.unlink(pub_dir, "one").await.unwrap();
    c.unlink(pub_dir, "two").await.unwrap();
    // One of its names is not in the trash.
    assert_eq!(link(&bob(), two, "two").await, Ok(()));
    c.unlink(pub_dir, "two").await.unwrap();
    c.unlink(pub_dir, "two'").await.unwrap();
    for who in [ann(), bob()] {
        assert_eq!(link(&who, one, "out").await, Err(Errno::EPERM));
        assert_eq!(link(&who, two, "out").await, Err(Errno::EPERM));
    }
    // Attributes stay as they are, as the mode does.
    let hour = c.find(Ino::TRASH, &c.ls(Ino::TRASH).await[0]).await.unwrap();
    c.find(hour, &format!("{pub_dir}-{one}-one")).await.unwrap();
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let acl = AclRule {
        owner: 7,
        group: 5,
        mask: 7,
        other: 0,
        named_users: vec![AclEntry { id: BOB.0, perm: 7 }],
        named_groups: Vec::new(),
    };
    for name in c.ls(hour).await {
        c.find(hour, &name).await.unwrap();
    }
    // Of the second one all names are there.
    for ino in [one, two] {
        let before = c.stat(ino).await;
        for who in [ann(), root()] {
            let set = async |name: &str, value: Bytes| {
                c.meta.set_xattr(&who, ino, name.as_bytes(), value, XattrSet::default()).await
            };
            let open = async |write| {
                let how = OpenFlags { read: true, write, ..OpenFlags::default() };
                c.meta.open(&who, ino, how).await
            };
            // Who only reads it does not hold it as it was before.
            open(false).await.unwrap();
            assert_eq!(errno(c.meta.setattr(&who, ino, &mode).await), Errno::EPERM);
            assert_eq!(errno(set("user.x", Bytes::from_static(b"1")).await), Errno::EPERM);
            assert_eq!(errno(set(XATTR_ACCESS, acl.to_xattr().into()).await), Errno::EPERM);
            assert_eq!(errno(c.meta.remove_xattr(&who, ino, b"user.x").await), Errno::EPERM);
            assert_eq!(errno(c.meta.truncate(&who, ino, 7, false).await), Errno::EPERM);
            assert_eq!(errno(open(true).await), Errno::EPERM);
            c.meta.touch_atime(ino, c.meta.now()).await.unwrap();
            c.meta.close(ino).await.unwrap();
        }
        assert_eq!(c.stat(ino).await, before);
    }
    w.check().await;
    // One more name outside, and it is a file as any other; finding that out costs no turn.
    c.link(two, pub_dir, "out").await.unwrap();
    let turns = c.meta.store.turns();
    c.meta.setattr(&ann(), two, &mode).await.unwrap();
    c.meta.open(&ann(), two, OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
    assert_eq!(c.meta.store.turns() - turns, 2);
    c.meta.close(two).await.unwrap();
    let who = ann();
    let set = c.meta.set_xattr(&who, two, b"user.x", Bytes::from_static(b"1"), XattrSet::default());
    set.await.unwrap();
    c.unlink(pub_dir, "out").await.unwrap();
    w.check().await;
    // Who holds a removed file changes it as on any file system.
    let held = c.owned(pub_dir, "held", FileType::File, 0o666, ANN).await;
    c.meta.open(&ann(), held, OpenFlags { read: true, ..OpenFlags::default() }).await.unwrap();
    c.unlink(pub_dir, "held").await.unwrap();
    c.find(hour, &format!("{pub_dir}-{held}-held")).await.unwrap();
    c.meta.set_xattr(&ann(), held, b"user.x", Bytes::from_static(b"1"), XattrSet::default()).await.unwrap();
    assert_eq!(link(&ann(), held, "back").await, Err(Errno::EPERM));
    c.meta.close(held).await.unwrap();
    // What was in the trash when it was switched off stays there.
    let off = Settings { trash_days: 0, ..w.settings.clone() };
    Meta::write_settings(w.store.as_ref(), &off, Some(&w.settings)).await.unwrap();
    let off = w.client().await;
    for ino in [one, two] {
        for who in [ann(), bob()] {
            assert_eq!(errno(off.meta.link(&who, ino, pub_dir, b"out").await), Errno::EPERM);
            assert_eq!(errno(off.meta.setattr(&who, ino, &mode).await), Errno::EPERM);
        }
    }
    // A file that never had a name gets one, whoever owns it.
    let (nameless, _) = c.meta.create_nameless(&ann(), pub_dir, 0o600, 0).await.unwrap();
    assert_eq!(link(&ann(), nameless, "named").await, Ok(()));
    c.meta.close(nameless).await.unwrap();
    w.check().await;
}
