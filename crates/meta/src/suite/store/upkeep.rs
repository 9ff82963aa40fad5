//! Counters, claims, settings, sessions, deleted files, usage records, ACLs, locks.

use bytes::Bytes;
use ciderfs_format::Ino;

use super::*;
use crate::store::{Counter, DirStat, Job, LockKind, LockOwner, Scan, Scanned, StoreError};

/// Counters start at 0 and add.
pub async fn counters(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let all = [Counter::NextSession, Counter::NextTrash, Counter::UsedSpace, Counter::TotalInodes];
    for c in all {
        assert_eq!(read(s, Read::Counter(c)).await, Value::Int(0));
        assert_eq!(write_one(s, Write::AddCounter(c, 5)).await, Output::Int(5), "{c:?}");
        assert_eq!(write_one(s, Write::AddCounter(c, -7)).await, Output::Int(-2), "{c:?}");
        assert_eq!(read(s, Read::Counter(c)).await, Value::Int(-2));
    }
    let out = write(s, vec![Write::AddCounter(all[2], 1 << 50), Write::AddCounter(all[2], 2)]).await;
    assert_eq!(out, [Output::Int((1 << 50) - 2), Output::Int(1 << 50)]);
    assert_eq!(read(s, Read::Counter(Counter::TotalInodes)).await, Value::Int(-2));
    // First values disturb no counter.
    write(s, vec![Write::InitCounters]).await;
    assert_eq!(read(s, Read::Counter(Counter::UsedSpace)).await, Value::Int(1 << 50));
    assert_eq!(read(s, Read::Counter(Counter::TotalInodes)).await, Value::Int(-2));
}

/// Numbers are handed out once, from 2 (inodes) and 1 (slices), whether or not the volume was initialised.
pub async fn allocation(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    // The first inode may be a little above 2, never below.
    let first = s.allocate(Counter::NextInode, 10).await.unwrap();
    assert!(first.start >= 2, "{first:?}");
    write(s, vec![Write::InitCounters]).await;
    let mut end = first.end;
    for count in [1, 1024, 3] {
        let got = s.allocate(Counter::NextInode, count).await.unwrap();
        assert_eq!(got.start, end, "numbers are consecutive");
        assert!(got.end - got.start == count, "{got:?}");
        end = got.end;
    }
    let slices = s.allocate(Counter::NextChunk, 4096).await.unwrap();
    assert!(slices.start >= 1 && slices.end - slices.start == 4096, "{slices:?}");
    let more = s.allocate(Counter::NextChunk, 1).await.unwrap();
    assert_eq!(more.start, slices.end);
    for c in [Counter::NextSession, Counter::UsedSpace] {
        assert!(s.allocate(c, 1).await.is_err(), "{c:?} hands out no numbers");
    }
}

/// A job is won once per interval.
pub async fn claims(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    for job in [Job::CleanupSessions, Job::CleanupFiles, Job::CleanupTrash, Job::CleanupSlices] {
        let now = 1_700_000_000;
        assert!(s.claim(job, now, 3240).await.unwrap(), "{job:?}: never run before");
        assert!(!s.claim(job, now, 3240).await.unwrap());
        assert!(!s.claim(job, now + 3239, 3240).await.unwrap());
        assert!(s.claim(job, now + 3240, 3240).await.unwrap());
        assert!(!s.claim(job, now + 3241, 3240).await.unwrap(), "the stamp moved");
        assert!(!s.claim(job, now, 3240).await.unwrap(), "a clock that is behind wins nothing");
        assert!(s.claim(job, now + 3240, 0).await.unwrap());
        // A stamp of a clock that is an hour, a day or a year ahead, and goes back.
        for ahead in [3241, 86_400, 365 * 86_400] {
            let begin = now + 3240;
            assert!(s.claim(job, begin + ahead, 3240).await.unwrap(), "{job:?} {ahead}");
            assert!(
                s.claim(job, begin, 3240).await.unwrap(),
                "{job:?}: kept from it by a clock {ahead} s ahead"
            );
            assert!(!s.claim(job, begin, 3240).await.unwrap(), "{job:?}: once too often, no more");
        }
    }
}

/// The settings document.
pub async fn settings(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::Setting).await, Value::Bytes(None));
    let documents = [Bytes::from_static(b"{\n\"Name\": \"a\"\n}"), Bytes::from("{\"Name\": \"\u{e9}\"}")];
    let mut before = None;
    for doc in documents {
        let guards = vec![Guard::Setting(before.clone())];
        let commit = Commit { guards, writes: vec![Write::PutSetting(doc.clone())] };
        assert_eq!(s.commit(&commit).await.unwrap(), Outcome::Done(vec![Output::None]));
        assert_eq!(read(s, Read::Setting).await, Value::Bytes(Some(doc.clone())));
        // The guard fails now.
        assert_eq!(
            s.commit(&commit).await.unwrap(),
            Outcome::Conflict(vec![Value::Bytes(Some(doc.clone()))])
        );
        before = Some(doc);
    }
    let commit = Commit { guards: vec![Guard::Setting(before.clone())], writes: vec![Write::DelSetting] };
    assert_eq!(s.commit(&commit).await.unwrap(), Outcome::Done(vec![Output::None]));
    assert_eq!(read(s, Read::Setting).await, Value::Bytes(None));
    assert_eq!(s.commit(&commit).await.unwrap(), Outcome::Conflict(vec![Value::Bytes(None)]));
}

/// Sessions come, are refreshed and go; the stale ones are told apart.
pub async fn sessions(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::Session(1)).await, Value::Bool(false));
    let info = Bytes::from_static(b"{\"Version\":\"x\"}");
    let put = |sid, expire| Write::PutSession(sid, expire, info.clone());
    assert_eq!(write_one(s, put(1, 100)).await, Output::Int(0));
    assert_eq!(write_one(s, put(1, 200)).await, Output::Int(1));
    assert_eq!(write_one(s, put(2, 150)).await, Output::Int(0));
    assert_eq!(write_one(s, put(30, 90)).await, Output::Int(0));
    assert_eq!(read(s, Read::Session(1)).await, Value::Bool(true));
    let rows = |items: Vec<Scanned>| -> Vec<(u64, i64)> {
        let row = |i| match i {
            Scanned::Session(sid, expire, doc) => {
                assert_eq!(doc, info);
                (sid, expire)
            }
            other => panic!("{other:?}"),
        };
        sorted(items.into_iter().map(row).collect())
    };
    assert_eq!(rows(s.scan(&Scan::Sessions, usize::MAX).await.unwrap()), [(1, 200), (2, 150), (30, 90)]);
    assert_eq!(rows(s.scan(&Scan::StaleSessions(150), 100).await.unwrap()), [(2, 150), (30, 90)]);
    assert_eq!(rows(s.scan(&Scan::StaleSessions(89), 100).await.unwrap()), []);
    assert_eq!(s.scan(&Scan::StaleSessions(1000), 2).await.unwrap().len(), 2);
    assert!(matches!(s.commit(&probe(vec![Guard::Session(2)])).await.unwrap(), Outcome::Done(_)));
    write(s, vec![Write::DelSession(2), Write::DelSession(77)]).await;
    let refused = s.commit(&probe(vec![Guard::Session(2)])).await.unwrap();
    assert_eq!(refused, Outcome::Conflict(vec![Value::Bool(false)]));
    assert_eq!(rows(s.scan(&Scan::Sessions, 100).await.unwrap()), [(1, 200), (30, 90)]);
    assert_eq!(write_one(s, put(2, 1)).await, Output::Int(0), "resurrected");
}

/// Inodes kept for a session.
pub async fn sustained(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let puts = [(1, 7), (1, 8), (2, 7), (1, 7)].map(|(sid, ino)| Write::PutSustained(sid, Ino(ino)));
    write(s, puts.to_vec()).await;
    let of = async |sid| {
        let items = s.scan(&Scan::Sustained(sid), 100).await.unwrap();
        sorted(items.into_iter().map(|i| if let Scanned::Ino(i) = i { i } else { panic!() }).collect())
    };
    assert_eq!(of(1).await, [Ino(7), Ino(8)]);
    assert_eq!(of(2).await, [Ino(7)]);
    assert_eq!(of(3).await, []);
    assert_eq!(s.scan(&Scan::Sustained(1), 1).await.unwrap().len(), 1);
    write(s, vec![Write::DelSustained(1, Ino(7)), Write::DelSustained(1, Ino(9))]).await;
    assert_eq!(of(1).await, [Ino(8)]);
    assert_eq!(of(2).await, [Ino(7)]);
}

/// Files whose data is to be deleted, by age.
pub async fn deleted_files(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let puts =
        [(7, 0, 100), (8, 1 << 40, 200), (9, 5, 300)].map(|(i, n, at)| Write::PutDelfile(Ino(i), n, at));
    write(s, puts.to_vec()).await;
    let until = async |at| {
        let items = s.scan(&Scan::Delfiles(at), 100).await.unwrap();
        let row = |i| if let Scanned::Delfile(i, n, at) = i { (i.0, n, at) } else { panic!() };
        sorted(items.into_iter().map(row).collect())
    };
    assert_eq!(until(99).await, []);
    assert_eq!(until(200).await, [(7, 0, 100), (8, 1 << 40, 200)]);
    assert_eq!(s.scan(&Scan::Delfiles(500), 2).await.unwrap().len(), 2);
    write(s, vec![Write::DelDelfile(Ino(8), 1 << 40), Write::DelDelfile(Ino(11), 1)]).await;
    assert_eq!(until(500).await, [(7, 0, 100), (9, 5, 300)]);
}

/// Directories without a name, by age.
pub async fn detached_trees(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    write(s, [(7, 100), (8, 200), (9, 300), (7, 400)].map(|(i, at)| Write::PutDetached(Ino(i), at)).to_vec())
        .await;
    let until = async |at, limit| {
        let items = s.scan(&Scan::Detached(at), limit).await.unwrap();
        let row = |i| if let Scanned::Ino(i) = i { i.0 } else { panic!() };
        sorted::<u64>(items.into_iter().map(row).collect())
    };
    assert!(until(199, 10).await.is_empty());
    assert_eq!(until(300, 10).await, [8, 9]);
    assert_eq!(until(i64::MAX >> 1, 10).await, [7, 8, 9]);
    assert_eq!(until(i64::MAX >> 1, 2).await.len(), 2);
    write(s, vec![Write::DelDetached(Ino(8)), Write::DelDetached(Ino(11))]).await;
    assert_eq!(until(i64::MAX >> 1, usize::MAX).await, [7, 9]);
}

/// Usage records of directories are added to only if they exist.
pub async fn dir_stats(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let get = Read::DirStat(Ino(1));
    let d = DirStat { length: 5, space: 4096, inodes: 1 };
    assert_eq!(read(s, get.clone()).await, Value::DirStat(None));
    assert_eq!(write_one(s, Write::AddDirStat(Ino(1), d)).await, Output::Int(0));
    assert_eq!(read(s, get.clone()).await, Value::DirStat(None));
    assert_eq!(write_one(s, Write::InitDirStat(Ino(1))).await, Output::None);
    assert_eq!(read(s, get.clone()).await, Value::DirStat(Some(DirStat::default())));
    assert_eq!(write_one(s, Write::AddDirStat(Ino(1), d)).await, Output::Int(1));
    let minus = DirStat { length: -7, space: -4096, inodes: 3 };
    assert_eq!(write_one(s, Write::AddDirStat(Ino(1), minus)).await, Output::Int(1));
    let sum = DirStat { length: -2, space: 0, inodes: 4 };
    assert_eq!(read(s, get.clone()).await, Value::DirStat(Some(sum)));
    // One field at a time.
    for one in [DirStat { length: 1, ..DirStat::default() }, DirStat { space: 1 << 50, ..DirStat::default() }]
    {
        assert_eq!(write_one(s, Write::AddDirStat(Ino(1), one)).await, Output::Int(1));
    }
    let sum = DirStat { length: -1, space: 1 << 50, inodes: 4 };
    assert_eq!(read(s, get.clone()).await, Value::DirStat(Some(sum)));
    write(s, vec![Write::PutDirStat(Ino(1), d), Write::PutDirStat(Ino(2), d)]).await;
    assert_eq!(read(s, get.clone()).await, Value::DirStat(Some(d)));
    write(s, vec![Write::DelDirStat(Ino(1)), Write::DelDirStat(Ino(3))]).await;
    assert_eq!(read(s, get).await, Value::DirStat(None));
    assert_eq!(read(s, Read::DirStat(Ino(2))).await, Value::DirStat(Some(d)));
    // Created and added to in one commit.
    let out = write(s, vec![Write::InitDirStat(Ino(4)), Write::AddDirStat(Ino(4), d)]).await;
    assert_eq!(out, [Output::None, Output::Int(1)]);
}

/// ACL rules by id.
pub async fn acls(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let rule = |n: u8| {
        let mut raw = vec![0, 7, 0, 5, 0xff, 0xff, 0, n];
        raw.extend_from_slice(&[0, 0, 0, 1, 0, 0, 1, n, 0, 6]);
        raw.extend_from_slice(&[0, 0, 0, 0]);
        Bytes::from(raw)
    };
    assert_eq!(read(s, Read::Acl(1)).await, Value::Bytes(None));
    for id in 1..=3 {
        let out =
            write(s, vec![Write::AddCounter(Counter::AclMaxId, 1), Write::PutAcl(id, rule(id as u8))]).await;
        assert_eq!(out, [Output::Int(i64::from(id)), Output::None]);
        assert_eq!(read(s, Read::Counter(Counter::AclMaxId)).await, Value::Int(i64::from(id)));
    }
    for id in 1..=3 {
        assert_eq!(read(s, Read::Acl(id)).await, Value::Bytes(Some(rule(id as u8))));
    }
    assert_eq!(read(s, Read::Acl(4)).await, Value::Bytes(None));
}

/// Whole-file locks.
pub async fn flocks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let held = async |ino| match read(s, Read::Flocks(Ino(ino))).await {
        Value::Flocks(list) => sorted(list),
        other => panic!("{other:?}"),
    };
    assert_eq!(held(7).await, []);
    let odd = (2, u64::MAX);
    let put = |ino, owner, lock| Write::PutFlock(Ino(ino), owner, lock);
    assert_eq!(write_one(s, put(7, (1, 5), Some(false))).await, Output::None);
    write(s, vec![put(7, odd, Some(false)), put(8, (1, 5), Some(true))]).await;
    assert_eq!(held(7).await, [((1, 5), false), (odd, false)]);
    write(s, vec![put(7, (1, 5), None), put(7, odd, Some(true)), put(7, (9, 9), None)]).await;
    assert_eq!(held(7).await, [(odd, true)]);
    assert_eq!(held(8).await, [((1, 5), true)]);
    let locked = async |sid| s.scan(&Scan::Locked(sid), 100).await.unwrap();
    assert_eq!(locked(1).await, [Scanned::Ino(Ino(8))]);
    assert_eq!(locked(2).await, [Scanned::Ino(Ino(7))]);
    let guard = |expect| Guard::Flocks { ino: Ino(7), expect };
    assert!(matches!(s.commit(&probe(vec![guard(vec![(odd, true)])])).await.unwrap(), Outcome::Done(_)));
    let refused = s.commit(&probe(vec![guard(vec![(odd, false)])])).await.unwrap();
    assert_eq!(refused, Outcome::Conflict(vec![Value::Flocks(vec![(odd, true)])]));
    holders(s, LockKind::Flock, odd).await;
}

/// Record locks.
pub async fn plocks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let held = async |ino| match read(s, Read::Plocks(Ino(ino))).await {
        Value::Plocks(list) => sorted(list),
        other => panic!("{other:?}"),
    };
    let records = |n: u8| Bytes::from(vec![n; 24 * usize::from(n)]);
    let odd = (2, u64::MAX);
    let put = |ino, owner, list| Write::PutPlock(Ino(ino), owner, list);
    assert_eq!(held(7).await, []);
    write(s, vec![put(7, (1, 5), Some(records(1))), put(7, odd, Some(records(2)))]).await;
    assert_eq!(held(7).await, [((1, 5), records(1)), (odd, records(2))]);
    write(s, vec![put(7, (1, 5), Some(records(0))), put(7, odd, Some(records(3))), put(7, (3, 3), None)])
        .await;
    assert_eq!(held(7).await, [(odd, records(3))], "an empty list is no lock");
    write(s, vec![put(8, (2, 1), Some(records(1))), Write::PutFlock(Ino(8), (2, 1), Some(true))]).await;
    let mut locked = s.scan(&Scan::Locked(2), 100).await.unwrap();
    locked.sort_by_key(|i| if let Scanned::Ino(i) = i { *i } else { panic!() });
    assert_eq!(locked, [Scanned::Ino(Ino(7)), Scanned::Ino(Ino(8))], "each inode once");
    let guard = |expect| Guard::Plocks { ino: Ino(7), expect };
    assert!(matches!(
        s.commit(&probe(vec![guard(vec![(odd, records(3))])])).await.unwrap(),
        Outcome::Done(_)
    ));
    let refused = s.commit(&probe(vec![guard(Vec::new())])).await.unwrap();
    assert_eq!(refused, Outcome::Conflict(vec![Value::Plocks(vec![(odd, records(3))])]));
    holders(s, LockKind::Record, odd).await;
}

/// Of the locks of this kind on inode 7 there is only `one`.
async fn holders(s: &dyn Store, kind: LockKind, one: LockOwner) {
    let other = (one.0 + 1, one.1);
    assert_eq!(read(s, Read::Holds(Ino(7), kind, one)).await, Value::Bool(true));
    assert_eq!(read(s, Read::Holds(Ino(7), kind, other)).await, Value::Bool(false));
    let guard = |owner| probe(vec![Guard::Holds(Ino(7), kind, owner)]);
    assert!(matches!(s.commit(&guard(one)).await.unwrap(), Outcome::Done(_)));
    let refused = s.commit(&guard(other)).await.unwrap();
    assert_eq!(refused, Outcome::Conflict(vec![Value::Bool(false)]));
}

/// Creating the schema again changes nothing.
pub async fn schema_twice(engine: Engine) {
    let s = ready(&engine).await;
    write(s.as_ref(), vec![Write::PutSymlink(Ino(7), "kept".into())]).await;
    s.create_schema().await.unwrap();
    engine.open().await.create_schema().await.unwrap();
    assert_eq!(read(s.as_ref(), Read::Symlink(Ino(7))).await, Value::Bytes(Some("kept".into())));
    assert!(!s.engine().is_empty() && !s.describe().is_empty());
    let before = s.turns();
    s.read(&[Read::Setting]).await.unwrap();
    assert!(s.turns() > before);
    let empty: Result<Vec<Value>, StoreError> = s.read(&[]).await;
    assert_eq!(empty.unwrap(), []);
    assert_eq!(s.commit(&Commit::default()).await.unwrap(), Outcome::Done(Vec::new()));
}
