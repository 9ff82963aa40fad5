//! A full volume refuses the write, not the close.

use ciderfs_meta::Errno;
use ciderfs_meta::store::Store as _;

use super::support::*;

#[tokio::test]
async fn a_full_volume_is_told_by_the_write() {
    let w = World::new(0).await;
    w.set(|s| s.capacity = 128 << 10).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    let refused = c.vfs.write(fh, 100 * KIB as u64, &pattern(2, 32 * KIB)).await;
    assert_eq!(errno(refused), Errno::ENOSPC);
    // Writing within what is held, and up to the limit, goes on.
    c.write(fh, 50 * KIB, &pattern(3, 50 * KIB)).await;
    c.write(fh, 100 * KIB, &pattern(4, 28 * KIB)).await;
    assert_eq!(errno(c.vfs.write(fh, 128 * KIB as u64, b"x").await), Errno::ENOSPC);
    c.fsync(fh).await.unwrap();
    assert_eq!(c.length(ino).await, 128 * KIB);
    // A truncated file gives back what it had.
    c.truncate(ino, fh, 10).await;
    c.write(fh, 64 * KIB, &pattern(5, 64 * KIB)).await;
    c.close(fh).await.unwrap();
}

#[tokio::test]
async fn what_other_files_buffer_is_taken_too() {
    let w = World::new(0).await;
    w.set(|s| s.capacity = 128 << 10).await;
    let c = w.client().await;
    let (_, a) = c.create("a").await;
    let (ino, b) = c.create("b").await;
    c.write(a, 0, &pattern(1, 60 * KIB)).await;
    c.write(b, 0, &pattern(2, 60 * KIB)).await;
    assert_eq!(errno(c.vfs.write(a, 60 * KIB as u64, &pattern(1, 60 * KIB)).await), Errno::ENOSPC);
    // Nor may a new node or a truncation take it.
    let set = ciderfs_meta::SetAttr::default();
    let root = ciderfs_meta::Caller::root();
    let grown = c.vfs.setattr(&root, ino, &set, Some(100 << 10), Some(b)).await;
    assert_eq!(errno(grown), Errno::ENOSPC);
    c.close(a).await.unwrap();
    c.close(b).await.unwrap();
    let (_, d) = c.create("c").await;
    c.close(d).await.unwrap();
    // All claims are given back: the last block can be used.
    let (_, e) = c.create("d").await;
    c.write(e, 0, &pattern(3, 4 * KIB)).await;
    c.close(e).await.unwrap();
    let flags = RW | libc::O_CREAT | libc::O_EXCL;
    let made = c.vfs.create_open(&root, ciderfs_format::Ino::ROOT, b"e", 0o644, 0, flags).await;
    assert!(matches!(made, Err(e) if e.errno() == Errno::ENOSPC));
}

#[tokio::test]
async fn room_that_another_client_made_is_found() {
    let w = World::new(0).await;
    w.set(|s| s.capacity = 128 << 10).await;
    let (c, other) = (w.client().await, w.client().await);
    let (_, a) = c.create("a").await;
    c.write(a, 0, &pattern(1, 100 * KIB)).await;
    c.close(a).await.unwrap();
    let (_, b) = c.create("b").await;
    assert_eq!(errno(c.vfs.write(b, 0, &pattern(2, 100 * KIB)).await), Errno::ENOSPC);
    other.unlink("a").await;
    c.write(b, 0, &pattern(2, 100 * KIB)).await;
    // As long as there is room, none of this asks the engine.
    c.fsync(b).await.unwrap();
    c.write(b, 0, b"x").await;
    let before = w.meta.turns();
    for i in 0..20 {
        c.write(b, 100 * KIB + i * 100, &pattern(3, 100)).await;
    }
    assert_eq!(w.meta.turns() - before, 0);
    c.close(b).await.unwrap();
}
