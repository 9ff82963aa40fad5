//! Which blocks the disk cache keeps, and for how long: through the store, with real directories, across restarts.

use ciderfs_format::SliceId;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cache::copy;
use super::support::*;
use crate::key::BlockId;
use crate::{BlockConfig, BlockStore, Eviction, ReadHint};

const COST: u64 = 65_536 + 4096;

/// An hour and the like pass for the caches.
fn pass(blocks: &BlockStore, seconds: u32) {
    for dir in blocks.inner.disk.dirs() {
        dir.clock.advance(seconds);
        dir.maintain();
    }
}

#[tokio::test]
async fn the_most_blocks_are_shared_by_the_directories() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().join("a"), dir.path().join("b")];
    let volume = Volume::new(60).await;
    let cfg = BlockConfig { cache_dirs: dirs.to_vec(), cache_items: 11, ..cached(BLOCK, dir.path()) };
    let blocks = volume.open(cfg.clone());
    for indx in 0..60 {
        volume.read(&blocks, indx).await;
        assert!(blocks.stats().cache_blocks <= 10);
    }
    assert_eq!(blocks.stats().cache_blocks, 10);
    until("files of the others are gone", || dirs.iter().all(|d| files(d).len() == 5)).await;
    closed(blocks).await;
    let blocks = volume.open(BlockConfig { cache_items: 4, ..cfg.clone() });
    assert_eq!(blocks.stats().cache_blocks, 4);
    assert!(dirs.iter().all(|d| files(d).len() == 2));
    closed(blocks).await;
    // Fewer than directories: one in each. None given: no limit.
    let blocks = volume.open(BlockConfig { cache_items: 1, ..cfg.clone() });
    assert_eq!(blocks.stats().cache_blocks, 2);
    closed(blocks).await;
    let blocks = volume.open(BlockConfig { cache_items: 0, ..cfg });
    for indx in 0..60 {
        volume.read(&blocks, indx).await;
    }
    assert_eq!(blocks.stats().cache_blocks, 60);
}

/// A cache with room for ten blocks.
fn ten(dir: &Path, cache_eviction: Eviction) -> BlockConfig {
    BlockConfig { cache_size: 10 * COST, cache_eviction, ..cached(BLOCK, dir) }
}

#[tokio::test]
async fn a_full_cache_without_eviction_takes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(20).await;
    let mut blocks = volume.open(ten(dir.path(), Eviction::None));
    for _ in 0..2 {
        for indx in 0..20 {
            volume.read(&blocks, indx).await;
        }
        assert_eq!(volume.cached(&blocks), all(0..10));
        assert_eq!((blocks.stats().evictions, blocks.stats().cache_drops), (0, 10));
        assert_eq!(files(dir.path()).len(), 10);
        closed(blocks).await;
        blocks = volume.open(ten(dir.path(), Eviction::None));
    }
    closed(blocks).await;
    // With another policy it goes on.
    let blocks = volume.open(ten(dir.path(), Eviction::Lru));
    assert_eq!(volume.cached(&blocks), all(0..10));
    volume.read(&blocks, 15).await;
    assert_eq!(volume.cached(&blocks).len(), 10);
    assert!(volume.cached(&blocks).contains(&15));
}

#[tokio::test]
async fn lru_keeps_what_was_used_last() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(30).await;
    let mut blocks = volume.open(ten(dir.path(), Eviction::Lru));
    for indx in (0..10).chain(0..5) {
        volume.read(&blocks, indx).await;
    }
    for (from, kept) in [(10, all(0..5)), (15, all(10..15)), (20, all(15..20))] {
        // The order is the same in the next life.
        closed(blocks).await;
        blocks = volume.open(ten(dir.path(), Eviction::Lru));
        for indx in from..from + 5 {
            volume.read(&blocks, indx).await;
        }
        assert_eq!(volume.cached(&blocks), &kept | &all(from..from + 5));
    }
}

#[tokio::test]
async fn s3_fifo_keeps_what_was_used_often_through_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(60).await;
    let mut blocks = volume.open(ten(dir.path(), Eviction::S3Fifo));
    for indx in 0..5 {
        volume.read(&blocks, indx).await;
    }
    // Uses count once in a second.
    pass(&blocks, 1);
    for indx in 0..5 {
        volume.read(&blocks, indx).await;
    }
    for from in [10, 30] {
        closed(blocks).await;
        blocks = volume.open(ten(dir.path(), Eviction::S3Fifo));
        for indx in from..from + 20 {
            volume.read(&blocks, indx).await;
        }
        assert!(volume.cached(&blocks).is_superset(&all(0..5)), "{:?}", volume.cached(&blocks));
    }
}

#[tokio::test]
async fn two_random_never_takes_what_was_used_last() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(60).await;
    let mut blocks = volume.open(ten(dir.path(), Eviction::TwoRandom));
    for indx in 0..60 {
        pass(&blocks, 1);
        volume.read(&blocks, 0).await;
        volume.read(&blocks, indx).await;
        if indx == 30 {
            closed(blocks).await;
            blocks = volume.open(ten(dir.path(), Eviction::TwoRandom));
        }
        assert!(volume.cached(&blocks).is_superset(&BTreeSet::from([0, indx])));
    }
    assert_eq!(blocks.stats().cache_blocks, 10);
    let left = volume.cached(&blocks);
    assert_eq!(volume.store.counts(), (60, 0), "block 0 was fetched once");
    assert!(left.iter().filter(|&&indx| indx >= 20).count() >= 5, "old ones left: {left:?}");
}

#[tokio::test]
async fn the_cache_outlives_a_change_of_its_policy() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(10).await;
    for (i, eviction) in Eviction::ALL.into_iter().chain(Eviction::ALL.into_iter().rev()).enumerate() {
        let blocks = volume.open(ten(dir.path(), eviction));
        assert_eq!(blocks.stats().cache_blocks, if i == 0 { 0 } else { 10 }, "{eviction}");
        for indx in 0..10 {
            volume.read(&blocks, indx).await;
        }
        assert_eq!(volume.store.counts(), (10, 0), "{eviction}");
        closed(blocks).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_read_is_not_lost_by_its_eviction() {
    let volume = Arc::new(Volume::new(12).await);
    for eviction in Eviction::ALL {
        let dir = tempfile::tempdir().unwrap();
        let cfg = BlockConfig { cache_items: 3, ..ten(dir.path(), eviction) };
        let blocks = volume.open(cfg);
        volume.read(&blocks, 0).await;
        let cache = blocks.inner.disk.dirs()[0].clone();
        let block = BlockId { id: SliceId(1), indx: 0, len: BLOCK };
        let open = cache.open_file(&block).unwrap();
        cache.remove(&block);
        assert!(files(dir.path()).is_empty());
        let mut read = vec![0; BLOCK as usize];
        open.read(0, &mut read).unwrap();
        assert!(read == volume.data[..BLOCK as usize], "{eviction}");
        // Many readers of a cache that is much too small.
        let readers: Vec<_> = (0..6_u32)
            .map(|reader| {
                let (volume, blocks) = (volume.clone(), blocks.clone());
                tokio::spawn(async move {
                    for i in 0..60_u32 {
                        let indx = crate::key::mix(u64::from(reader << 16 | i)) as u32 % 12;
                        forget_memory(&blocks);
                        let (size, off) = (volume.data.len() as u32, indx * BLOCK);
                        let read =
                            blocks.read(SliceId(1), size, off, BLOCK, ReadHint::Sequential).await.unwrap();
                        assert!(join(&read) == volume.data[off as usize..][..BLOCK as usize], "{eviction}");
                        assert!(blocks.stats().cache_blocks <= 3);
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        // All were handed to the writers, who may be slow.
        let evicts = eviction != Eviction::None;
        until("blocks are written", || blocks.stats().cache_writes > 3).await;
        until("blocks leave", || !evicts || blocks.stats().evictions > 0).await;
        let stats = blocks.stats();
        assert_eq!((stats.corrupt, stats.disk_errors), (0, 0));
        assert!(evicts || stats.evictions == 0, "{stats:?}");
    }
}

const HOUR: u32 = 3600;

fn expiring(dir: &Path, cache_eviction: Eviction) -> BlockConfig {
    BlockConfig { cache_expire: Duration::from_secs(HOUR.into()), ..ten(dir, cache_eviction) }
}

#[tokio::test]
async fn blocks_leave_that_were_not_used_for_long() {
    let volume = Volume::new(6).await;
    for eviction in Eviction::ALL {
        let dir = tempfile::tempdir().unwrap();
        let cfg = expiring(dir.path(), eviction);
        let blocks = volume.open(cfg.clone());
        for indx in 0..6 {
            volume.read(&blocks, indx).await;
        }
        pass(&blocks, HOUR - 600);
        volume.read(&blocks, 2).await;
        assert_eq!(volume.cached(&blocks), all(0..6));
        // The hour goes on in the next life. Times of files say nothing: somebody may have set the clock.
        closed(blocks).await;
        for file in files(dir.path()) {
            std::fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH)
                .unwrap();
        }
        let blocks = volume.open(cfg.clone());
        pass(&blocks, 0);
        assert_eq!(volume.cached(&blocks), all(0..6), "{eviction}");
        pass(&blocks, 700);
        assert_eq!(volume.cached(&blocks), BTreeSet::from([2]), "{eviction}");
        assert_eq!(files(dir.path()).len(), 1);
        closed(blocks).await;
        // 0 means never.
        let blocks = volume.open(BlockConfig { cache_expire: Duration::ZERO, ..cfg.clone() });
        pass(&blocks, 1000 * HOUR);
        assert_eq!(volume.cached(&blocks), BTreeSet::from([2]));
        closed(blocks).await;
        let blocks = volume.open(cfg);
        pass(&blocks, 0);
        assert!(volume.cached(&blocks).is_empty());
    }
}

#[tokio::test]
async fn the_second_that_is_the_shortest_expiry_passes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(2).await;
    // Shorter than a second is a second.
    let cfg = BlockConfig { cache_expire: Duration::from_millis(1), ..ten(dir.path(), Eviction::S3Fifo) };
    let blocks = volume.open(cfg);
    let begun = std::time::Instant::now();
    volume.read(&blocks, 0).await;
    until("it is gone", || blocks.stats().cache_blocks == 0).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    until("and its file", || files(dir.path()).is_empty()).await;
}

#[tokio::test]
async fn a_crash_does_not_make_the_cache_old() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = Volume::new(6).await;
    let blocks = volume.open(expiring(dir.path(), Eviction::S3Fifo));
    for indx in 0..5 {
        volume.read(&blocks, indx).await;
    }
    // Used all the time, which is nowhere written down when the process is killed; that another one came is.
    pass(&blocks, HOUR - 1);
    for indx in 0..6 {
        volume.read(&blocks, indx).await;
    }
    copy(&dir.path().join("ciderfs"), &crashed.path().join("ciderfs"));
    let blocks = volume.open(expiring(crashed.path(), Eviction::S3Fifo));
    pass(&blocks, HOUR - 10);
    assert_eq!(volume.cached(&blocks), all(0..6));
    pass(&blocks, 20);
    assert!(volume.cached(&blocks).is_empty());
}
