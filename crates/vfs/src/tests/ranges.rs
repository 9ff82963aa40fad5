//! Ranges of files: holes, copies, blocks, room.

use std::time::Instant;

use ciderfs_format::{CHUNK_SIZE, Ino};
use ciderfs_meta::{Caller, Errno};

use super::support::*;

const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
const END: u64 = ciderfs_format::slice::MAX_FILE_SIZE - 1;

async fn data_at(c: &Client, fh: u64, off: u64) -> Result<u64, Errno> {
    c.vfs.lseek(fh, off, libc::SEEK_DATA as u32).await.map_err(|e| e.errno())
}

async fn hole_at(c: &Client, fh: u64, off: u64) -> Result<u64, Errno> {
    c.vfs.lseek(fh, off, libc::SEEK_HOLE as u32).await.map_err(|e| e.errno())
}

/// `st_blocks` as a program would see it.
async fn blocks(c: &Client, ino: Ino) -> u64 {
    let attr = c.vfs.getattr(ino).await.unwrap();
    c.vfs.count_blocks(ino, &attr).await;
    c.vfs.blocks(ino, &attr)
}

#[tokio::test]
async fn data_and_holes_before_and_after_a_flush() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    assert_eq!((data_at(&c, fh, 0).await, hole_at(&c, fh, 0).await), (Err(Errno::ENXIO), Err(Errno::ENXIO)));
    let (far, end) = (3 * CHUNK_SIZE + 5000, 3 * CHUNK_SIZE + 5010);
    // What is data is data in blocks of 4 KiB.
    let (block, next) = (3 * CHUNK_SIZE + 4096, 3 * CHUNK_SIZE + 8192);
    c.write(fh, 4096, &pattern(1, 100_000)).await;
    c.write(fh, far as usize, b"0123456789").await;
    for flushed in [false, true] {
        for (off, data, hole) in [
            (0, Ok(4096), Ok(0)),
            (4096, Ok(4096), Ok(106_496)),
            (50_000, Ok(50_000), Ok(106_496)),
            (104_096, Ok(104_096), Ok(106_496)),
            (106_496, Ok(block), Ok(106_496)),
            (CHUNK_SIZE, Ok(block), Ok(CHUNK_SIZE)),
            (end - 1, Ok(end - 1), Ok(end)),
            (end, Err(Errno::ENXIO), Err(Errno::ENXIO)),
            (u64::MAX, Err(Errno::ENXIO), Err(Errno::ENXIO)),
        ] {
            assert_eq!(
                (data_at(&c, fh, off).await, hole_at(&c, fh, off).await),
                (data, hole),
                "{flushed} {off}"
            );
        }
        assert_eq!(blocks(&c, ino).await, (102_400 + end - block).div_ceil(512));
        c.fsync(fh).await.unwrap();
    }
    c.truncate(ino, fh, 5 * CHUNK_SIZE as usize).await;
    assert_eq!((data_at(&c, fh, end).await, hole_at(&c, fh, end).await), (Ok(end), Ok(next)));
    assert_eq!((data_at(&c, fh, next).await, hole_at(&c, fh, next).await), (Err(Errno::ENXIO), Ok(next)));
    c.vfs.fallocate(&Caller::root(), fh, PUNCH, 0, far).await.unwrap();
    assert_eq!((data_at(&c, fh, 0).await, blocks(&c, ino).await), (Ok(block), 8));
    // Another mount, which only reads.
    let late = w.client().await;
    let fh = late.open(ino).await;
    assert_eq!((data_at(&late, fh, 0).await, hole_at(&late, fh, far).await), (Ok(block), Ok(next)));
    assert_eq!(errno(late.vfs.lseek(fh, 0, libc::SEEK_SET as u32).await), Errno::EINVAL);
}

/// What has holes, or was reserved, is told alike by the mount that made it and by others.
#[tokio::test]
async fn blocks_of_files_made_elsewhere() {
    let w = World::new(0).await;
    let c = w.client().await;
    let reserve = async |fh, mode: i32, off, len| {
        c.vfs.fallocate(&Caller::root(), fh, mode as u32, off, len).await.unwrap();
    };
    let (sparse, fh) = c.create("sparse").await;
    c.write(fh, 2 * CHUNK_SIZE as usize, &pattern(1, 51_200)).await;
    c.close(fh).await.unwrap();
    let (full, fh) = c.create("reserved").await;
    reserve(fh, 0, 0, 4 << 30).await;
    c.close(fh).await.unwrap();
    let (partly, fh) = c.create("partly").await;
    c.truncate(partly, fh, 100 << 20).await;
    c.write(fh, 5000, &pattern(2, 100_000)).await;
    reserve(fh, libc::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).await;
    reserve(fh, PUNCH as i32, 0, 4096).await;
    reserve(fh, libc::FALLOC_FL_ZERO_RANGE, 80 << 20, 1 << 20).await;
    c.close(fh).await.unwrap();
    let (small, fh) = c.create("small").await;
    c.write(fh, MIB, b"end").await;
    c.close(fh).await.unwrap();
    let want = [(sparse, 100), (full, 8 << 20), (partly, 4096 - 8)];
    let late = w.client().await;
    for (ino, blocks_made) in want {
        assert_eq!(blocks(&c, ino).await, blocks_made, "where it was made: {ino}");
        assert_eq!(blocks(&late, ino).await, blocks_made, "elsewhere: {ino}");
    }
    // A small one is counted where it is opened, before that its length is told.
    assert_eq!((blocks(&c, small).await, blocks(&late, small).await), (1, 2049));
    late.vfs.open(&Caller::root(), small, libc::O_RDONLY).await.unwrap();
    assert_eq!(blocks(&late, small).await, 1);
    // A listing counts them together.
    let (lister, mut attrs) = (w.client().await, Vec::new());
    for (ino, _) in want {
        attrs.push((ino, lister.vfs.getattr(ino).await.unwrap()));
    }
    lister.vfs.count_listed(attrs.iter().map(|(ino, a)| (*ino, a))).await;
    for ((ino, a), (_, blocks)) in attrs.iter().zip(want) {
        assert_eq!(lister.vfs.blocks(*ino, a), blocks);
    }
}

#[tokio::test]
async fn a_file_of_the_greatest_length_is_quick() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    c.truncate(ino, fh, END as usize).await;
    assert_eq!(blocks(&c, ino).await, 0);
    c.write(fh, END as usize - 3, b"end").await;
    c.write(fh, 1 << 45, b"middle").await;
    let began = Instant::now();
    for flushed in [false, true] {
        assert_eq!(data_at(&c, fh, 0).await, Ok(1 << 45), "{flushed}");
        assert_eq!(data_at(&c, fh, (1 << 45) + 4096).await, Ok((END - 3) / 4096 * 4096));
        assert_eq!(hole_at(&c, fh, END - 2).await, Ok(END));
        until("the blocks are counted again", async || blocks(&c, ino).await == 16).await;
        c.fsync(fh).await.unwrap();
    }
    let (_, copy) = c.create("b").await;
    let mut done = 0;
    while done < END {
        let (from, to) = ((fh, done), (copy, done));
        let n = c.vfs.copy_file_range(&Caller::root(), from, to, END - done, 0).await.unwrap();
        assert!(n > 0);
        done += n;
    }
    assert_eq!(data_at(&c, copy, 0).await, Ok(1 << 45));
    assert_eq!(c.read(copy, END as usize - 4, 10).await, b"\0end");
    c.vfs.fallocate(&Caller::root(), fh, PUNCH, 1 << 40, END - (1 << 40)).await.unwrap();
    assert_eq!(data_at(&c, fh, 0).await, Err(Errno::ENXIO));
    c.unlink("a").await;
    c.unlink("b").await;
    c.close(fh).await.unwrap();
    c.close(copy).await.unwrap();
    until("its objects are deleted", async || w.objects().await.is_empty()).await;
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_copy_stores_nothing_and_sees_what_is_not_flushed() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, a) = c.create("a").await;
    let (ino, b) = c.create("b").await;
    let data = pattern(3, 300 * KIB);
    c.write(a, 10, &data).await;
    c.write(b, 0, &pattern(4, 1000)).await;
    let copied = c.vfs.copy_file_range(&Caller::root(), (a, 0), (b, 500), u64::MAX >> 2, 0).await.unwrap();
    assert_eq!(copied, 300 * KIB as u64 + 10);
    let want = [&pattern(4, 1000)[..500], &[0; 10], &data[..]].concat();
    assert_eq!(c.read(b, 0, MIB).await, want);
    let stored = w.objects().await.len();
    assert_eq!(stored, 300 * KIB / (64 * KIB) + 2);
    c.close(a).await.unwrap();
    c.unlink("a").await;
    c.close(b).await.unwrap();
    let late = w.client().await;
    let fh = late.open(ino).await;
    assert_eq!(late.read(fh, 0, MIB).await, want);
    assert_eq!(errno(c.vfs.copy_file_range(&Caller::root(), (fh, 0), (999, 0), 1, 0).await), Errno::EBADF);
    assert_eq!(
        errno(late.vfs.copy_file_range(&Caller::root(), (fh, 0), (fh, 900_000), 1, 1).await),
        Errno::EINVAL
    );
    let read_only = late.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap().fh;
    assert_eq!(
        errno(late.vfs.copy_file_range(&Caller::root(), (fh, 0), (read_only, 0), 1, 0).await),
        Errno::EBADF
    );
    assert_eq!(errno(late.vfs.fallocate(&Caller::root(), read_only, 0, 0, 1).await), Errno::EBADF);
}

#[tokio::test]
async fn a_source_that_cannot_be_stored_is_not_copied() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, a) = c.create("a").await;
    let (ino, b) = c.create("b").await;
    c.write(a, 0, &pattern(1, 1000)).await;
    w.objects.set(ciderfs_object::layers::Faults { fail_rate: 1.0, ..Default::default() });
    assert_eq!(errno(c.vfs.copy_file_range(&Caller::root(), (a, 0), (b, 0), 1000, 0).await), Errno::EIO);
    assert_eq!(c.length(ino).await, 0);
}

#[tokio::test]
async fn flags_of_fallocate_that_nobody_can_have() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, fh) = c.create("a").await;
    for mode in [
        libc::FALLOC_FL_COLLAPSE_RANGE,
        libc::FALLOC_FL_INSERT_RANGE,
        libc::FALLOC_FL_UNSHARE_RANGE,
        libc::FALLOC_FL_PUNCH_HOLE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_ZERO_RANGE,
        1 << 20,
    ] {
        let result = c.vfs.fallocate(&Caller::root(), fh, mode as u32, 0, 4096).await;
        assert_eq!(errno(result), Errno::EOPNOTSUPP, "{mode}");
    }
}

#[tokio::test]
async fn a_full_volume_refuses_the_write_and_not_the_close() {
    let w = World::with(0, |s| s.capacity = MIB as u64).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    let (_, other) = c.create("b").await;
    c.write(other, 0, &pattern(1, 400 * KIB)).await;
    c.write(fh, 0, &pattern(2, 400 * KIB)).await;
    // Neither is committed; together with more they would not fit.
    let refused = c.vfs.write(fh, 400 * KIB as u64, &pattern(3, 300 * KIB)).await;
    assert_eq!(errno(refused), Errno::ENOSPC);
    assert_eq!(errno(c.vfs.fallocate(&Caller::root(), fh, 0, 0, 700 * KIB as u64).await), Errno::ENOSPC);
    c.write(fh, 0, &pattern(4, 400 * KIB)).await;
    c.close(fh).await.unwrap();
    c.close(other).await.unwrap();
    // What another mount frees is found at once.
    let late = w.client().await;
    late.unlink("b").await;
    until("its space is free", async || {
        late.vfs.statfs(Ino::ROOT).await.unwrap().used_space < 500 * KIB as u64
    })
    .await;
    let fh = c.open(ino).await;
    c.write(fh, 400 * KIB, &pattern(3, 300 * KIB)).await;
    c.close(fh).await.unwrap();
}

#[tokio::test]
async fn a_nameless_file_is_written_and_named() {
    let w = World::new(0).await;
    let c = w.client().await;
    let root = Caller::root();
    for named in [true, false] {
        let (entry, opened) = c.vfs.create_nameless(&root, Ino::ROOT, 0o600, 0, RW).await.unwrap();
        assert_eq!(entry.attr.nlink, 0);
        c.write(opened.fh, 0, &pattern(1, 100 * KIB)).await;
        if named {
            assert_eq!(c.vfs.link(&root, entry.ino, Ino::ROOT, b"name").await.unwrap().attr.nlink, 1);
        }
        assert_eq!(c.read(opened.fh, 0, MIB).await, pattern(1, 100 * KIB));
        c.close(opened.fh).await.unwrap();
        assert_eq!(c.meta.getattr(entry.ino).await.is_ok(), named);
    }
    until("only one file's objects", async || w.objects().await.len() == 2).await;
    let found = c.vfs.lookup(&root, Ino::ROOT, b"name").await.unwrap();
    let fh = c.open(found.ino).await;
    assert_eq!(c.read(fh, 0, MIB).await, pattern(1, 100 * KIB));
}

/// Steps of reserving make no long list, and what is reserved stays so when data in it is compacted.
#[tokio::test]
async fn reserved_space_outlives_compaction() {
    const STEP: u64 = 4096;
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    for n in 0..300 {
        c.vfs.fallocate(&Caller::root(), fh, 0, n * STEP, STEP).await.unwrap();
    }
    let records = async || c.meta.read_raw_chunk(ino, 0).await.unwrap().len();
    until("the records become few", async || records().await < 110).await;
    assert_eq!((blocks(&c, ino).await, data_at(&c, fh, 0).await), (300 * 8, Err(Errno::ENXIO)));
    for n in 0..100 {
        c.write(fh, (100 + n) * STEP as usize, &pattern(1, 100)).await;
        c.fsync(fh).await.unwrap();
    }
    until("the data is compacted", async || {
        c.read(fh, 0, MIB).await;
        records().await < 50
    })
    .await;
    assert_eq!((blocks(&c, ino).await, data_at(&c, fh, 0).await), (300 * 8, Ok(100 * STEP)));
    assert_eq!(c.read(fh, 199 * STEP as usize, 100).await, pattern(1, 100));
}

/// Writing into space that was reserved makes a file no bigger; a hole gives it back.
#[tokio::test]
async fn reserved_space_counts() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    let allocate = async |mode: i32, off: u64, len: u64| {
        c.vfs.fallocate(&Caller::root(), fh, mode as u32, off, len).await.unwrap();
        blocks(&c, ino).await
    };
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    assert_eq!(allocate(0, 4095, 2).await, 4097_u64.div_ceil(512));
    c.write(fh, 4095, b"xy").await;
    assert_eq!(blocks(&c, ino).await, 4097_u64.div_ceil(512));
    assert_eq!(allocate(0, 1 << 20, 1 << 20).await, (8192 + (1 << 20)) / 512);
    assert_eq!(allocate(punch, 1 << 20, 8192).await, (1 << 20) / 512);
    assert_eq!(allocate(libc::FALLOC_FL_ZERO_RANGE, 1 << 20, 4096).await, ((1 << 20) + 4096) / 512);
    // Cutting gives back what was behind.
    c.truncate(ino, fh, 4097).await;
    c.truncate(ino, fh, 2 << 20).await;
    assert_eq!(blocks(&c, ino).await, 8192 / 512);
    assert_eq!(allocate(punch, 0, 2 << 20).await, 0);
    c.close(fh).await.unwrap();
}
