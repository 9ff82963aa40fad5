//! Files whose numbers somebody chose: sparse to the end of what there is, with lists that make no sense.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use ciderfs_format::attr::Attr;
use ciderfs_format::slice::CHUNK_SIZE;
use ciderfs_format::{Ino, Slice};
use ciderfs_meta::Errno;
use ciderfs_meta::store::{Commit, Store, Write};
use serde_json::Value;

use super::support::*;

/// Within the time that a user waits. What spins never comes back to the timer: a thread ends the tests then.
async fn quickly<T>(what: &'static str, f: impl Future<Output = T>) -> T {
    let (_done, over) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = std::io::stderr().write_all(format!("\n{what}: no end\n").as_bytes());
            std::process::abort();
        }
    });
    tokio::time::timeout(Duration::from_secs(5), f).await.unwrap_or_else(|_| panic!("{what}: not within 5 s"))
}

async fn write(w: &World, writes: Vec<Write>) {
    w.meta.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
}

async fn info(c: &Client, ino: Ino) -> Value {
    let progress = crate::tools::control::Progress::default();
    c.vfs.info(&ciderfs_meta::Caller::root(), ino, false, false, &progress).await
}

#[tokio::test]
async fn the_longest_sparse_file_costs_no_more_than_what_is_in_it() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    let last = Attr::LENGTH_MAX / CHUNK_SIZE * CHUNK_SIZE;
    c.write(fh, 0, b"begin").await;
    c.write(fh, last as usize, b"end").await;
    c.truncate(ino, fh, Attr::LENGTH_MAX as usize).await;
    for late in [false, true] {
        let c = if late { w.client().await } else { Client { vfs: c.vfs.clone(), meta: c.meta.clone() } };
        let attr = c.vfs.getattr(ino).await.unwrap();
        assert_eq!(attr.length, Attr::LENGTH_MAX);
        quickly("counting", c.vfs.count_blocks(ino, &attr)).await;
        assert_eq!(c.vfs.blocks(ino, &attr), 16, "two blocks of 4 KiB");
        let fh = c.open(ino).await;
        let seek = async |off, whence: i32| quickly("seeking", c.vfs.lseek(fh, off, whence as u32)).await;
        assert_eq!(seek(4096, libc::SEEK_DATA).await.unwrap(), last);
        assert_eq!(seek(last, libc::SEEK_HOLE).await.unwrap(), last + 4096);
        assert_eq!(errno(seek(last + 4096, libc::SEEK_DATA).await), Errno::ENXIO);
        assert_eq!(quickly("reading", c.read(fh, last as usize, 10)).await, b"end\0\0\0\0\0\0\0");
        let told = quickly("info", info(&c, ino)).await;
        assert_eq!(told["Failed"], false, "{told}");
        let objects = told["Objects"].as_array().unwrap();
        assert_eq!(objects.iter().filter(|o| o["Key"] != "").count(), 2);
    }
    quickly("truncating", c.truncate(ino, fh, 5)).await;
    assert_eq!(c.read(fh, 0, 10).await, b"begin");
}

#[tokio::test]
async fn records_beyond_their_slices_are_read_errors_and_can_be_overwritten() {
    const MAX: u32 = u32::MAX;
    let w = World::new(0).await;
    let good = Slice { pos: 0, id: 5, size: 100, off: 0, len: 100 };
    for (i, bad) in [
        Slice { len: 5000, ..good },
        Slice { off: 500, ..good },
        Slice { off: MAX, len: MAX, size: MAX, ..good },
        Slice { off: MAX - 10, ..good },
        Slice { size: 0, ..good },
        Slice { size: MAX, off: MAX - 200, len: 300, ..good },
    ]
    .into_iter()
    .enumerate()
    {
        let c = w.client().await;
        let (ino, fh) = c.create(&format!("{i}")).await;
        c.truncate(ino, fh, 10_000).await;
        c.fsync(fh).await.unwrap();
        write(&w, vec![Write::AppendSlices(ino, 0, vec![bad, bad, bad, bad, bad, bad])]).await;
        let c = w.client().await;
        let fh = c.open(ino).await;
        let answer = quickly("reading", c.try_read(fh, 0, 10_000)).await;
        assert_eq!(errno(answer), Errno::EIO, "{bad:?}");
        let attr = c.vfs.getattr(ino).await.unwrap();
        quickly("counting", c.vfs.count_blocks(ino, &attr)).await;
        quickly("seeking", c.vfs.lseek(fh, 0, libc::SEEK_HOLE as u32)).await.unwrap();
        assert_eq!(quickly("info", info(&c, ino)).await["Failed"], false);
        quickly("writing", async {
            c.write(fh, 0, &pattern(1, 10_000)).await;
            c.fsync(fh).await.unwrap();
        })
        .await;
        assert_eq!(c.read(fh, 0, 10_000).await, pattern(1, 10_000), "{bad:?}");
    }
}
