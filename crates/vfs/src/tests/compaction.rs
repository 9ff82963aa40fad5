//! Long lists become short, and nobody sees a difference.

use std::sync::Arc;

use ciderfs_format::Ino;

use super::support::*;

/// Writes `count` small slices over one another; what the file holds then.
async fn fragment(c: &Client, ino: Ino, fh: u64, count: usize) -> Vec<u8> {
    let mut want = vec![0; 400 * KIB];
    for n in 0..count {
        let data = pattern(n as u64, 1 + n * 131 % 9000);
        let at = n * 7919 % (want.len() - data.len());
        c.write(fh, at, &data).await;
        want[at..at + data.len()].copy_from_slice(&data);
        c.fsync(fh).await.unwrap();
    }
    let length = c.vfs.getattr(ino).await.unwrap().length;
    want.truncate(length as usize);
    want
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_shortens_a_long_list() {
    for trash_days in [0, 1] {
        let w = World::new(trash_days).await;
        let c = w.client().await;
        let (ino, fh) = c.create("f").await;
        let want = fragment(&c, ino, fh, 60).await;
        assert_eq!(c.meta.read_raw_chunk(ino, 0).await.unwrap().len(), 60);
        assert_eq!(c.read(fh, 0, MIB).await, want);
        until("one record", async || c.meta.read_raw_chunk(ino, 0).await.unwrap().len() == 1).await;
        assert_eq!(c.read(fh, 0, MIB).await, want);
        let late = w.client().await;
        let again = late.open(ino).await;
        assert_eq!(late.read(again, 0, MIB).await, want);
        // With the trash on, the old slices stay as long as it keeps anything.
        let blocks = want.len().div_ceil(64 * KIB);
        if trash_days == 0 {
            until("the old objects are gone", async || w.objects().await.len() == blocks).await;
        } else {
            assert_eq!(w.objects().await.len(), blocks + 60);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_shortens_its_list_too() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("f").await;
    let want = fragment(&c, ino, fh, 199).await;
    until("the list is short", async || c.meta.read_raw_chunk(ino, 0).await.unwrap().len() < 120).await;
    assert_eq!(c.read(fh, 0, MIB).await, want);
}

/// Readers and writers of two mounts go on while both compact.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load() {
    let w = World::new(0).await;
    let clients = [Arc::new(w.client().await), Arc::new(w.client().await)];
    let (ino, fh) = clients[0].create("f").await;
    // Each client writes places of its own.
    const PLACES: usize = 64;
    const SIZE: usize = 3000;
    let mut tasks = Vec::new();
    for (n, c) in clients.iter().enumerate() {
        let c = Arc::clone(c);
        tasks.push(tokio::spawn(async move {
            let fh = c.open(ino).await;
            let mut want = vec![None; PLACES];
            for round in 0..250_usize {
                let place = (round * 37 + n) % (PLACES / 2) * 2 + n;
                let data = pattern((round * 2 + n) as u64, SIZE);
                c.write(fh, place * SIZE, &data).await;
                c.fsync(fh).await.unwrap();
                want[place] = Some(data);
                let look = (round * 53) % (PLACES / 2) * 2 + n;
                let got = c.read(fh, look * SIZE, SIZE).await;
                match &want[look] {
                    Some(data) => assert!(got == *data, "client {n}, round {round}, place {look}"),
                    None => assert!(got.iter().all(|b| *b == 0)),
                }
            }
            want
        }));
    }
    let mut want = vec![0; PLACES * SIZE];
    for task in tasks {
        for (place, data) in soon(task).await.unwrap().into_iter().enumerate() {
            if let Some(data) = data {
                want[place * SIZE..(place + 1) * SIZE].copy_from_slice(&data);
            }
        }
    }
    let got = clients[0].open(ino).await;
    let length = clients[0].length(ino).await;
    assert!(clients[0].read(got, 0, MIB).await == want[..length]);
    clients[0].close(fh).await.unwrap();
    let counted = |text: String| {
        let line = text
            .lines()
            .find(|l| l.starts_with("juicefs_compact_size_histogram_bytes_count"))
            .map(str::to_owned);
        line.and_then(|l| l.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok())).unwrap_or_default()
    };
    assert!(clients.iter().any(|c| counted(c.vfs.metrics().prometheus_text()) > 0.0));
}

/// Reads of very fragmented files with little memory neither wait for themselves nor exceed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fragmented_reads_in_little_memory() {
    let mut w = World::new(0).await;
    w.buffer_size = 32 << 20;
    let c = Arc::new(w.client().await);
    let mut files = Vec::new();
    for n in 0..8 {
        let (ino, fh) = c.create(&format!("f{n}")).await;
        files.push((fh, fragment(&c, ino, fh, 40).await));
    }
    let readers: Vec<_> = files
        .into_iter()
        .map(|(fh, want)| {
            let c = Arc::clone(&c);
            tokio::spawn(async move {
                for _ in 0..5 {
                    assert!(c.read(fh, 0, MIB).await == want);
                }
            })
        })
        .collect();
    for reader in readers {
        soon(reader).await.unwrap();
    }
    assert!(c.vfs.blocks.stats().buffer_peak <= 32 << 20);
}
