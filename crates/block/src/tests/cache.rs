//! The disk cache behind the block store: it serves, it forgets, it breaks, and nobody notices.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use ciderfs_format::{Compression, SliceId};

use super::support::*;
use crate::{BlockConfig, BlockStore, ReadHint};

/// What a test does to a file.
type Damage = fn(&mut Vec<u8>);

/// A volume with one slice of `n` blocks in a store, and a client with all of them in its disk cache only.
async fn filled(dir: &Path, n: u32) -> (std::sync::Arc<TestStore>, std::sync::Arc<BlockStore>, bytes::Bytes) {
    let store = TestStore::new();
    let data = content(1, n * 64 * KIB);
    upload(&BlockStore::new(store.clone(), config(64 * KIB)).unwrap(), 1, &data).await;
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir)).unwrap();
    for indx in 0..n {
        blocks
            .read(SliceId(1), data.len() as u32, indx * 64 * KIB, 64 * KIB, ReadHint::Sequential)
            .await
            .unwrap();
        // The writers may drop what comes too fast.
        until("it is on disk", || blocks.stats().cache_blocks > u64::from(indx)).await;
    }
    (store, blocks, data)
}

#[tokio::test]
async fn a_stream_leaves_little_in_memory_in_whatever_order_its_requests_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let (n, block, piece) = (32, 256 * KIB, 64 * KIB);
    let data = content(1, n * block);
    upload(&BlockStore::new(store.clone(), config(block)).unwrap(), 1, &data).await;
    let blocks = BlockStore::new(store, cached(block, dir.path())).unwrap();
    for indx in 0..n {
        // The last piece of a block before the others.
        for off in [3, 0, 2, 1].map(|i| indx * block + i * piece) {
            blocks.read(SliceId(1), data.len() as u32, off, piece, ReadHint::Sequential).await.unwrap();
        }
    }
    assert!(blocks.stats().memory_blocks <= 2, "{:?}", blocks.stats());
}

#[tokio::test]
async fn reads_come_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 10).await;
    let size = data.len() as u32;
    assert_eq!(store.counts(), (10, 0));
    assert_eq!(files(dir.path()).len(), 10);
    for (off, len) in [(0, size), (1, 1), (65_535, 2), (40_000, 500_000), (size - 1, 1), (32_768, 32_768)] {
        forget_memory(&blocks);
        let before = blocks.stats();
        let read = blocks.read(SliceId(1), size, off, len, ReadHint::Random).await.unwrap();
        assert!(join(&read) == data[off as usize..(off + len) as usize]);
        let after = blocks.stats();
        assert_eq!(after.hit_bytes - before.hit_bytes, u64::from(len));
        assert_eq!(after.memory_hits, before.memory_hits);
    }
    assert_eq!(store.counts(), (10, 0));
    assert_eq!(blocks.stats().cache_bytes, 10 * (65_536 + 4096));
}

#[tokio::test]
async fn a_restart_finds_the_cache_without_a_single_get() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 10).await;
    blocks.shutdown().await;
    drop(blocks);
    assert!(
        !std::fs::read_dir(dir.path().join("ciderfs"))
            .unwrap()
            .any(|e| { e.unwrap().file_name().to_string_lossy().starts_with("index.log") })
    );
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    assert_eq!(blocks.stats().cache_blocks, 10);
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (10, 0));
}

#[tokio::test]
async fn a_crash_loses_at_most_the_cache_of_the_last_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 10).await;
    // What a killed process leaves behind: everything as it is now, without an orderly end.
    let crashed = tempfile::tempdir().unwrap();
    copy(&dir.path().join("ciderfs"), &crashed.path().join("ciderfs"));
    drop(blocks);
    std::fs::write(crashed.path().join("ciderfs/tmp/7"), b"half a block").unwrap();
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, crashed.path())).unwrap();
    assert_eq!(blocks.stats().cache_blocks, 10);
    assert!(!crashed.path().join("ciderfs/tmp/7").exists());
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (10, 0));
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_index_costs_a_sweep_but_no_data() {
    let damages: [(&str, Damage); 4] = [
        ("magic", |raw| raw[0] ^= 1),
        ("record", |raw| raw[60] ^= 1),
        ("cut", |raw| raw.truncate(raw.len() - 30)),
        ("empty", Vec::clear),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (store, blocks, data) = filled(dir.path(), 10).await;
        blocks.shutdown().await;
        drop(blocks);
        let index = dir.path().join("ciderfs/index.snap");
        let mut raw = std::fs::read(&index).unwrap();
        damage(&mut raw);
        std::fs::write(&index, raw).unwrap();
        let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
        until(what, || blocks.stats().cache_blocks == 10).await;
        expect(&blocks, 1, &data, ReadHint::Random).await;
        assert_eq!(store.counts(), (10, 0), "{what}");
        blocks.shutdown().await;
    }
}

#[tokio::test]
async fn a_missing_index_is_rebuilt_and_foreign_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 10).await;
    blocks.shutdown().await;
    drop(blocks);
    std::fs::remove_file(dir.path().join("ciderfs/index.snap")).unwrap();
    let foreign = dir.path().join("ciderfs/blocks/00/1_2_3");
    let nonsense = dir.path().join("ciderfs/blocks/ff/hello");
    std::fs::write(&foreign, b"?").unwrap();
    std::fs::write(&nonsense, b"?").unwrap();
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    until("foreign files are removed", || !foreign.exists() && !nonsense.exists()).await;
    until("the others are taken in", || blocks.stats().cache_blocks == 10).await;
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (10, 0));
}

#[tokio::test]
async fn a_damaged_cache_file_is_removed_and_downloaded_again() {
    let damages: [(&str, Damage); 7] = [
        ("data", |raw| raw[40_000] ^= 1),
        ("checksum", |raw| raw[65_537] ^= 1),
        ("magic", |raw| raw[65_545] ^= 1),
        ("short", |raw| raw.truncate(65_000)),
        ("long", |raw| raw.push(0)),
        ("zeros", |raw| raw.fill(0)),
        ("empty", Vec::clear),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (store, blocks, data) = filled(dir.path(), 4).await;
        blocks.shutdown().await;
        drop(blocks);
        let victim = &files(dir.path())[2];
        let mut raw = std::fs::read(victim).unwrap();
        damage(&mut raw);
        std::fs::write(victim, raw).unwrap();
        let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
        expect(&blocks, 1, &data, ReadHint::Random).await;
        assert_eq!(store.counts(), (5, 0), "{what}");
        assert_eq!(blocks.stats().corrupt, 1, "{what}");
        until("it is cached again", || blocks.stats().cache_blocks == 4).await;
        forget_memory(&blocks);
        expect(&blocks, 1, &data, ReadHint::Random).await;
        assert_eq!(store.counts(), (5, 0), "{what}");
        assert_eq!(blocks.stats().disk_errors, 0);
    }
}

#[tokio::test]
async fn a_block_under_the_name_of_another_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 2).await;
    blocks.shutdown().await;
    drop(blocks);
    let both = files(dir.path());
    std::fs::copy(&both[0], &both[1]).unwrap();
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (3, 0));
}

#[tokio::test]
async fn files_that_vanish_are_plain_misses() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blocks, data) = filled(dir.path(), 4).await;
    blocks.shutdown().await;
    drop(blocks);
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    for file in files(dir.path()) {
        std::fs::remove_file(file).unwrap();
    }
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (8, 0));
    let stats = blocks.stats();
    assert_eq!((stats.disk_errors, stats.corrupt), (0, 0));
}

#[tokio::test]
async fn eviction_keeps_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let cache_size = 20 * (65_536 + 4096);
    let cfg = BlockConfig { cache_size, cache_large_write: true, ..cached(64 * KIB, dir.path()) };
    let blocks = BlockStore::new(store.clone(), cfg.clone()).unwrap();
    let data = content(1, 100 * 64 * KIB);
    for indx in 0..100_u32 {
        let at = (indx * 64 * KIB) as usize;
        blocks.put_block(SliceId(1), indx, data.slice(at..at + 65_536), 0).await.unwrap();
        until("it is written", || blocks.stats().cache_writes > u64::from(indx)).await;
        assert!(blocks.stats().cache_bytes <= cache_size + 65_536 + 4096);
    }
    until("evictions are done", || blocks.stats().cache_bytes <= cache_size).await;
    let stats = blocks.stats();
    assert_eq!(stats.cache_blocks + stats.evictions, 100);
    until("their files are gone", || files(dir.path()).len() as u64 == stats.cache_blocks).await;
    expect(&blocks, 1, &data, ReadHint::Random).await;
    // A smaller cache at the next start.
    blocks.shutdown().await;
    drop(blocks);
    let blocks = BlockStore::new(store, BlockConfig { cache_size: cache_size / 2, ..cfg }).unwrap();
    assert!(blocks.stats().cache_bytes <= cache_size / 2);
    assert_eq!(files(dir.path()).len() as u64, blocks.stats().cache_blocks);
}

#[tokio::test]
async fn a_full_disk_is_no_reason_to_fail() {
    // Either the file system says so, or it must stay empty by configuration.
    for errno in [Some(28), None] {
        let dir = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let ratio = if errno.is_some() { 0.0 } else { 1.0 };
        let cfg =
            BlockConfig { free_space_ratio: ratio, cache_large_write: true, ..cached(64 * KIB, dir.path()) };
        let blocks = BlockStore::new(store.clone(), cfg).unwrap();
        for cache in blocks.inner.disk.dirs() {
            cache.fail_writes.store(errno.unwrap_or(0), SeqCst);
        }
        let data = content(1, 10 * 64 * KIB);
        upload(&blocks, 1, &data).await;
        until("all were dropped", || blocks.stats().cache_drops == 10).await;
        expect(&blocks, 1, &data, ReadHint::Random).await;
        let stats = blocks.stats();
        assert_eq!((stats.cache_blocks, stats.disk_errors, stats.disk_trips), (0, 0, 0));
        assert!(files(dir.path()).is_empty());
    }
}

#[tokio::test]
async fn a_sick_disk_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let cfg = BlockConfig { cache_large_write: true, ..cached(64 * KIB, dir.path()) };
    let blocks = BlockStore::new(store.clone(), cfg).unwrap();
    blocks.inner.disk.dirs()[0].fail_writes.store(5, SeqCst);
    let data = content(1, 20 * 64 * KIB);
    upload(&blocks, 1, &data).await;
    until("all were dropped", || blocks.stats().cache_drops == 20).await;
    let stats = blocks.stats();
    assert!((5..20).contains(&stats.disk_errors), "{}", stats.disk_errors);
    assert!(stats.disk_trips >= 1);
    expect(&blocks, 1, &data, ReadHint::Random).await;
}

#[tokio::test]
async fn an_unusable_cache_directory_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let store = TestStore::new();
    let cfg = BlockConfig {
        cache_dirs: vec![file.join("cache"), dir.path().join("good")],
        ..cached(64 * KIB, dir.path())
    };
    let blocks = BlockStore::new(store, cfg).unwrap();
    let data = content(1, 1000);
    upload(&blocks, 1, &data).await;
    until("it is cached", || blocks.stats().cache_blocks == 1).await;
    expect(&blocks, 1, &data, ReadHint::Random).await;
}

#[tokio::test]
async fn two_processes_get_directories_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let first = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    let second = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    let data = content(1, 1000);
    upload(&first, 1, &data).await;
    until("it is cached", || first.stats().cache_blocks == 1).await;
    expect(&second, 1, &data, ReadHint::Sequential).await;
    until("here too", || second.stats().cache_blocks == 1).await;
    assert!(dir.path().join("ciderfs.1/blocks").exists());
    first.shutdown().await;
    drop(first);
    let third = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    assert_eq!(third.stats().cache_blocks, 1, "the first directory is free again");
    assert!(!dir.path().join("ciderfs.2").exists());
}

#[tokio::test]
async fn several_directories_share_the_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (0..3).map(|i| dir.path().join(i.to_string())).collect();
    let cfg =
        BlockConfig { cache_dirs: dirs.clone(), cache_large_write: true, ..cached(64 * KIB, dir.path()) };
    let blocks = BlockStore::new(TestStore::new(), cfg).unwrap();
    let data = content(1, 60 * 64 * KIB);
    for indx in 0..60_u32 {
        let at = (indx * 64 * KIB) as usize;
        blocks.put_block(SliceId(1), indx, data.slice(at..at + 65_536), 0).await.unwrap();
        until("it is written", || blocks.stats().cache_blocks > u64::from(indx)).await;
    }
    for dir in &dirs {
        let n = files(dir).len();
        assert!((5..=40).contains(&n), "{n}");
    }
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(blocks.stats().misses, 0);
}

#[tokio::test]
async fn what_enters_the_cache_follows_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    let data = content(1, 64 * KIB + 100);
    upload(&blocks, 1, &data).await;
    until("the partial block is cached", || blocks.stats().cache_blocks == 1).await;
    assert!(
        blocks.is_cached(SliceId(1), data.len() as u32, 1)
            && !blocks.is_cached(SliceId(1), data.len() as u32, 0)
    );
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!(store.counts(), (1, 0));

    let dir = tempfile::tempdir().unwrap();
    let cfg = BlockConfig { cache_partial_only: true, ..cached(64 * KIB, dir.path()) };
    let blocks = BlockStore::new(store.clone(), cfg).unwrap();
    expect(&blocks, 1, &data, ReadHint::Sequential).await;
    until("only the partial block is cached", || blocks.stats().cache_blocks == 1).await;
    forget_memory(&blocks);
    assert!(
        blocks.is_cached(SliceId(1), data.len() as u32, 1)
            && !blocks.is_cached(SliceId(1), data.len() as u32, 0)
    );

    // Streams of a store on the same file system leave it alone, unless blocks must be unpacked.
    let here = std::fs::metadata(std::env::temp_dir()).unwrap().dev();
    for (id, compression, device, cached_blocks) in [
        (11, Compression::None, here, 1),
        (12, Compression::None, here + 1, 2),
        (13, Compression::Lz4, here, 2),
    ] {
        store.device.store(device, SeqCst);
        let dir = tempfile::tempdir().unwrap();
        let cfg = BlockConfig { compression, ..cached(64 * KIB, dir.path()) };
        upload(
            &BlockStore::new(store.clone(), BlockConfig { cache_dirs: Vec::new(), ..cfg.clone() }).unwrap(),
            id,
            &data,
        )
        .await;
        let blocks = BlockStore::new(store.clone(), cfg).unwrap();
        expect(&blocks, id, &data, ReadHint::Sequential).await;
        until("what is to be cached is", || blocks.stats().cache_blocks == cached_blocks).await;
        forget_memory(&blocks);
        assert!(blocks.is_cached(SliceId(id), data.len() as u32, 1), "the partial block");
        assert_eq!(blocks.is_cached(SliceId(id), data.len() as u32, 0), cached_blocks == 2);
        blocks.prefetch(SliceId(id), data.len() as u32, 0);
        until("a prefetched block is cached", || blocks.stats().cache_blocks == 2).await;
    }
    store.device.store(0, SeqCst);

    let dir = tempfile::tempdir().unwrap();
    let cfg = BlockConfig { cache_size: 0, ..cached(64 * KIB, dir.path()) };
    let blocks = BlockStore::new(store, cfg).unwrap();
    upload(&blocks, 2, &content(2, 100)).await;
    assert_eq!(blocks.stats().cache_blocks, 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
