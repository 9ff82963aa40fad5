//! Appending, while others append, cut and overwrite.

use ciderfs_format::Ino;
use ciderfs_meta::Caller;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::support::*;

/// A record that tells who wrote it, its number, and its length.
fn record(who: u8, number: u32, len: usize) -> Vec<u8> {
    let mut r = vec![who];
    r.extend(number.to_le_bytes());
    r.extend((len as u32).to_le_bytes());
    r.extend(pattern(u64::from(who) << 32 | u64::from(number), len));
    r
}

/// How many records of each writer a file holds: whole, in order, one behind the other.
fn records(mut bytes: &[u8]) -> [u32; 2] {
    let mut found = [0; 2];
    while !bytes.is_empty() {
        let (who, len) = (bytes[0], u32::from_le_bytes(bytes[5..9].try_into().unwrap()) as usize);
        let number = u32::from_le_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!(number, found[who as usize], "the number of a record of {who}");
        assert!(bytes[..9 + len] == record(who, number, len), "record {number} of {who}, {len} bytes");
        found[who as usize] += 1;
        bytes = &bytes[9 + len..];
    }
    found
}

async fn open_to_append(c: &Client, ino: Ino) -> u64 {
    c.vfs.open(&Caller::root(), ino, libc::O_RDWR | libc::O_APPEND).await.unwrap().fh
}

async fn append(c: &Client, fh: u64, data: &[u8]) {
    assert_eq!(c.vfs.append(fh, 0, data).await.unwrap() as usize, data.len());
}

#[tokio::test]
async fn appends_of_two_mounts_never_meet() {
    for seed in 0..8 {
        let w = World::new(0).await;
        let clients = [w.client().await, w.client().await];
        let (ino, fh) = clients[0].create("f").await;
        clients[0].close(fh).await.unwrap();
        let handles = [open_to_append(&clients[0], ino).await, open_to_append(&clients[1], ino).await];
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut wrote = [0_u32; 2];
        for _ in 0..150 {
            let who = rng.random_range(0..2_usize);
            let (c, fh) = (&clients[who], handles[who]);
            match rng.random_range(0..10) {
                0..=6 => {
                    let len = if rng.random_bool(0.15) { 400_000 } else { 3000 };
                    let len = rng.random_range(0..len);
                    append(c, fh, &record(who as u8, wrote[who], len)).await;
                    wrote[who] += 1;
                }
                7 => c.fsync(fh).await.unwrap(),
                8 => _ = c.length(ino).await,
                _ => {
                    // What one has written itself is there at any time, with what the other has committed before.
                    let bytes = c.read(fh, 0, 64 * MIB).await;
                    assert_eq!(records(&bytes)[who], wrote[who], "seed {seed}");
                }
            }
        }
        for (c, fh) in clients.iter().zip(handles) {
            c.close(fh).await.unwrap();
        }
        for c in &clients {
            let fh = c.open(ino).await;
            assert_eq!(records(&c.read(fh, 0, 64 * MIB).await), wrote, "seed {seed}");
            c.close(fh).await.unwrap();
        }
    }
}

#[tokio::test]
async fn appends_while_flushes_run_are_read_once() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    a.close(fh).await.unwrap();
    let (fa, fb) = (open_to_append(&a, ino).await, open_to_append(&b, ino).await);
    let mut wrote = [0; 2];
    for round in 0..60_u32 {
        append(&a, fa, &record(0, wrote[0], 5000)).await;
        let (vfs, other) = (a.vfs.clone(), b.vfs.clone());
        let flushes = tokio::spawn(async move { tokio::join!(vfs.fsync(fa), other.fsync(fb)) });
        append(&b, fb, &record(1, wrote[1], 777)).await;
        wrote = [wrote[0] + 1, wrote[1] + 1];
        for (who, (c, fh)) in [(&a, fa), (&b, fb)].into_iter().enumerate() {
            let bytes = c.read(fh, 0, 64 * MIB).await;
            assert_eq!(records(&bytes)[who], wrote[who], "round {round}");
            _ = c.length(ino).await;
        }
        let (first, second) = flushes.await.unwrap();
        first.unwrap();
        second.unwrap();
    }
    a.close(fa).await.unwrap();
    b.close(fb).await.unwrap();
    let fh = b.open(ino).await;
    assert_eq!(records(&b.read(fh, 0, 64 * MIB).await), wrote);
}

/// As programs that rotate logs by copying and cutting them do.
#[tokio::test]
async fn a_file_cut_elsewhere_goes_on_at_its_new_end() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    let log = open_to_append(&b, ino).await;
    append(&b, log, b"old lines\n").await;
    b.fsync(log).await.unwrap();
    a.truncate(ino, fh, 0).await;
    append(&b, log, b"new ").await;
    append(&b, log, b"line\n").await;
    b.fsync(log).await.unwrap();
    assert_eq!(b.length(ino).await, 9);
    let fresh = a.open(ino).await;
    assert_eq!(a.read(fresh, 0, MIB).await, b"new line\n");
    assert_eq!(b.read(log, 0, MIB).await, b"new line\n");
}

#[tokio::test]
async fn writes_by_offset_stay_where_appends_move() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fa) = a.create("f").await;
    let (la, lb) = (open_to_append(&a, ino).await, open_to_append(&b, ino).await);
    append(&a, la, b"head").await;
    a.fsync(la).await.unwrap();
    // Not flushed: both believe that the end is at 4.
    append(&a, la, b"AAAA").await;
    append(&b, lb, b"BBBB").await;
    b.fsync(lb).await.unwrap();
    a.write(fa, 1, b"E").await;
    // Bytes that are about to move: they do, then what lies there is overwritten.
    a.write(fa, 5, b"-").await;
    append(&a, la, b"tail").await;
    a.close(fa).await.unwrap();
    for c in [&a, &b] {
        let fh = c.open(ino).await;
        assert_eq!(String::from_utf8(c.read(fh, 0, MIB).await).unwrap(), "hEadB-BBAAAAtail");
    }
}

#[tokio::test]
async fn an_append_across_the_end_of_a_chunk_that_moves() {
    const CHUNK: usize = 64 * MIB;
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fa) = a.create("f").await;
    a.truncate(ino, fa, CHUNK - 1000).await;
    let (la, lb) = (open_to_append(&a, ino).await, open_to_append(&b, ino).await);
    append(&a, la, &record(0, 0, 400)).await;
    append(&b, lb, &record(1, 0, 300)).await;
    append(&b, lb, &record(1, 1, 2000)).await;
    b.fsync(lb).await.unwrap();
    append(&a, la, &record(0, 1, 600)).await;
    a.fsync(la).await.unwrap();
    append(&b, lb, &record(1, 2, 200_000)).await;
    b.fsync(lb).await.unwrap();
    let fresh = a.open(ino).await;
    let bytes = a.read(fresh, CHUNK - 1000, 4 * MIB).await;
    assert_eq!(records(&bytes), [2, 3]);
    assert_eq!(bytes.len(), 9 * 5 + 400 + 300 + 2000 + 600 + 200_000);
    // Compacted in one chunk it is still there for the other, and gives everything back in the end.
    for n in 2..120 {
        append(&a, la, &record(0, n, 50)).await;
        a.fsync(la).await.unwrap();
    }
    until("the second chunk is compacted", async || {
        a.read(fresh, CHUNK, MIB).await;
        a.meta.read_raw_chunk(ino, 1).await.unwrap().len() < 20
    })
    .await;
    let late = b.open(ino).await;
    assert_eq!(records(&b.read(late, CHUNK - 1000, 4 * MIB).await), [120, 3]);
    a.unlink("f").await;
    for (c, handles) in [(&a, [fa, la, fresh]), (&b, [late, lb, 0])] {
        for fh in handles.into_iter().filter(|fh| *fh > 0) {
            c.close(fh).await.unwrap();
        }
    }
    until("all objects are deleted", async || w.objects().await.is_empty()).await;
}

/// Readers come through although commits of appends never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_a_stream_of_appends() {
    let w = World::new(0).await;
    let c = std::sync::Arc::new(w.client().await);
    let (ino, fh) = c.create("f").await;
    let log = open_to_append(&c, ino).await;
    let writer = std::sync::Arc::clone(&c);
    let stream = tokio::spawn(async move {
        for n in 0.. {
            append(&writer, log, &record(0, n, 10)).await;
            writer.fsync(log).await.unwrap();
        }
    });
    let mut seen = 0;
    for _ in 0..100 {
        let found = records(&soon(c.read(fh, 0, 64 * MIB)).await)[0];
        assert!(found >= seen);
        seen = found;
        assert!(soon(c.length(ino)).await >= seen as usize * 19);
    }
    stream.abort();
}
