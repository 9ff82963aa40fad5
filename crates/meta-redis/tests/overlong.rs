//! Records that are longer than any sound one, as whoever can write to the server may make them: they are refused before they
//! leave it, so the client never holds one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use ciderfs_format::session::lock_owner_field;
use ciderfs_format::{Attr, Edge, FileType, Ino, SessionId, Slice, SliceId};
use ciderfs_meta::store::{
    AttrMask, AttrPatch, Commit, Counter, DirCursor, DirEntry, Guard, LockKind, Outcome, QuotaKey, Read,
    Scan, Store, StoreError, Value, Write,
};
use ciderfs_testkit::redis::RedisServer;
use common::{attr, open, server};

/// Bytes of the records. A server takes up to 512 MiB.
const LONG: u64 = 40 << 20;
/// The most that a refusal may take, in KiB; some is what the process takes anyhow.
const TAKEN_MAX: u64 = 16 << 10;

/// A figure of this process in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs something and checks what it took at most.
async fn small<T>(what: &str, work: impl Future<Output = T>) -> T {
    let before = memory("VmRSS");
    // The peak starts anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let out = work.await;
    let taken = memory("VmHWM").saturating_sub(before);
    assert!(taken < TAKEN_MAX, "{what} took {taken} KiB");
    out
}

/// Has the server itself make records of [`LONG`] bytes: `L` stands for one in the commands.
fn damage(redis: &RedisServer, commands: &str) {
    let script = format!("local L = string.rep('x', {LONG}) redis.call('FLUSHDB') {commands} return 1");
    redis.command(&["EVAL", &script, "0"]).unwrap();
}

fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) {
    match result {
        Err(StoreError::Corrupt(text)) => assert!(text.contains("bytes"), "{what}: {text}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn records_that_are_too_long_are_not_fetched() {
    let redis = server(&[]);
    let store = open(&redis.url_db(0)).await;
    let ino = Ino(5);
    let reads = [
        ("'SET','i5',L", Read::Attr(ino)),
        ("'HSET','d5','n',L", Read::Edge(ino, b"n".to_vec())),
        ("'HSET','d5','n',L", Read::Lookup(ino, b"n".to_vec())),
        ("'RPUSH','c5_0',L", Read::Slices(ino, 0)),
        ("'SET','s5',L", Read::Symlink(ino)),
        ("'HSET','x5','n',L", Read::Xattr(ino, b"n".to_vec())),
        ("'HSET','x5',L,'v'", Read::XattrNames(ino)),
        ("'HSET','p5',L,'1'", Read::Parents(ino)),
        ("'HSET','p5','7',L", Read::Parents(ino)),
        ("'SET','usedSpace',L", Read::Counter(Counter::UsedSpace)),
        ("'SET','setting',L", Read::Setting),
        ("'HSET','sliceRef','k7_9',L", Read::SliceRefs(SliceId(7), 9)),
        ("'HSET','dirUsedSpace','5',L", Read::DirStat(ino)),
        ("'HSET','dirQuotaUsedInodes','5',L", Read::Quota(QuotaKey::Dir(ino))),
        ("'HSET','acl','7',L", Read::Acl(7)),
        ("'HSET','lockf5',L,'W'", Read::Flocks(ino)),
        ("'HSET','lockp5','1_1',L", Read::Plocks(ino)),
    ];
    for (command, read) in &reads {
        damage(&redis, &format!("redis.call({command})"));
        refused(command, small(command, store.read(std::slice::from_ref(read))).await);
        // In a batch, as most reads are.
        refused(command, small(command, store.read(&[Read::Session(SessionId(1)), read.clone()])).await);
    }
    // What only asks whether there is something, or how long it is, is answered.
    let owner = lock_owner_field(SessionId(1), 1);
    damage(&redis, &format!("redis.call('HSET','x5','n',L) redis.call('HSET','lockf5','{owner}',L)"));
    let asked = [Read::XattrSizes(ino, b"n".to_vec()), Read::Holds(ino, LockKind::Flock, (SessionId(1), 1))];
    let answers = small("sizes", store.read(&asked)).await.unwrap();
    assert_eq!(answers, [Value::XattrSizes(0, Some(LONG)), Value::Bool(true)]);
}

#[tokio::test]
async fn what_a_commit_tells_is_bounded() {
    let redis = server(&[]);
    let store = open(&redis.url_db(0)).await;
    let ino = Ino(5);
    let edge = Edge { kind: FileType::File, ino };
    let slice = Slice { pos: 0, id: SliceId(7), size: 9, off: 0, len: 9 };
    let guards = [
        ("'SET','i5',L", Guard::Attr { ino, expect: Some(attr(Ino(1))), mask: AttrMask::ALL }),
        ("'HSET','d5','n',L", Guard::Edge { dir: ino, name: b"n".to_vec(), expect: Some(edge) }),
        ("'RPUSH','c5_0',L", Guard::Slices { ino, indx: 0, list: vec![slice] }),
        ("'RPUSH','c5_0',L", Guard::SlicesPrefix { ino, indx: 0, prefix: vec![slice] }),
        ("'HSET','x5','n',L", Guard::Xattr { ino, name: b"n".to_vec(), expect: None }),
        ("'SET','usedSpace',L", Guard::CounterRoom(Counter::UsedSpace, 1)),
        ("'SET','setting',L", Guard::Setting(None)),
        ("'HSET','p5','7',L", Guard::Parents { ino, expect: Vec::new() }),
    ];
    for (command, guard) in guards {
        damage(&redis, &format!("redis.call({command})"));
        let commit = Commit { guards: vec![guard], writes: Vec::new() };
        refused(command, small(command, store.commit(&commit)).await);
    }
    let writes = [
        ("'SET','i5',L", Write::TellAttr(ino)),
        ("'SET','i5',L", Write::PatchAttr(ino, AttrPatch { nlink: 1, ..AttrPatch::default() })),
    ];
    for (command, write) in writes {
        damage(&redis, &format!("redis.call({command})"));
        let commit = Commit { guards: Vec::new(), writes: vec![write] };
        refused(command, small(command, store.commit(&commit)).await);
    }
    // What is no record of a slice refers to nothing, however long.
    damage(&redis, "redis.call('RPUSH','c5_0',L)");
    let take = Commit { guards: Vec::new(), writes: vec![Write::TakeSlices(ino, 0)] };
    let taken = small("taking a list", store.commit(&take)).await.unwrap();
    assert!(matches!(taken, Outcome::Done(_)), "{taken:?}");
}

#[tokio::test]
async fn listings_and_walks_leave_it_out() {
    let redis = server(&[]);
    let store = open(&redis.url_db(0)).await;
    let sound = Attr { nlink: 1, ..attr(Ino(5)) };
    let put = vec![
        Write::PutAttr(Ino(6), sound.clone()),
        Write::PutEdge(Ino(5), b"sound".to_vec(), Edge { kind: FileType::File, ino: Ino(6) }),
    ];
    for many in [0, 3000] {
        damage(
            &redis,
            &format!(
                "redis.call('SET','i1',L) redis.call('HSET','d5',L,'x') redis.call('HSET','d5','odd',L)
                redis.call('HSET','d5','one','\\1\\0\\0\\0\\0\\0\\0\\0\\1')
                for i = 1, {many} do redis.call('HSET','d5',i,'\\1\\0\\0\\0\\0\\0\\0\\0\\9') end"
            ),
        );
        store.commit(&Commit { guards: Vec::new(), writes: put.clone() }).await.unwrap();
        for attrs in [false, true] {
            let listing = async {
                let (mut all, mut cursor) = (Vec::new(), DirCursor::Start);
                while cursor != DirCursor::End {
                    let (page, next) = store.list_dir(Ino(5), &cursor, 500, attrs).await.unwrap();
                    all.extend(page);
                    cursor = next;
                }
                all
            };
            let mut all = small("a listing", listing).await;
            all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            all.dedup();
            assert_eq!(all.len(), many + 4);
            let of = |name: &[u8]| all.iter().find(|e| e.name == name).unwrap();
            assert_eq!(of(b"sound").attr, attrs.then(|| sound.clone()));
            assert_eq!((of(b"one").edge.ino, &of(b"one").attr), (Ino(1), &None));
            assert_eq!(of(b"odd").edge, DirEntry::UNREADABLE);
            assert_eq!(of(&[b'x'; 256]).edge, DirEntry::UNREADABLE);
        }
    }
    let far = i64::MAX >> 1;
    let walks = [
        (
            "redis.call('ZADD','allSessions',7,L,7,'7') redis.call('HSET','sessionInfos','7',L)",
            Scan::Sessions,
            1,
        ),
        ("redis.call('SADD','session7',L,'5')", Scan::Sustained(SessionId(7)), 1),
        ("redis.call('SADD','locked7',L,'lockf5')", Scan::Locked(SessionId(7)), 1),
        ("redis.call('ZADD','delfiles',7,L,7,'5:9')", Scan::Delfiles(far), 1),
        ("redis.call('HSET','sliceRef',L,'-1','k7_9',L,'k8_9','-1')", Scan::DeadSlices, 1),
        ("redis.call('HSET','delSlices',L,'','7_8',L,'8_8','')", Scan::DelayedSlices, 1),
        (
            "redis.call('HSET','dirQuotaUsedInodes',L,'1','7',L,'8','1','9','1') redis.call('HSET','dirQuota','8',L)",
            Scan::DirQuotas,
            1,
        ),
        ("redis.call('HSET','userQuotaUsedInodes','7',L,'8','1')", Scan::OwnerQuotas, 1),
    ];
    for (commands, scan, readable) in walks {
        damage(&redis, commands);
        let found =
            small(commands, store.scan(&scan, 100)).await.unwrap_or_else(|e| panic!("{commands}: {e}"));
        assert_eq!(found.len(), readable, "{commands}: {found:?}");
    }
}
