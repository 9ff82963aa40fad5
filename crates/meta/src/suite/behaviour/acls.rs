//! POSIX ACLs.

use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::acl::{AclEntry, AclRule, UNDEFINED, XATTR_ACCESS, XATTR_DEFAULT};
use ciderfs_format::attr::flags;
use ciderfs_format::{FileType, Ino};

use crate::error::Errno;
use crate::store::{Counter, Read, Value};
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::{Caller, NewNode, XattrSet};
use crate::{MetaConfig, Result, SetAttr};

/// A rule with named users and groups.
fn rule(perms: [u16; 4], users: &[(u32, u16)], groups: &[(u32, u16)]) -> AclRule {
    let [owner, group, mask, other] = perms;
    let named = |list: &[(u32, u16)]| list.iter().map(|&(id, perm)| AclEntry { id, perm }).collect();
    AclRule { owner, group, mask, other, named_users: named(users), named_groups: named(groups) }
}

impl Client {
    async fn put_acl(&self, who: &Caller, ino: Ino, name: &str, rule: &AclRule) -> Result<()> {
        let value = Bytes::from(rule.to_xattr());
        self.meta.set_xattr(who, ino, name.as_bytes(), value, XattrSet::default()).await.map(|_| ())
    }

    async fn acl(&self, ino: Ino, name: &str) -> Option<AclRule> {
        match self.meta.get_xattr(&root(), ino, name.as_bytes()).await {
            Ok(raw) => Some(AclRule::from_xattr(&raw).unwrap()),
            Err(e) => {
                assert_eq!(e.errno(), Errno::ENODATA);
                None
            }
        }
    }

    async fn drop_acl(&self, ino: Ino, name: &str) {
        self.meta.remove_xattr(&root(), ino, name.as_bytes()).await.unwrap();
    }

    async fn stored_rules(&self) -> i64 {
        match self.meta.store.read(&[Read::Counter(Counter::AclMaxId)]).await.unwrap()[..] {
            [Value::Int(n)] => n,
            _ => panic!(),
        }
    }
}

async fn world(engine: Engine) -> World {
    World::with(engine, |s| s.enable_acl = true).await
}

/// Access ACLs and mode bits follow each other.
pub async fn access_acls(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let other = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1000, 50).await;
    c.chmod(f, 0o2640).await;
    let r = rule([6, 4, 6, 0], &[(7, 6)], &[(8, 4)]);
    let before = c.stat(f).await;
    c.put_acl(&user(1000, 50), f, XATTR_ACCESS, &r).await.unwrap();
    let a = other.stat(f).await;
    assert_eq!((a.mode, a.mtime), (0o2660, before.mtime));
    assert!(a.ctime > before.ctime && a.access_acl != 0);
    assert_eq!(other.acl(f, XATTR_ACCESS).await, Some(r.clone()));
    assert_eq!(other.meta.list_xattrs(&root(), f).await.unwrap(), [XATTR_ACCESS.as_bytes()]);
    assert_eq!(c.acl(f, XATTR_DEFAULT).await, None);
    // Who is not in the group takes the set-group-ID bit away.
    c.put_acl(&user(1000, 51), f, XATTR_ACCESS, &r).await.unwrap();
    assert_eq!(c.stat(f).await.mode, 0o660);
    // chmod changes owner, mask and others.
    other.chmod(f, 0o4751).await;
    assert_eq!(c.acl(f, XATTR_ACCESS).await, Some(rule([7, 4, 5, 1], &[(7, 6)], &[(8, 4)])));
    other.chmod(f, 0o660).await;
    assert_eq!(c.acl(f, XATTR_ACCESS).await, Some(r.clone()));
    assert_eq!(c.stored_rules().await, 2, "rules are shared");
    // What mode bits can say is no ACL.
    c.put_acl(&root(), f, XATTR_ACCESS, &rule([7, 5, UNDEFINED, 1], &[], &[])).await.unwrap();
    let a = c.stat(f).await;
    assert_eq!((a.mode, a.access_acl), (0o751, 0));
    assert_eq!(c.acl(f, XATTR_ACCESS).await, None);
    // Removal leaves the mode; of nothing it changes nothing.
    c.put_acl(&root(), f, XATTR_ACCESS, &r).await.unwrap();
    c.drop_acl(f, XATTR_ACCESS).await;
    let a = c.stat(f).await;
    assert_eq!((a.mode, a.access_acl), (0o660, 0));
    c.drop_acl(f, XATTR_ACCESS).await;
    assert_eq!(c.stat(f).await, a);
    w.check().await;
}

/// Refusals.
pub async fn acls_refused(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let r = rule([6, 4, 6, 0], &[(7, 6)], &[]);
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1000, 50).await;
    let put = async |who: &Caller, ino, name| c.put_acl(who, ino, name, &r).await.map_err(|e| e.errno());
    assert_eq!(put(&user(1, 50), f, XATTR_ACCESS).await, Err(Errno::EPERM));
    assert_eq!(put(&root(), f, XATTR_DEFAULT).await, Err(Errno::EACCES));
    c.drop_acl(f, XATTR_DEFAULT).await;
    let link = c.make(ROOT, "l", FileType::Symlink).await.unwrap();
    assert_eq!(put(&root(), link, XATTR_ACCESS).await, Err(Errno::EOPNOTSUPP));
    for raw in [&b""[..], b"\x01\0\0\0", b"\x02\0\0\0\x01\0\x06", b"\x02\0\0\0\x02\0\x06\0\x01\0\0\0"] {
        let raw = Bytes::copy_from_slice(raw);
        let set = c.meta.set_xattr(&root(), f, XATTR_ACCESS.as_bytes(), raw, XattrSet::default()).await;
        assert_eq!(errno(set), Errno::EINVAL);
    }
    let flag = |f| SetAttr { flags: Some(f), ..SetAttr::default() };
    c.meta.setattr(&root(), f, &flag(flags::IMMUTABLE)).await.unwrap();
    assert_eq!(put(&root(), f, XATTR_ACCESS).await, Err(Errno::EPERM));
    assert_eq!(errno(c.put_acl(&root(), Ino(999_999), XATTR_ACCESS, &r).await), Errno::ENOENT);
    let read_only = w.client_with(MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(read_only.put_acl(&root(), f, XATTR_ACCESS, &r).await), Errno::EROFS);
    assert_eq!(c.stored_rules().await, 0);
    w.check().await;
}

/// What new nodes take from a default ACL.
pub async fn default_acls(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let r = rule([7, 5, 7, 5], &[(7, 7)], &[]);
    let before = c.stat(d).await;
    c.put_acl(&root(), d, XATTR_DEFAULT, &r).await.unwrap();
    let a = c.stat(d).await;
    assert!(a.mode == before.mode && a.ctime > before.ctime && a.access_acl == 0 && a.default_acl != 0);
    assert_eq!(c.meta.list_xattrs(&root(), d).await.unwrap(), [XATTR_DEFAULT.as_bytes()]);
    let other = w.client().await;
    let make = async |dir, name: &str, kind, mode| {
        let target = if kind == FileType::Symlink { &b"t"[..] } else { b"" };
        let node = NewNode { kind, mode, umask: 0o077, rdev: 0, target };
        other.meta.create(&root(), dir, name.as_bytes(), &node).await.unwrap()
    };
    // The umask has no say.
    let (f, a) = make(d, "f", FileType::File, 0o664).await;
    assert_eq!((a.mode, a.default_acl), (0o664, 0));
    assert_eq!(c.stat(f).await, a);
    assert_eq!(c.acl(f, XATTR_ACCESS).await, Some(rule([6, 5, 6, 4], &[(7, 7)], &[])));
    let (s, a) = make(d, "s", FileType::Directory, 0o2750).await;
    assert_eq!(a.mode, 0o2750);
    assert_eq!(c.acl(s, XATTR_ACCESS).await, Some(rule([7, 5, 5, 0], &[(7, 7)], &[])));
    assert_eq!(c.acl(s, XATTR_DEFAULT).await, Some(r.clone()));
    let (_, a) = make(d, "l", FileType::Symlink, 0o600).await;
    assert_eq!((a.mode, a.access_acl, a.default_acl), (0o777, 0, 0));
    let (p, _) = make(s, "p", FileType::Fifo, 0o666).await;
    assert_eq!(c.acl(p, XATTR_ACCESS).await, Some(rule([6, 5, 6, 4], &[(7, 7)], &[])));
    assert_eq!(c.stored_rules().await, 3, "rules are shared");
    // A default ACL that says no more than a mode is a mask.
    c.put_acl(&root(), d, XATTR_DEFAULT, &rule([7, 5, UNDEFINED, 0], &[], &[])).await.unwrap();
    let (_, a) = make(d, "m", FileType::File, 0o666).await;
    assert_eq!((a.mode, a.access_acl), (0o640, 0));
    // Without one, the umask applies.
    c.drop_acl(d, XATTR_DEFAULT).await;
    let (_, a) = make(d, "u", FileType::File, 0o666).await;
    assert_eq!((a.mode, a.access_acl), (0o600, 0));
    w.check().await;
}

/// Who may what, where permissions are checked here.
pub async fn acls_decide(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1, 2).await;
    let r = rule([7, 5, 4, 1], &[(10, 7), (11, 0)], &[(20, 6), (21, 0)]);
    c.put_acl(&root(), f, XATTR_ACCESS, &r).await.unwrap();
    // A client that learns of the rule only now.
    let m = w.client().await.meta;
    let member = |uid, groups: &[u32]| Caller { groups: groups.to_vec(), ..user(uid, 99) };
    for (who, allowed) in [
        (user(1, 9), 7),
        (user(10, 9), 4),
        (user(11, 20), 0),
        (user(5, 2), 4),
        (member(5, &[21, 20]), 4),
        (member(5, &[21]), 0),
        (user(5, 9), 1),
    ] {
        for mask in 1..8 {
            let granted = m.access(&who, f, mask).await;
            assert_eq!(granted.is_ok(), mask & !allowed == 0, "{who:?} {mask}: {granted:?}");
        }
    }
    // Without group bits in the mode the bits decide.
    c.put_acl(&root(), f, XATTR_ACCESS, &rule([7, 5, 0, 4], &[(10, 7)], &[])).await.unwrap();
    m.access(&user(10, 9), f, 4).await.unwrap();
    // Directories.
    let d = c.dir(ROOT, "d").await;
    c.chmod(d, 0o700).await;
    c.file(d, "x").await;
    c.put_acl(&root(), d, XATTR_ACCESS, &rule([7, 0, 7, 0], &[(10, 5), (12, 7)], &[])).await.unwrap();
    let node = node(FileType::File, 0o644);
    m.lookup(&user(10, 9), d, b"x").await.unwrap();
    assert_eq!(errno(m.lookup(&user(13, 9), d, b"x").await), Errno::EACCES);
    assert_eq!(errno(m.create(&user(10, 9), d, b"y", &node).await), Errno::EACCES);
    m.create(&user(12, 9), d, b"y", &node).await.unwrap();
    m.rename(&user(12, 9), d, b"y", d, b"z", 0).await.unwrap();
    assert_eq!(errno(m.unlink(&user(10, 9), d, b"z").await), Errno::EACCES);
    m.unlink(&user(12, 9), d, b"z").await.unwrap();
    w.check().await;
}

/// Clients that store the same rules at the same time agree on ids, and on none twice for different rules.
pub async fn acls_contended(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let mut files = Vec::new();
    for i in 0..12 {
        files.push(c.file(ROOT, &format!("f{i}")).await);
    }
    let mut tasks = Vec::new();
    for t in 0..4 {
        let client = w.client().await;
        let files = files.clone();
        tasks.push(tokio::spawn(async move {
            for (i, f) in files.iter().enumerate().filter(|(i, _)| i % 4 == t) {
                let r = rule([6, 4, 6, 4], &[(i as u32 % 3, 6)], &[]);
                client.put_acl(&root(), *f, XATTR_ACCESS, &r).await.unwrap();
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let fresh = w.client().await;
    for (i, f) in files.iter().enumerate() {
        let r = rule([6, 4, 6, 4], &[(i as u32 % 3, 6)], &[]);
        assert_eq!(fresh.acl(*f, XATTR_ACCESS).await, Some(r));
    }
    assert_eq!(c.stored_rules().await, 3);
    w.check().await;
}

/// Creating under a default ACL takes one turn once the directory and the rule are known; so does setting a new rule.
pub async fn acl_turns(engine: Engine) {
    let w = world(engine).await;
    let cfg = MetaConfig { xattr_valid: Duration::from_secs(3600), ..World::config() };
    let c = w.client_with(cfg.clone()).await;
    let d = c.dir(ROOT, "d").await;
    let r = rule([7, 5, 7, 5], &[(7, 7)], &[]);
    assert_eq!(c.turns(c.put_acl(&root(), d, XATTR_DEFAULT, &r)).await, 1);
    // The first inode number and the first use of a script take turns of their own.
    let f = c.file(d, "first").await;
    assert_eq!(c.find(d, "first").await.unwrap(), f);
    let lookup_and_create = async |c: &Client, name: &str| {
        assert_eq!(errno(c.find(d, name).await), Errno::ENOENT);
        c.file(d, name).await;
    };
    assert_eq!(c.turns(lookup_and_create(&c, "second")).await, 2);
    // A client that has just been started knows the rules.
    let fresh = w.client_with(cfg).await;
    fresh.file(ROOT, "other").await;
    fresh.find(ROOT, "other").await.unwrap();
    assert_eq!(fresh.turns(lookup_and_create(&fresh, "third")).await, 2);
    // What the kernel asks about a file that it has just looked up costs nothing.
    let f = fresh.find(d, "first").await.unwrap();
    assert_eq!(fresh.turns(fresh.acl(f, XATTR_ACCESS)).await, 0);
    assert!(fresh.acl(f, XATTR_ACCESS).await.is_some());
    fresh.chmod(f, 0o600).await;
    assert_eq!(fresh.acl(f, XATTR_ACCESS).await.unwrap().mask, 0);
    // A rule that somebody else stored meanwhile is found and not stored again.
    let n = c.stored_rules().await;
    let new = rule([7, 5, 7, 5], &[(8, 7)], &[]);
    c.put_acl(&root(), d, XATTR_DEFAULT, &new).await.unwrap();
    let e = fresh.dir(ROOT, "e").await;
    fresh.put_acl(&root(), e, XATTR_DEFAULT, &new).await.unwrap();
    assert_eq!(c.stored_rules().await, n + 1);
    w.check().await;
}

/// Where ACLs are off they are not supported, but those that others have set still hold.
pub async fn acls_off(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let r = rule([7, 5, 7, 5], &[(7, 7)], &[]);
    c.put_acl(&root(), d, XATTR_DEFAULT, &r).await.unwrap();
    let mut off = w.settings.clone();
    off.enable_acl = false;
    crate::Meta::write_settings(w.store.as_ref(), &off, Some(&w.settings)).await.unwrap();
    let without = w.client().await;
    assert!(!without.meta.has_acls());
    assert_eq!(errno(without.put_acl(&root(), d, XATTR_DEFAULT, &r).await), Errno::EOPNOTSUPP);
    assert_eq!(errno(without.meta.get_xattr(&root(), d, XATTR_DEFAULT.as_bytes()).await), Errno::EOPNOTSUPP);
    assert_eq!(without.meta.list_xattrs(&root(), d).await.unwrap(), [b""; 0]);
    let f = without.file(d, "f").await;
    assert_eq!(c.acl(f, XATTR_ACCESS).await.unwrap().named_users, r.named_users);
    w.check().await;
}

/// A clone has the ACLs of its source; those of one that is not preserved follow the umask like its mode.
pub async fn clones_and_acls(engine: Engine) {
    let w = world(engine).await;
    let c = w.client().await;
    let top = c.dir(ROOT, "t").await;
    let default = rule([7, 5, 5, 0], &[(7, 7)], &[]);
    c.put_acl(&root(), top, XATTR_DEFAULT, &default).await.unwrap();
    let rules = [7, 6, 5].map(|perm| rule([6, 4, 6, 4], &[(perm.into(), perm)], &[]));
    for (n, rule) in rules.iter().enumerate() {
        let f = c.file(top, &n.to_string()).await;
        c.put_acl(&root(), f, XATTR_ACCESS, rule).await.unwrap();
    }
    for preserve in [true, false] {
        let how = crate::CloneOptions { preserve, umask: 0o027, at_once: 4, without_xattrs: None };
        let name = format!("clone {preserve}");
        let progress = std::sync::Arc::default();
        let made = c.meta.clone_tree(&root(), top, ROOT, name.as_bytes(), &how, &progress).await.unwrap();
        assert_eq!(c.acl(made, XATTR_DEFAULT).await, Some(default.clone()));
        for (n, rule) in rules.iter().enumerate() {
            let f = c.find(made, &n.to_string()).await.unwrap();
            let mode = if preserve { 0o664 } else { 0o640 };
            assert_eq!(c.stat(f).await.mode, mode);
            assert_eq!(c.acl(f, XATTR_ACCESS).await, Some(rule.with_mode(mode)), "{preserve} {n}");
        }
    }
    w.check().await;
}
