//! Chunk lists: writing, reading, truncating, compacting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_format::slice::MAX_FILE_SIZE;
use ciderfs_format::{CHUNK_SIZE, Slice, SliceId};

use crate::SetAttr;
use crate::error::Errno;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::{Caller, NewSlice};

/// (position, id, offset, length) of what a reader sees.
async fn seen(c: &Client, ino: ciderfs_format::Ino, indx: u32) -> Vec<(u32, u64, u32, u32)> {
    let view = c.meta.read_chunk(ino, indx).await.unwrap();
    view.extents
        .iter()
        .map(|e| (e.pos, e.id.0, if e.id == SliceId::ZEROS { 0 } else { e.off }, e.len))
        .collect()
}

/// Appending slices: length, times, usage, lists.
pub async fn write(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let before = c.stat(f).await;
    assert_eq!(seen(&c, f, 0).await, []);
    let one = c.fresh(0, 1000).await;
    let mtime = ciderfs_format::Time { sec: 5, nsec: 6 };
    let written = c.meta.write(f, &[NewSlice::at(0, one)], mtime).await.unwrap();
    assert_eq!(written.lists, [(0, 1)]);
    assert_eq!((written.changed.attr.length, written.changed.attr.mtime), (1000, mtime));
    // ctime is the time of the write, which programs have seen, not that of the commit; it never goes back.
    assert_eq!(written.changed.attr.ctime, before.ctime);
    let later = ciderfs_format::Time { sec: before.ctime.sec + 7, nsec: 8 };
    let again = c.fresh(0, 1000).await;
    let written = c.meta.write(f, &[NewSlice::at(0, again)], later).await.unwrap();
    assert_eq!((written.changed.attr.mtime, written.changed.attr.ctime), (later, later));
    let one = again;
    assert_eq!(written.changed.attr, c.stat(f).await);
    assert_eq!(seen(&c, f, 0).await, [(0, one.id.0, 0, 1000)]);
    // Over the middle: the newer hides the older.
    let two = c.put(f, 0, 100, 200).await;
    let want = [(0, one.id.0, 0, 100), (100, two.id.0, 0, 200), (300, one.id.0, 300, 700)];
    assert_eq!(seen(&c, f, 0).await, want);
    assert_eq!(c.stat(f).await.length, 1000);
    // Beyond the end: a hole.
    let three = c.put(f, 0, 5000, 10).await;
    assert_eq!(seen(&c, f, 0).await[3..], [(1000, 0, 0, 4000), (5000, three.id.0, 0, 10)]);
    assert_eq!(c.stat(f).await.length, 5010);
    // Several chunks in one commit, one slice used twice, chunks never written are empty.
    let (four, five) = (c.fresh(7, 100).await, c.fresh(0, 50).await);
    let twice = Slice { pos: 500, off: 20, len: 10, ..four };
    let appends = [NewSlice::at(3, four), NewSlice::at(3, twice), NewSlice::at(5, five)];
    let written = c.meta.write(f, &appends, mtime).await.unwrap();
    assert_eq!(written.lists, [(3, 2), (5, 1)]);
    assert_eq!(written.changed.attr.length, 5 * CHUNK_SIZE + 50);
    let want = [(0, 0, 0, 7), (7, four.id.0, 0, 100), (107, 0, 0, 393), (500, four.id.0, 20, 10)];
    assert_eq!(seen(&c, f, 3).await, want);
    assert_eq!(seen(&c, f, 1).await, []);
    w.check().await;
    let (a, views) = c.meta.read_chunks_and_attr(f, 2..6).await.unwrap();
    assert_eq!((a, views.len(), views[1].records), (c.stat(f).await, 4, 2));
    assert_eq!(views[3].extents.len(), 1);
    let refused = |ino, indx, pos: u32| {
        let slice = Slice { pos, id: SliceId(999_999), size: 1, off: 0, len: 1 };
        c.append(ino, indx, vec![slice])
    };
    let d = c.dir(ROOT, "d").await;
    assert_eq!(errno(refused(d, 0, 0).await), Errno::EPERM);
    assert_eq!(errno(refused(ciderfs_format::Ino(999_999), 0, 0).await), Errno::ENOENT);
    assert_eq!(errno(refused(f, u32::MAX, 0).await), Errno::EFBIG);
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(errno(refused(f, 0, 0).await), Errno::ENOENT);
    w.check().await;
}

/// Several clients append to one file: every slice is in its list, the length is the longest end.
pub async fn write_contended(engine: Engine) {
    const EACH: u32 = 15;
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let mut tasks = Vec::new();
    for t in 0..3_u32 {
        let client = w.client().await;
        tasks.push(tokio::spawn(async move {
            let mut put = Vec::new();
            for i in 0..EACH {
                put.push(client.put(f, i % 2, (i * 3 + t) * 100, 100).await);
            }
            put
        }));
    }
    let mut all = Vec::new();
    for t in tasks {
        all.extend(t.await.unwrap());
    }
    let mut found = c.meta.read_raw_chunk(f, 0).await.unwrap();
    found.extend(c.meta.read_raw_chunk(f, 1).await.unwrap());
    let ids = |list: &[Slice]| {
        let mut ids: Vec<SliceId> = list.iter().map(|s| s.id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&found), ids(&all));
    let last_odd = u64::from((EACH - 2) * 3 + 2) * 100 + 100;
    assert_eq!(c.stat(f).await.length, CHUNK_SIZE + last_odd);
    w.check().await;
}

/// Several clients write to the end of one file, which lies where a chunk ends: no slice hides another, each client's are in
/// order, and one that crosses into the next chunk is there whole.
pub async fn write_at_the_end(engine: Engine) {
    const EACH: u64 = 15;
    const START: u64 = 2 * CHUNK_SIZE - 700;
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.truncate(f, START).await.unwrap();
    let mut tasks = Vec::new();
    for t in 0..3_u32 {
        let client = w.client().await;
        tasks.push(tokio::spawn(async move {
            let mut put: Vec<(u64, Slice)> = Vec::new();
            for _ in 0..EACH {
                let slice = client.fresh(0, 97 + t).await;
                let now = client.meta.clock.now();
                let written = client.meta.write(f, &[NewSlice::at_end(slice)], now).await.unwrap();
                let at = written.offsets[0];
                assert_eq!(written.changed.attr.length, at + u64::from(slice.len));
                assert!(put.last().is_none_or(|(before, _)| *before < at));
                put.push((at, slice));
            }
            put
        }));
    }
    let mut all = Vec::new();
    for t in tasks {
        all.extend(t.await.unwrap());
    }
    all.sort_unstable_by_key(|(at, _)| *at);
    let mut end = START;
    for (at, slice) in &all {
        assert_eq!(*at, end, "a gap, or two slices over each other");
        end += u64::from(slice.len);
    }
    assert_eq!(c.stat(f).await.length, end);
    let mut found: Vec<(SliceId, u32)> = Vec::new();
    for indx in 1..3 {
        let view = c.meta.read_chunk(f, indx).await.unwrap();
        for e in view.extents.iter().filter(|e| e.id.is_data()) {
            match found.last_mut() {
                Some((id, len)) if *id == e.id && *len == e.off => *len += e.len,
                _ => found.push((e.id, e.len)),
            }
        }
    }
    let want: Vec<(SliceId, u32)> = all.iter().map(|(_, s)| (s.id, s.len)).collect();
    assert_eq!(found, want);
    // A file that somebody has cut meanwhile is continued where it ends now.
    c.truncate(f, 10).await.unwrap();
    let slice = c.fresh(0, 5).await;
    let written =
        w.client().await.meta.write(f, &[NewSlice::at_end(slice)], c.meta.clock.now()).await.unwrap();
    assert_eq!((written.offsets[0], written.changed.attr.length), (10, 15));
    w.check().await;
}

/// Writes come through although others change the file's attributes all the time and never stop.
pub async fn write_against_a_stream(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for t in 0..3_u16 {
        let (client, stop) = (w.client().await, Arc::clone(&stop));
        others.push(tokio::spawn(async move {
            let mut changes = 0_u32;
            while !stop.load(Ordering::Acquire) {
                changes += 1;
                let set = SetAttr { mode: Some((changes % 3) as u16 * 3 + t), ..SetAttr::default() };
                client.meta.setattr(&Caller::root(), f, &set).await.unwrap();
            }
        }));
    }
    let writer = c.clone();
    let written = tokio::spawn(async move {
        for i in 0..20 {
            writer.put(f, 0, i * 100, 100).await;
        }
    });
    let written = written.await;
    stop.store(true, Ordering::Release);
    for other in others {
        other.await.unwrap();
    }
    written.unwrap();
    assert_eq!(c.stat(f).await.length, 2000);
    w.check().await;
}

/// Making a file shorter and longer again shows zeros, and gives back what is not seen any more.
pub async fn truncate(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let mut slices = Vec::new();
    for indx in 0..4 {
        slices.push(c.put(f, indx, 0, 10_000).await);
    }
    let before = c.stat(f).await;
    let a = c.truncate(f, CHUNK_SIZE + 3000).await.unwrap();
    assert_eq!((a.length, a.clone()), (CHUNK_SIZE + 3000, c.stat(f).await));
    assert!(a.mtime > before.mtime && a.ctime == a.mtime);
    w.check().await;
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), [(slices[2].id, 10_000), (slices[3].id, 10_000)]);
    c.truncate(f, 4 * CHUNK_SIZE).await.unwrap();
    let zeros = |extents: Vec<(u32, u64, u32, u32)>| extents.iter().all(|e| e.1 == 0);
    assert_eq!(seen(&c, f, 0).await[0], (0, slices[0].id.0, 0, 10_000));
    assert_eq!(seen(&c, f, 1).await[0], (0, slices[1].id.0, 0, 3000));
    assert!(zeros(seen(&c, f, 1).await[1..].to_vec()));
    assert!(zeros(seen(&c, f, 2).await) && zeros(seen(&c, f, 3).await));
    w.check().await;
    // Exactly at a chunk's border, and to nothing.
    c.truncate(f, CHUNK_SIZE).await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), [(slices[1].id, 10_000)]);
    c.truncate(f, 0).await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), [(slices[0].id, 10_000)]);
    for indx in 0..4 {
        assert!(zeros(seen(&c, f, indx).await));
    }
    w.check().await;
    // The same length changes the times only.
    let before = c.stat(f).await;
    let a = c.truncate(f, 0).await.unwrap();
    assert!(a.mtime > before.mtime && a.length == 0);
    assert_eq!(errno(c.truncate(f, MAX_FILE_SIZE).await), Errno::EFBIG);
    assert_eq!(c.truncate(f, MAX_FILE_SIZE - 1).await.unwrap().length, MAX_FILE_SIZE - 1);
    w.check().await;
    c.truncate(f, 1).await.unwrap();
    w.check().await;
    let d = c.dir(ROOT, "d").await;
    assert_eq!(errno(c.truncate(d, 0).await), Errno::EISDIR);
    assert_eq!(errno(c.truncate(ciderfs_format::Ino(999_999), 0).await), Errno::ENOENT);
    c.chown(f, 1, 1).await;
    c.chmod(f, 0o6755).await;
    assert_eq!(errno(c.meta.truncate(&user(2, 2), f, 5, false).await), Errno::EACCES);
    let a = c.meta.truncate(&user(2, 2), f, 5, true).await.unwrap().attr;
    assert_eq!(a.mode, 0o755, "special bits go with the content");
}

/// A sparse file of many chunks is cut short; what lay beyond is not left behind for ever.
pub async fn truncate_many_chunks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let mut beyond = Vec::new();
    let first = c.put(f, 0, 0, 5000).await;
    for indx in [1, 2, 300, 5000, 70_000] {
        beyond.push((c.put(f, indx, 0, 100).await.id, 100));
    }
    c.truncate(f, 1000).await.unwrap();
    for indx in [1, 2, 300, 5000, 70_000] {
        assert!(seen(&c, f, indx).await.iter().all(|e| e.1 == 0), "chunk {indx}");
    }
    w.check().await;
    c.unlink(ROOT, "f").await.unwrap();
    c.meta.drain_deletions().await;
    beyond.push((first.id, 5000));
    beyond.sort_unstable();
    assert_eq!(w.recorder.take(), beyond);
    w.check().await;
}

/// A compaction replaces what it read.
pub async fn compaction_wins(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let mut old = Vec::new();
    for i in 0..4 {
        old.push(c.put(f, 0, i * 100, 100).await);
    }
    let raw = c.meta.read_raw_chunk(f, 0).await.unwrap();
    assert_eq!(raw, old);
    // Meanwhile somebody appends.
    let late = c.put(f, 0, 50, 10).await;
    let new = c.fresh(100, 300).await;
    assert!(c.meta.commit_compaction(f, 0, &raw, 1, new).await.unwrap());
    assert_eq!(c.meta.read_raw_chunk(f, 0).await.unwrap(), [old[0], new, late]);
    w.check().await;
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), old[1..].iter().map(|s| (s.id, s.size)).collect::<Vec<_>>());
    w.check().await;
    assert_eq!(c.stat(f).await.length, 400);
}

/// A compaction of a list that was changed loses and changes nothing.
pub async fn compaction_loses(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let mut old = Vec::new();
    for i in 0..3 {
        old.push(c.put(f, 0, i * 100, 100).await);
    }
    let raw = c.meta.read_raw_chunk(f, 0).await.unwrap();
    let (first, second) = (c.fresh(0, 300).await, c.fresh(0, 300).await);
    assert!(c.meta.commit_compaction(f, 0, &raw, 0, first).await.unwrap());
    assert!(!c.meta.commit_compaction(f, 0, &raw, 0, second).await.unwrap(), "another was faster");
    assert_eq!(c.meta.read_raw_chunk(f, 0).await.unwrap(), [first]);
    c.truncate(f, 0).await.unwrap();
    assert!(!c.meta.commit_compaction(f, 0, &[first], 0, second).await.unwrap());
    w.check().await;
    c.unlink(ROOT, "f").await.unwrap();
    c.meta.drain_deletions().await;
    assert!(!c.meta.commit_compaction(f, 0, &[first], 0, second).await.unwrap(), "the file is gone");
    w.check().await;
}

/// With the trash on, replaced slices are kept for its days.
pub async fn compaction_with_trash(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let old = [c.put(f, 0, 0, 100).await, c.put(f, 0, 100, 100).await];
    c.append(f, 0, vec![Slice::zeros(200, 50)]).await.unwrap();
    let raw = c.meta.read_raw_chunk(f, 0).await.unwrap();
    let new = c.fresh(0, 250).await;
    assert!(c.meta.commit_compaction(f, 0, &raw, 0, new).await.unwrap());
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), []);
    w.check().await;
    w.clock.advance(3 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), []);
    w.check().await;
    w.clock.advance(25 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), old.map(|s| (s.id, s.size)));
    assert_eq!(c.meta.read_raw_chunk(f, 0).await.unwrap(), [new]);
    w.check().await;
}
