//! What was written is what is read.

use ciderfs_format::CHUNK_SIZE;
use ciderfs_meta::Errno;

use super::support::*;

#[tokio::test]
async fn holes_and_the_end_of_the_file() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    assert_eq!(c.read(fh, 0, 10).await, b"");
    c.write(fh, 300 * KIB, b"end").await;
    assert_eq!(c.length(ino).await, 300 * KIB + 3);
    for _ in 0..2 {
        assert_eq!(c.read(fh, 0, 300 * KIB).await, vec![0; 300 * KIB]);
        assert_eq!(c.read(fh, 300 * KIB - 1, 100).await, b"\0end");
        assert_eq!(c.read(fh, 300 * KIB + 3, 100).await, b"");
        assert_eq!(c.read(fh, usize::MAX >> 8, 100).await, b"");
        c.fsync(fh).await.unwrap();
    }
    // Only what was written is stored.
    assert_eq!(w.objects().await.len(), 1);
}

#[tokio::test]
async fn across_chunks_and_beyond_4_gib() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    let chunk = CHUNK_SIZE as usize;
    let data = pattern(7, 200 * KIB);
    for (n, at) in [chunk - 100 * KIB, 3 * chunk - 1, (5 << 30) + 17, (1 << 40) - 77].into_iter().enumerate()
    {
        c.write(fh, at, &data).await;
        if n % 2 == 0 {
            c.fsync(fh).await.unwrap();
        }
        assert_eq!(c.read(fh, at, data.len()).await, data, "at {at}");
        assert_eq!(c.read(fh, at - 3, 4).await, [0, 0, 0, data[0]]);
    }
    c.close(fh).await.unwrap();
    assert_eq!(c.length(ino).await, (1 << 40) - 77 + data.len());
    let fh = c.open(ino).await;
    assert_eq!(c.read(fh, chunk - 100 * KIB, data.len()).await, data);
    assert_eq!(c.read(fh, (5 << 30) + 17, data.len()).await, data);
}

#[tokio::test]
async fn the_largest_file() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, fh) = c.create("a").await;
    let last = ciderfs_format::slice::MAX_FILE_SIZE as usize - 1;
    c.write(fh, last - 3, b"end").await;
    c.fsync(fh).await.unwrap();
    assert_eq!(c.read(fh, last - 4, 10).await, b"\0end");
    assert_eq!(errno(c.vfs.write(fh, last as u64 - 2, b"end").await), Errno::EFBIG);
    assert_eq!(errno(c.vfs.write(fh, u64::MAX - 1, b"end").await), Errno::EFBIG);
}

#[tokio::test]
async fn a_shrunk_file_does_not_show_its_old_end_again() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    for flushed in [true, false] {
        c.write(fh, 0, &pattern(1, 200 * KIB)).await;
        if flushed {
            c.fsync(fh).await.unwrap();
        }
        c.truncate(ino, fh, 70 * KIB).await;
        c.write(fh, 200 * KIB, b"x").await;
        let mut want = pattern(1, 70 * KIB);
        want.resize(200 * KIB, 0);
        want.push(b'x');
        assert_eq!(c.read(fh, 0, 300 * KIB).await, want);
        c.fsync(fh).await.unwrap();
        assert_eq!(c.read(fh, 0, 300 * KIB).await, want);
        c.truncate(ino, fh, 0).await;
        assert_eq!(c.read(fh, 0, 1).await, b"");
    }
}

#[tokio::test]
async fn an_unlinked_file_lives_until_its_last_close() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    c.fsync(fh).await.unwrap();
    c.unlink("a").await;
    c.write(fh, 100 * KIB, &pattern(2, 10)).await;
    c.fsync(fh).await.unwrap();
    let want = [pattern(1, 100 * KIB), pattern(2, 10)].concat();
    assert_eq!(c.read(fh, 0, 200 * KIB).await, want);
    assert_eq!(c.vfs.getattr(ino).await.unwrap().nlink, 0);
    c.close(fh).await.unwrap();
    assert_eq!(errno(c.meta.getattr(ino).await), Errno::ENOENT);
    until("its objects are deleted", async || w.objects().await.is_empty()).await;
}
