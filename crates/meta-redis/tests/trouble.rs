//! Servers that fail, forget and run full; records that other clients left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use ciderfs_format::{Edge, FileType, Ino, Slice, SliceId};
use ciderfs_meta::store::{
    AttrMask, AttrPatch, Commit, DirCursor, Guard, Outcome, Output, Read, Store, StoreError, Value, Write,
};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use common::{Proxy, attr, open, put, server, until_available};

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    for ino in 2..5 {
        redis.command(&["SCRIPT", "FLUSH"]).unwrap();
        assert!(matches!(store.commit(&put(ino)).await.unwrap(), Outcome::Done(_)));
        redis.command(&["SCRIPT", "FLUSH"]).unwrap();
        let reads = [Read::Lookup(Ino(1), b"none".to_vec()), Read::Attr(Ino(ino)), Read::Slices(Ino(ino), 0)];
        let values = store.read(&reads).await.unwrap();
        assert_eq!(values, [Value::Lookup(None), Value::Attr(Some(attr(Ino(1)))), Value::Slices(Vec::new())]);
    }
}

#[tokio::test]
async fn a_restart_is_survived_and_nothing_acknowledged_is_lost() {
    let mut redis = RedisServer::start(RedisOptions { append_only: true, ..Default::default() }).unwrap();
    let store = open(&redis.url()).await;
    store.commit(&put(2)).await.unwrap();
    redis.kill();
    // The first call may have been sent before the connection was seen to be gone.
    let e = store.commit(&put(3)).await.unwrap_err();
    assert!(matches!(e, StoreError::Ambiguous(_) | StoreError::Unavailable(_)), "{e:?}");
    let e = store.commit(&put(3)).await.unwrap_err();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
    assert!(matches!(store.read(&[Read::Setting]).await.unwrap_err(), StoreError::Unavailable(_)));
    redis.restart().unwrap();
    until_available(&store, async |s| s.commit(&put(4)).await).await;
    let values = store.read(&[Read::Attr(Ino(2)), Read::Attr(Ino(4))]).await.unwrap();
    assert!(values.iter().all(|v| matches!(v, Value::Attr(Some(_)))), "{values:?}");
}

#[tokio::test]
async fn a_lost_answer_is_ambiguous() {
    let redis = server(&[]);
    let proxy = Proxy::start(redis.port());
    let store = open(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    store.commit(&put(2)).await.unwrap();
    proxy.lose_next_answer();
    let e = store.commit(&put(3)).await.unwrap_err();
    assert!(matches!(e, StoreError::Ambiguous(_)), "{e:?}");
    // It was applied, and the store goes on with a new connection.
    assert_eq!(store.read(&[Read::Attr(Ino(3))]).await.unwrap(), [Value::Attr(Some(attr(Ino(1))))]);
    proxy.lose_next_answer();
    assert!(matches!(store.read(&[Read::Attr(Ino(3))]).await.unwrap_err(), StoreError::Unavailable(_)));
}

#[tokio::test]
async fn a_full_server_says_so_and_nothing_is_half_done() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    store.commit(&put(2)).await.unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let mut commit = put(3);
    commit.writes.push(Write::DelAttr(Ino(2)));
    let e = store.commit(&commit).await.unwrap_err();
    assert!(matches!(&e, StoreError::NoSpace(text) if text.contains("maxmemory")), "{e:?}");
    let values = store.read(&[Read::Attr(Ino(2)), Read::Slices(Ino(2), 0)]).await.unwrap();
    assert!(matches!(&values[..], [Value::Attr(Some(_)), Value::Slices(_)]), "{values:?}");
    // What frees memory first may go on: whole, not by half.
    let writes = vec![Write::DelAttr(Ino(2)), put(3).writes.remove(0)];
    store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
    let values = store.read(&[Read::Attr(Ino(2)), Read::Attr(Ino(3))]).await.unwrap();
    assert!(matches!(values[..], [Value::Attr(None), Value::Attr(Some(_))]), "{values:?}");
}

#[tokio::test]
async fn a_script_stops_a_transaction_under_watch() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    store.commit(&put(2)).await.unwrap();
    let mut other = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    redis::cmd("WATCH").arg("i2").exec(&mut other).unwrap();
    let patch = AttrPatch { nlink: 1, ..AttrPatch::default() };
    let commit = Commit { guards: Vec::new(), writes: vec![Write::PatchAttr(Ino(2), patch)] };
    store.commit(&commit).await.unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic().set("i2", "overwritten");
    let outcome: redis::Value = pipe.query(&mut other).unwrap();
    assert_eq!(outcome, redis::Value::Nil);
}

/// Records whose bytes differ from ours although they mean the same do not stop a commit for ever.
#[tokio::test]
async fn records_of_old_clients() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    let mut raw = attr(Ino(1)).encode();
    raw.truncate(71);
    let mut other = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    redis::cmd("SET").arg("i2").arg(raw).exec(&mut other).unwrap();
    let guard = Guard::Attr { ino: Ino(2), expect: Some(attr(Ino(1))), mask: AttrMask::ALL };
    let patch = AttrPatch { mode: Some(0o7777), parent: Some(Ino(9)), nlink: 70_000, ..AttrPatch::default() };
    let commit = Commit { guards: vec![guard], writes: vec![Write::PatchAttr(Ino(2), patch.clone())] };
    assert!(matches!(store.commit(&commit).await.unwrap(), Outcome::Done(_)));
    let mut want = attr(Ino(1));
    patch.apply(&mut want);
    assert_eq!(store.read(&[Read::Attr(Ino(2))]).await.unwrap(), [Value::Attr(Some(want))]);
}

#[tokio::test]
async fn every_byte_of_a_patch() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    let time = |sec| Some(ciderfs_format::Time { sec, nsec: 999_999_999 });
    let patches = [
        AttrPatch {
            flags: Some(0x23),
            mode: Some(0o1234),
            uid: Some(u32::MAX),
            gid: Some(7),
            ..Default::default()
        },
        AttrPatch { atime: time(-1), mtime: time(i64::MIN), ctime: time(i64::MAX), ..Default::default() },
        AttrPatch { length: Some((1 << 57) - 1), nlink: -1, ..Default::default() },
        AttrPatch { tail: Some((3, 4, 2)), nlink: 65_536, ..Default::default() },
        AttrPatch { parent: Some(Ino::TRASH), mode: Some(0), ..Default::default() },
        AttrPatch { tail: Some((0, 0, 1)), ..Default::default() },
        AttrPatch { tail: Some((0, 0, 0)), length: Some(u64::from(u32::MAX)), ..Default::default() },
    ];
    let mut want = attr(Ino(1));
    store.commit(&put(2)).await.unwrap();
    for patch in patches {
        patch.apply(&mut want);
        let commit = Commit { guards: Vec::new(), writes: vec![Write::PatchAttr(Ino(2), patch.clone())] };
        store.commit(&commit).await.unwrap();
        let found = store.read(&[Read::Attr(Ino(2))]).await.unwrap();
        assert_eq!(found, [Value::Attr(Some(want.clone()))], "{patch:?}");
        let mut other = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        let raw: Vec<u8> = redis::cmd("GET").arg("i2").query(&mut other).unwrap();
        assert_eq!(raw, want.encode(), "{patch:?}");
    }
    // A missing inode stays missing.
    let commit = Commit {
        guards: Vec::new(),
        writes: vec![Write::PatchAttr(Ino(3), AttrPatch { nlink: 1, ..Default::default() })],
    };
    store.commit(&commit).await.unwrap();
    assert_eq!(store.read(&[Read::Attr(Ino(3))]).await.unwrap(), [Value::Attr(None)]);
}

/// Lua's numbers are doubles: inodes of the trash and ids beyond 2^53 must come through whole.
#[tokio::test]
async fn numbers_beyond_doubles() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    let big = [(1 << 53) - 1, 1 << 53, (1 << 53) + 1, Ino::TRASH.0 + 1, 10_000_000_000_000_001, u64::MAX];
    for ino in big.map(Ino) {
        let edge = Edge { kind: FileType::File, ino };
        let name = ino.to_string().into_bytes();
        let mut want = attr(Ino(1));
        want.uid = ino.0 as u32;
        let slice = Slice { pos: 0, id: SliceId(ino.0), size: u32::MAX, off: 0, len: 5 };
        let writes = vec![
            Write::PutAttr(ino, want.clone()),
            Write::PutEdge(Ino(1), name.clone(), edge),
            Write::AppendSlices(ino, 3, vec![slice, Slice::zeros(0, 9), slice]),
        ];
        store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
        let found = store.read(&[Read::Lookup(Ino(1), name.clone())]).await.unwrap();
        assert_eq!(found, [Value::Lookup(Some((edge, Some(want.clone()))))]);
        let (page, end) = store.list_dir(Ino(1), &DirCursor::Start, 10, true).await.unwrap();
        assert_eq!(end, DirCursor::End);
        assert_eq!(page.iter().find(|e| e.name == name).unwrap().attr, Some(want));
        let take = Commit { guards: Vec::new(), writes: vec![Write::TakeSlices(ino, 3)] };
        let Outcome::Done(outputs) = store.commit(&take).await.unwrap() else { panic!("a conflict") };
        let bare = Slice { id: SliceId(ino.0), size: u32::MAX, ..Slice::default() };
        assert_eq!(outputs, [Output::Slices(vec![(bare, 0), (bare, -1)])]);
        assert_eq!(redis.command(&["HGET", "sliceRef", &format!("k{}_4294967295", ino.0)]).unwrap(), "-2");
    }
}

/// Long ranges go by a loop of the script, very long ones by a walk over the keys.
#[tokio::test]
async fn appends_to_ranges_of_chunks() {
    let redis = server(&[]);
    let store = open(&redis.url()).await;
    let there = [1, 2, 70, 5_000, 300_000, u32::MAX - 1];
    let first = Slice { pos: 0, id: SliceId(9), size: 4, off: 0, len: 4 };
    let writes = there.iter().map(|&i| Write::AppendSlices(Ino(2), i, vec![first])).collect();
    store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
    let zeros = Slice::zeros(0, 1 << 26);
    for (range, hit) in [(2..3, 1), (0..71, 3), (1..5_001, 4), (2..u32::MAX, 5), (7..7, 0)] {
        let before = records(&redis);
        let write = Write::AppendSliceIfExists(Ino(2), range.clone(), zeros);
        store.commit(&Commit { guards: Vec::new(), writes: vec![write] }).await.unwrap();
        assert_eq!(records(&redis) - before, hit, "{range:?}");
    }
    assert_eq!(redis.command(&["DBSIZE"]).unwrap(), there.len().to_string());
}

fn records(redis: &RedisServer) -> usize {
    let keys = redis.command(&["KEYS", "c2_*"]).unwrap();
    keys.lines().map(|k| redis.command(&["LLEN", k]).unwrap().parse::<usize>().unwrap()).sum()
}
