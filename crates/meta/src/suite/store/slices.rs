//! Chunk lists, slice references, delayed slices.

use ciderfs_format::{CHUNK_SIZE, Ino, Slice, SliceId};

use super::*;
use crate::store::{Scan, Scanned};

fn slice(id: u64, pos: u32) -> Slice {
    Slice { pos, id: SliceId(id), size: 1000, off: 3, len: 900 }
}

async fn list(s: &dyn Store, ino: u64, indx: u32) -> Vec<Slice> {
    match read(s, Read::Slices(Ino(ino), indx)).await {
        Value::Slices(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Slices that a `TakeSlices` told to be left with so many references.
fn left(output: &Output) -> Vec<(u64, u32, i64)> {
    let Output::Slices(told) = output else { panic!("{output:?}") };
    let mut out: Vec<(u64, u32, i64)> = Vec::new();
    for (s, n) in told {
        assert_eq!((s.pos, s.off, s.len), (0, 0, 0));
        // An engine may tell of a slice once or once per record; the last number counts.
        match out.iter_mut().find(|o| (o.0, o.1) == (s.id.0, s.size)) {
            Some(o) => o.2 = o.2.min(*n),
            None => out.push((s.id.0, s.size, *n)),
        }
    }
    sorted(out)
}

async fn chunk_indexes(s: &dyn Store, ino: u64) -> Vec<u32> {
    let items = s.scan(&Scan::Chunks(Ino(ino)), usize::MAX).await.unwrap();
    items.iter().map(|i| if let Scanned::Chunk(n) = i { *n } else { panic!("{i:?}") }).collect()
}

/// Appending, in order, and the length told.
pub async fn chunks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(list(s, 7, 0).await, []);
    let big =
        Slice { pos: u32::MAX, id: SliceId(u64::MAX >> 1), size: u32::MAX, off: u32::MAX, len: u32::MAX };
    let first = vec![slice(1, 0), big];
    assert_eq!(write_one(s, Write::AppendSlices(Ino(7), 0, first.clone())).await, Output::Int(2));
    assert_eq!(list(s, 7, 0).await, first);
    let zeros = Slice::zeros(0, CHUNK_SIZE as u32);
    assert_eq!(write_one(s, Write::AppendSlices(Ino(7), 0, vec![zeros])).await, Output::Int(3));
    assert_eq!(list(s, 7, 0).await, [first[0], big, zeros]);
    // Several appends of one commit, each told.
    let appends = vec![
        Write::AppendSlices(Ino(7), 1, vec![slice(2, 0)]),
        Write::AppendSlices(Ino(7), 1, vec![slice(3, 0)]),
        Write::AppendSlices(Ino(7), 300, vec![slice(4, 0)]),
        Write::AppendSlices(Ino(8), 2, vec![slice(5, 0)]),
    ];
    let out = write(s, appends).await;
    assert_eq!(out, [Output::Int(1), Output::Int(2), Output::Int(1), Output::Int(1)]);
    assert_eq!(list(s, 7, 1).await, [slice(2, 0), slice(3, 0)]);
    assert_eq!(chunk_indexes(s, 7).await, [0, 1, 300]);
    assert_eq!(s.scan(&Scan::Chunks(Ino(7)), 2).await.unwrap(), [Scanned::Chunk(0), Scanned::Chunk(1)]);
    assert_eq!(chunk_indexes(s, 77).await, [0u32; 0]);
    // Appending to what exists only.
    let out = write_one(s, Write::AppendSliceIfExists(Ino(7), 1..300, zeros)).await;
    assert_eq!(out, Output::None);
    assert_eq!(list(s, 7, 0).await.len(), 3);
    assert_eq!(list(s, 7, 1).await, [slice(2, 0), slice(3, 0), zeros]);
    assert_eq!(list(s, 7, 300).await.len(), 1, "the end is excluded");
    assert_eq!(list(s, 8, 2).await.len(), 1);
    assert_eq!(chunk_indexes(s, 7).await, [0, 1, 300]);
    // A wide range is no burden.
    write(s, vec![Write::AppendSliceIfExists(Ino(7), 1..u32::MAX >> 1, zeros)]).await;
    assert_eq!(list(s, 7, 300).await, [slice(4, 0), zeros]);
}

/// Replacing the head of a list.
pub async fn replaced_chunks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let all: Vec<Slice> = (1..=5).map(|i| slice(i, 0)).collect();
    write(s, vec![Write::AppendSlices(Ino(7), 0, all.clone())]).await;
    let replace = |drop, insert| Write::ReplaceSlices { ino: Ino(7), indx: 0, drop, insert };
    assert_eq!(write_one(s, replace(3, vec![slice(9, 0)])).await, Output::None);
    assert_eq!(list(s, 7, 0).await, [slice(9, 0), all[3], all[4]]);
    write(s, vec![replace(1, vec![slice(10, 0), slice(11, 1)])]).await;
    assert_eq!(list(s, 7, 0).await, [slice(10, 0), slice(11, 1), all[3], all[4]]);
    write(s, vec![replace(4, vec![slice(12, 0)])]).await;
    assert_eq!(list(s, 7, 0).await, [slice(12, 0)]);
    write(s, vec![Write::AppendSlices(Ino(7), 0, vec![all[0]])]).await;
    assert_eq!(list(s, 7, 0).await, [slice(12, 0), all[0]]);
}

/// Taking a list drops the references.
pub async fn taken_chunks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(left(&write_one(s, Write::TakeSlices(Ino(7), 0)).await), []);
    let records = vec![slice(1, 0), Slice::zeros(5, 5), slice(2, 9), slice(3, 0)];
    let mut writes: Vec<Write> = (1..=3).map(|id| Write::NewSliceRef(SliceId(id), 1000)).collect();
    writes.push(Write::AddSliceRef(SliceId(2), 1000, 1));
    writes.push(Write::AppendSlices(Ino(7), 0, records));
    let out = write(s, writes).await;
    assert_eq!(out[3], Output::Int(2));
    let taken = write_one(s, Write::TakeSlices(Ino(7), 0)).await;
    assert_eq!(left(&taken), [(1, 1000, 0), (2, 1000, 1), (3, 1000, 0)]);
    assert_eq!(list(s, 7, 0).await, []);
    assert_eq!(chunk_indexes(s, 7).await, [0u32; 0]);
    // The list is gone: nothing is dropped twice.
    assert_eq!(left(&write_one(s, Write::TakeSlices(Ino(7), 0)).await), []);
    assert_eq!(read(s, Read::SliceRefs(SliceId(2), 1000)).await, Value::Int(1));
    // A slice in two records of a list loses two references.
    let twice = vec![
        Write::NewSliceRef(SliceId(6), 1000),
        Write::AddSliceRef(SliceId(6), 1000, 2),
        Write::AppendSlices(Ino(8), 4, vec![slice(6, 0), slice(6, 500)]),
    ];
    write(s, twice).await;
    let taken = write_one(s, Write::TakeSlices(Ino(8), 4)).await;
    assert_eq!(left(&taken), [(6, 1000, 1)]);
}

/// Reference counts and the dead.
pub async fn slice_references(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let refs = |id| Read::SliceRefs(id, 1000);
    assert_eq!(write_one(s, Write::NewSliceRef(SliceId(1), 1000)).await, Output::None);
    write(s, vec![Write::NewSliceRef(SliceId(2), 1000)]).await;
    assert_eq!(read(s, refs(SliceId(1))).await, Value::Int(1));
    assert_eq!(write_one(s, Write::AddSliceRef(SliceId(1), 1000, 1)).await, Output::Int(2));
    assert_eq!(write_one(s, Write::AddSliceRef(SliceId(1), 1000, 1)).await, Output::Int(3));
    assert_eq!(read(s, refs(SliceId(1))).await, Value::Int(3));
    assert_eq!(write_one(s, Write::AddSliceRef(SliceId(1), 1000, -2)).await, Output::Int(1));
    assert_eq!(s.scan(&Scan::DeadSlices, 100).await.unwrap(), []);
    assert_eq!(read(s, refs(SliceId(1))).await, Value::Int(1));
    assert_eq!(write_one(s, Write::AddSliceRef(SliceId(1), 1000, -1)).await, Output::Int(0));
    assert_eq!(write_one(s, Write::AddSliceRef(SliceId(2), 1000, -1)).await, Output::Int(0));
    let dead = s.scan(&Scan::DeadSlices, 100).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(
        dead.contains(&Scanned::Slice(SliceId(1), 1000)) && dead.contains(&Scanned::Slice(SliceId(2), 1000)),
        "{dead:?}"
    );
    assert_eq!(s.scan(&Scan::DeadSlices, 1).await.unwrap().len(), 1);
    assert_eq!(write_one(s, Write::DropSliceRef(SliceId(1), 1000)).await, Output::None);
    assert_eq!(s.scan(&Scan::DeadSlices, 100).await.unwrap(), [Scanned::Slice(SliceId(2), 1000)]);
    write(s, vec![Write::DropSliceRef(SliceId(2), 1000), Write::DropSliceRef(SliceId(3), 1000)]).await;
    assert_eq!(s.scan(&Scan::DeadSlices, 100).await.unwrap(), []);
}

/// Slices that a compaction replaced.
pub async fn delayed_slices(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(s.scan(&Scan::DelayedSlices, 100).await.unwrap(), []);
    let many: Vec<(SliceId, u32)> = (0..1000).map(|i| (SliceId(u64::from(i) + (1 << 40)), i)).collect();
    let put = |id, at, list: &[(SliceId, u32)]| Write::PutDelayedSlices(id, at, list.to_vec());
    assert_eq!(
        write_one(s, put(SliceId(11), 1_700_000_000, &[(SliceId(7), 1000), (SliceId(8), 1)])).await,
        Output::None
    );
    write(s, vec![put(SliceId(12), 1_700_000_001, &many)]).await;
    let found = s.scan(&Scan::DelayedSlices, usize::MAX).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(
        found.contains(&Scanned::Delayed(
            SliceId(11),
            1_700_000_000,
            vec![(SliceId(7), 1000), (SliceId(8), 1)]
        )),
        "{found:?}"
    );
    assert!(found.contains(&Scanned::Delayed(SliceId(12), 1_700_000_001, many)));
    write(
        s,
        vec![Write::DelDelayedSlices(SliceId(12), 1_700_000_001), Write::DelDelayedSlices(SliceId(13), 5)],
    )
    .await;
    let found = s.scan(&Scan::DelayedSlices, usize::MAX).await.unwrap();
    assert_eq!(
        found,
        [Scanned::Delayed(SliceId(11), 1_700_000_000, vec![(SliceId(7), 1000), (SliceId(8), 1)])]
    );
}
