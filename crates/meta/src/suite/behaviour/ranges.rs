//! Allocating, punching and copying ranges.

use ciderfs_format::slice::MAX_FILE_SIZE;
use ciderfs_format::{CHUNK_SIZE, Ino, Slice, SliceId, Time};

use crate::error::Errno;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::{Allocate, Copied, Result, SetAttr, SetTime, Version};

const END: u64 = MAX_FILE_SIZE - 1;

async fn allocate(c: &Client, ino: Ino, how: Allocate, off: u64, len: u64) -> Result<ciderfs_format::Attr> {
    Ok(c.meta.fallocate(&root(), ino, how, off, len).await?.0.attr)
}

async fn copy(c: &Client, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<Copied> {
    c.meta.copy_range(&root(), from, to, len).await
}

/// (position, slice id, length) of the data in a chunk, holes left out.
async fn data(c: &Client, ino: Ino, indx: u32) -> Vec<(u32, SliceId, u32)> {
    let view = c.meta.read_chunk(ino, indx).await.unwrap();
    view.extents.iter().filter(|e| e.id.is_data()).map(|e| (e.pos, e.id, e.len)).collect()
}

async fn drained(w: &World, c: &Client) -> Vec<(SliceId, u32)> {
    c.meta.drain_deletions().await;
    w.recorder.take()
}

/// (position, length) of what is reserved in a chunk.
async fn reserved(c: &Client, ino: Ino, indx: u32) -> Vec<(u32, u32)> {
    let view = c.meta.read_chunk(ino, indx).await.unwrap();
    view.extents
        .iter()
        .filter(|e| e.id == SliceId::ZEROS && e.is_allocated())
        .map(|e| (e.pos, e.len))
        .collect()
}

/// Growing, reserving, punching, zeroing: lengths, content, times, usage, references.
pub async fn fallocate(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let before = c.stat(f).await;
    let a = allocate(&c, f, Allocate::Grow, 0, 10_000).await.unwrap();
    assert_eq!((a.length, a.clone()), (10_000, c.stat(f).await));
    assert!(a.mtime > before.mtime && a.ctime == a.mtime);
    assert_eq!((data(&c, f, 0).await, reserved(&c, f, 0).await), (vec![], vec![(0, 10_000)]));
    // Allocated again, or kept: the length stays, the times do not.
    for how in [Allocate::Grow, Allocate::Reserve] {
        let off = if how == Allocate::Grow { 5000 } else { 1 << 40 };
        let b = allocate(&c, f, how, off, 100).await.unwrap();
        assert!(b.length == 10_000 && b.mtime > a.mtime);
    }
    assert_eq!(c.meta.read_chunk(f, 0).await.unwrap().records, 1, "what is reserved is noted once");
    let mut slices = Vec::new();
    for indx in 0..4 {
        slices.push(c.put(f, indx, 1000, 50_000).await);
    }
    let length = c.stat(f).await.length;
    assert_eq!(length, 3 * CHUNK_SIZE + 51_000);
    // Between data, over the border of two chunks, without touching any of it.
    allocate(&c, f, Allocate::Reserve, CHUNK_SIZE - 100, 60_000).await.unwrap();
    assert_eq!(reserved(&c, f, 0).await, [(0, 1000), (CHUNK_SIZE as u32 - 100, 100)]);
    assert_eq!(data(&c, f, 1).await, [(1000, slices[1].id, 50_000)]);
    assert_eq!(reserved(&c, f, 1).await, [(0, 1000), (51_000, 8900)]);
    w.check().await;
    // A hole within a chunk, over the border of two, over whole chunks.
    allocate(&c, f, Allocate::Punch, 2000, 3000).await.unwrap();
    assert_eq!(data(&c, f, 0).await, [(1000, slices[0].id, 1000), (5000, slices[0].id, 46_000)]);
    allocate(&c, f, Allocate::Punch, 40_000, 2 * CHUNK_SIZE - 40_000 + 2000).await.unwrap();
    assert_eq!(data(&c, f, 0).await, [(1000, slices[0].id, 1000), (5000, slices[0].id, 35_000)]);
    assert_eq!((data(&c, f, 1).await, reserved(&c, f, 1).await), (vec![], vec![]));
    assert_eq!(data(&c, f, 2).await, [(2000, slices[2].id, 49_000)]);
    assert_eq!(drained(&w, &c).await, [(slices[1].id, 50_000)], "a chunk without data gives it back");
    w.check().await;
    // Zeros up to the end of the file take the last chunk whole; a kept length stays.
    let a = allocate(&c, f, Allocate::ZeroInside, 3 * CHUNK_SIZE, CHUNK_SIZE).await.unwrap();
    assert_eq!(a.length, length);
    assert_eq!(drained(&w, &c).await, [(slices[3].id, 50_000)]);
    let a = allocate(&c, f, Allocate::Zero, 2 * CHUNK_SIZE + 10_000, 2 * CHUNK_SIZE).await.unwrap();
    assert_eq!(a.length, 4 * CHUNK_SIZE + 10_000);
    assert_eq!(data(&c, f, 2).await, [(2000, slices[2].id, 8000)]);
    assert_eq!(reserved(&c, f, 2).await, [(10_000, CHUNK_SIZE as u32 - 10_000)]);
    assert_eq!(reserved(&c, f, 3).await, [(0, CHUNK_SIZE as u32)]);
    assert_eq!(reserved(&c, f, 4).await, [(0, 10_000)]);
    // Beyond the end there is nothing to erase.
    let list = c.meta.read_raw_chunk(f, 2).await.unwrap();
    let a = allocate(&c, f, Allocate::Punch, 4 * CHUNK_SIZE + 10_000, 1 << 40).await.unwrap();
    assert_eq!((a.length, c.meta.read_raw_chunk(f, 2).await.unwrap()), (4 * CHUNK_SIZE + 10_000, list));
    w.check().await;
    // Nothing limits this volume but what `statfs` tells.
    let free = c.meta.statfs().await.unwrap().avail_space;
    for how in [Allocate::Grow, Allocate::Reserve, Allocate::Zero] {
        assert_eq!(errno(allocate(&c, f, how, 0, a.length + free + 1).await), Errno::ENOSPC);
    }
    // What was erased stays so when the file grows.
    c.truncate(f, 5 * CHUNK_SIZE).await.unwrap();
    assert_eq!(data(&c, f, 3).await, []);
    c.unlink(ROOT, "f").await.unwrap();
    let mut left = vec![(slices[0].id, 50_000), (slices[2].id, 50_000)];
    left.sort_unstable();
    assert_eq!(drained(&w, &c).await, left);
    w.check().await;
}

/// What `fallocate` refuses, and the privileges that go with a change of content.
pub async fn fallocate_refused(engine: Engine) {
    let w = World::with(engine, |s| s.capacity = 1 << 20).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    assert_eq!(errno(allocate(&c, f, Allocate::Grow, 0, 0).await), Errno::EINVAL);
    for (off, len) in [(END, 1), (0, END + 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(errno(allocate(&c, f, Allocate::Punch, off, len).await), Errno::EFBIG, "{off} {len}");
    }
    for how in [Allocate::Grow, Allocate::Reserve, Allocate::Zero] {
        assert_eq!(errno(allocate(&c, f, how, 0, 2 << 20).await), Errno::ENOSPC, "{how:?}");
    }
    assert_eq!(c.stat(f).await.length, 0);
    allocate(&c, f, Allocate::Punch, 0, END).await.unwrap();
    allocate(&c, f, Allocate::Grow, 0, 500_000).await.unwrap();
    allocate(&c, f, Allocate::Reserve, 0, 1_000_000).await.unwrap();
    w.check().await;
    let d = c.dir(ROOT, "d").await;
    assert_eq!(errno(allocate(&c, d, Allocate::Grow, 0, 1).await), Errno::EPERM);
    assert_eq!(errno(allocate(&c, Ino(999_999), Allocate::Grow, 0, 1).await), Errno::ENOENT);
    let set_flags = async |flags| {
        let set = SetAttr { flags: Some(flags), ..SetAttr::default() };
        c.meta.setattr(&root(), f, &set).await.unwrap();
    };
    set_flags(ciderfs_format::attr::flags::APPEND).await;
    allocate(&c, f, Allocate::Grow, 0, 600_000).await.unwrap();
    for how in [Allocate::Punch, Allocate::Zero, Allocate::ZeroInside] {
        assert_eq!(errno(allocate(&c, f, how, 0, 1).await), Errno::EPERM);
    }
    assert_eq!(errno(copy(&c, (f, 0), (f, 700_000), 1).await), Errno::EPERM);
    set_flags(ciderfs_format::attr::flags::IMMUTABLE).await;
    assert_eq!(errno(allocate(&c, f, Allocate::Grow, 0, 1).await), Errno::EPERM);
    set_flags(0).await;
    c.chown(f, 1, 1).await;
    for (mode, after) in [(0o6755, 0o755), (0o2644, 0o2644), (0o4600, 0o600)] {
        c.chmod(f, mode).await;
        let a = allocate(&c, f, Allocate::Punch, 0, 1).await.unwrap();
        assert_eq!(a.mode, mode, "the superuser keeps them");
        let (a, _) = c.meta.fallocate(&user(1, 1), f, Allocate::Punch, 0, 1).await.unwrap();
        assert_eq!(a.attr.mode, after);
        c.chmod(f, mode).await;
        let copied = c.meta.copy_range(&user(1, 1), (f, 0), (f, 500_000), 10).await.unwrap();
        assert_eq!(copied.changed.unwrap().attr.mode, after);
    }
}

/// Holes over very many chunks, in files as long as the format allows.
pub async fn fallocate_many_chunks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let (mut slices, last) = (Vec::new(), (END / CHUNK_SIZE) as u32);
    for indx in [0, 1, 300, 5000, 70_000, last] {
        slices.push((c.put(f, indx, 0, 100).await.id, 100));
    }
    allocate(&c, f, Allocate::Zero, END - 1, 1).await.unwrap();
    assert_eq!(c.stat(f).await.length, END);
    allocate(&c, f, Allocate::Punch, 50, END + 1 - CHUNK_SIZE - 50).await.unwrap();
    let left = (slices[0].0, data(&c, f, last).await[0]);
    assert_eq!(data(&c, f, 0).await, [(0, left.0, 50)]);
    assert_eq!(left.1, (0, slices[5].0, 100));
    for indx in [1, 300, 5000, 70_000] {
        assert_eq!(data(&c, f, indx).await, [], "chunk {indx}");
    }
    let mut gone = slices[1..5].to_vec();
    gone.sort_unstable();
    assert_eq!(drained(&w, &c).await, gone);
    w.check().await;
    c.unlink(ROOT, "f").await.unwrap();
    let mut left = vec![slices[0], slices[5]];
    left.sort_unstable();
    assert_eq!(drained(&w, &c).await, left);
    w.check().await;
}

/// A copy shares slices: content, lengths, references, and who deletes the data at last.
pub async fn copies(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (f, g) = (c.file(ROOT, "f").await, c.file(ROOT, "g").await);
    let one = c.put(f, 0, 1000, 5000).await;
    let two = c.put(f, 1, 0, 3000).await;
    let length = c.stat(f).await.length;
    let before = c.stat(g).await;
    let copied = copy(&c, (f, 0), (g, 0), u64::MAX >> 8).await.unwrap();
    assert_eq!((copied.bytes, copied.changed.unwrap().attr), (length, c.stat(g).await));
    assert!(c.stat(g).await.mtime > before.mtime);
    assert_eq!(data(&c, g, 0).await, [(1000, one.id, 5000)]);
    assert_eq!(data(&c, g, 1).await, [(0, two.id, 3000)]);
    w.check().await;
    // Shifted over the border of chunks: the slice is cut there.
    let copied = copy(&c, (f, 500), (g, 2 * CHUNK_SIZE - 2500), 5000).await.unwrap();
    assert_eq!((copied.bytes, copied.lists.len()), (5000, 2));
    assert_eq!(data(&c, g, 1).await[1..], [((CHUNK_SIZE - 2000) as u32, one.id, 2000)]);
    assert_eq!(data(&c, g, 2).await, [(0, one.id, 2500)]);
    w.check().await;
    // A hole hides what the target had; the end of the source ends the copy.
    let copied = copy(&c, (f, CHUNK_SIZE + 2000), (g, 5500), 1 << 40).await.unwrap();
    assert_eq!(copied.bytes, 1000);
    let copied = copy(&c, (f, 6000), (g, 1500), 100).await.unwrap();
    assert_eq!(copied.bytes, 100);
    let want = [(1000, one.id, 500), (1600, one.id, 3900), (5500, two.id, 1000)];
    assert_eq!(data(&c, g, 0).await, want);
    assert_eq!(copy(&c, (f, length), (g, 0), 10).await.unwrap().bytes, 0);
    w.check().await;
    // Within one file, also within one chunk.
    copy(&c, (f, 1000), (f, 100_000), 5000).await.unwrap();
    assert_eq!(data(&c, f, 0).await, [(1000, one.id, 5000), (100_000, one.id, 5000)]);
    for (from, to, len) in [(0, 5, 10), (5, 0, 10), (0, 0, 1), (length - 10, length - 1, 1 << 40)] {
        assert_eq!(errno(copy(&c, (f, from), (f, to), len).await), Errno::EINVAL, "{from} {to} {len}");
    }
    let d = c.dir(ROOT, "d").await;
    assert_eq!(errno(copy(&c, (d, 0), (f, 0), 1).await), Errno::EINVAL);
    assert_eq!(errno(copy(&c, (f, 0), (d, 0), 1).await), Errno::EINVAL);
    assert_eq!(errno(copy(&c, (Ino(999_999), 0), (f, 0), 1).await), Errno::ENOENT);
    assert_eq!(errno(copy(&c, (f, 0), (g, END), 1).await), Errno::EFBIG);
    w.check().await;
    // Whoever goes first takes no data along.
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(drained(&w, &c).await, []);
    w.check().await;
    let raw = c.meta.read_raw_chunk(g, 0).await.unwrap();
    let new = c.fresh(1000, 5500).await;
    assert!(c.meta.commit_compaction(g, 0, &raw, 0, new).await.unwrap());
    assert_eq!(drained(&w, &c).await, []);
    w.check().await;
    c.truncate(g, CHUNK_SIZE).await.unwrap();
    assert_eq!(drained(&w, &c).await, [(one.id, 5000), (two.id, 3000)]);
    c.unlink(ROOT, "g").await.unwrap();
    assert_eq!(drained(&w, &c).await, [(new.id, 5500)]);
    w.check().await;
}

/// The same data in a file of the trash, in a copy, and waiting after a compaction.
pub async fn copies_with_trash(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let (f, g) = (c.file(ROOT, "f").await, c.file(ROOT, "g").await);
    let one = c.put(f, 0, 0, 5000).await;
    let two = c.put(f, 0, 2000, 1000).await;
    copy(&c, (f, 0), (g, 0), 5000).await.unwrap();
    let raw = c.meta.read_raw_chunk(f, 0).await.unwrap();
    let new = c.fresh(0, 5000).await;
    assert!(c.meta.commit_compaction(f, 0, &raw, 0, new).await.unwrap());
    c.unlink(ROOT, "f").await.unwrap();
    w.check().await;
    w.clock.advance(30 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), [(new.id, 5000)]);
    let want = [(0, one.id, 2000), (2000, two.id, 1000), (3000, one.id, 2000)];
    assert_eq!(data(&c, g, 0).await, want);
    w.check().await;
    let raw = c.meta.read_raw_chunk(g, 0).await.unwrap();
    let new = c.fresh(0, 5000).await;
    assert!(c.meta.commit_compaction(g, 0, &raw, 0, new).await.unwrap());
    w.check().await;
    w.clock.advance(30 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), [(one.id, 5000), (two.id, 1000)]);
    w.check().await;
}

/// Copies of long lists and of files of very many chunks, in several commits.
pub async fn copies_of_many_chunks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (f, g) = (c.file(ROOT, "f").await, c.file(ROOT, "g").await);
    let all = async |from: (Ino, u64), to: (Ino, u64), len: u64| {
        let (mut done, mut steps) = (0, 0);
        while done < len {
            let step = copy(&c, (from.0, from.1 + done), (to.0, to.1 + done), len - done).await.unwrap();
            if step.bytes == 0 {
                break;
            }
            (done, steps) = (done + step.bytes, steps + 1);
        }
        (done, steps)
    };
    // More records than fit into one commit, every second one a hole.
    let list = c.fresh(0, 100).await;
    let records: Vec<Slice> = (0..3000).map(|i| Slice { pos: i * 200, ..list }).collect();
    c.append(f, 0, records).await.unwrap();
    let length = c.stat(f).await.length;
    c.truncate(g, length).await.unwrap();
    assert_eq!(all((f, 0), (g, 0), length).await, (length, 2));
    assert_eq!(data(&c, g, 0).await, data(&c, f, 0).await);
    w.check().await;
    // Data here and there in a file of the greatest length.
    let mut slices = Vec::new();
    for indx in [70, 5000, (END / CHUNK_SIZE) as u32] {
        slices.push((indx, c.put(f, indx, 7, 50).await.id));
    }
    c.truncate(f, END).await.unwrap();
    let h = c.file(ROOT, "h").await;
    let (done, steps) = all((f, 0), (h, 0), u64::MAX >> 1).await;
    assert_eq!((done, c.stat(h).await.length), (END, END));
    assert!(steps < 12, "{steps} commits");
    for (indx, id) in slices {
        assert_eq!(data(&c, h, indx).await, [(7, id, 50)]);
    }
    w.check().await;
}

/// Copies while other clients compact, cut and write the source: nothing that a file names is ever deleted.
pub async fn copies_contended(engine: Engine) {
    const ROUNDS: u32 = 25;
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    for i in 0..5 {
        c.put(f, 0, i * 100, 100).await;
    }
    let (compactor, writer, copier) = (w.client().await, w.client().await, w.client().await);
    let compacting = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            let raw = compactor.meta.read_raw_chunk(f, 0).await.unwrap();
            let extents = ciderfs_format::slice::resolve(&raw);
            let end = extents.last().map_or(1, |e| e.pos + e.len);
            let new = compactor.fresh(0, end).await;
            if raw.len() > 1 {
                compactor.meta.commit_compaction(f, 0, &raw, 0, new).await.unwrap();
            }
            compactor.meta.drain_deletions().await;
        }
    });
    let writing = tokio::spawn(async move {
        for i in 0..ROUNDS {
            writer.put(f, 0, i * 37 % 400, 100).await;
            if i % 8 == 7 {
                writer.truncate(f, 200).await.unwrap();
                writer.put(f, 0, 100, 400).await;
            }
            writer.meta.drain_deletions().await;
        }
    });
    let copying = tokio::spawn(async move {
        for i in 0..ROUNDS {
            let g = copier.file(ROOT, &format!("g{i}")).await;
            let bytes = copy(&copier, (f, 0), (g, 0), 1000).await.unwrap().bytes;
            assert_eq!(copier.stat(g).await.length, bytes);
        }
    });
    for task in [compacting, writing, copying] {
        task.await.unwrap();
    }
    c.meta.drain_deletions().await;
    w.check().await;
    let removed: std::collections::BTreeSet<SliceId> = w.recorder.take().iter().map(|s| s.0).collect();
    for i in 0..ROUNDS {
        let g = c.find(ROOT, &format!("g{i}")).await.unwrap();
        for (_, id, _) in data(&c, g, 0).await {
            assert!(!removed.contains(&id), "slice {id} of g{i} was deleted");
        }
    }
}

/// Whatever changes a file tells which version of it that was, also where another client has changed it meanwhile.
pub async fn changes_tell_what_they_changed(engine: Engine) {
    let w = World::new(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let f = c.file(ROOT, "f").await;
    let g = c.file(ROOT, "g").await;
    c.put(f, 0, 0, 1000).await;
    c.put(g, 0, 0, 1000).await;
    for own in [true, false] {
        let mut known = c.stat(f).await;
        for n in 0..5 {
            if !own {
                other.put(f, 0, 0, 1000).await;
                let changed = w.client().await.stat(f).await;
                assert_ne!(Version::of(&changed), Version::of(&known));
                known = changed;
            }
            let changed = match n {
                0 => {
                    let slice = c.fresh(0, 1000).await;
                    c.append(f, 0, vec![slice]).await.unwrap().changed
                }
                1 => c.meta.truncate(&root(), f, 1000, true).await.unwrap(),
                2 => {
                    let mtime = Some(SetTime::At(Time { sec: 77 + i64::from(own), nsec: n }));
                    let set = SetAttr { mtime, ..SetAttr::default() };
                    c.meta.setattr(&root(), f, &set).await.unwrap()
                }
                3 => c.meta.fallocate(&root(), f, Allocate::Punch, 0, 10).await.unwrap().0,
                _ => copy(&c, (g, 0), (f, 100), 50).await.unwrap().changed.unwrap(),
            };
            assert_eq!(changed.before, Version::of(&known), "change {n}, own: {own}");
            known = w.client().await.stat(f).await;
            assert_eq!(changed.attr, known, "change {n}, own: {own}");
        }
    }
}
