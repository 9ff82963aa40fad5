//! Downloads: sharing, ranges, damage, prefetch.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use ciderfs_format::{Compression, SliceId};

use super::support::*;
use crate::{BlockConfig, BlockError, BlockStore, ReadHint};

#[tokio::test]
async fn many_readers_of_one_block_download_it_once() {
    for compression in ALL {
        let store = TestStore::new();
        let cfg = BlockConfig { compression, ..config(MIB) };
        upload(&BlockStore::new(store.clone(), cfg.clone()).unwrap(), 1, &content(1, MIB)).await;
        let blocks = BlockStore::new(store.clone(), cfg).unwrap();
        let data = content(1, MIB);
        store.shut();
        let readers: Vec<_> = (0..32)
            .map(|i| {
                let (blocks, data) = (blocks.clone(), data.clone());
                tokio::spawn(async move {
                    let off = i * 1000;
                    let read =
                        blocks.read(SliceId(1), MIB, off, 700_000, ReadHint::Sequential).await.unwrap();
                    assert!(join(&read) == data[off as usize..off as usize + 700_000]);
                })
            })
            .collect();
        until("a GET is under way", || store.running.load(SeqCst) > 0).await;
        store.open();
        for reader in readers {
            soon(reader).await.unwrap();
        }
        assert_eq!(store.counts(), (1, 0), "{compression:?}");
    }
}

#[tokio::test]
async fn a_reader_that_gives_up_does_not_take_the_block_from_the_others() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let data = content(1, MIB);
    upload(&blocks, 1, &data).await;
    store.shut();
    let reader = |blocks: Arc<BlockStore>| {
        tokio::spawn(async move { blocks.read(SliceId(1), MIB, 0, MIB, ReadHint::Random).await })
    };
    let first = reader(blocks.clone());
    until("a GET is under way", || store.running.load(SeqCst) == 1).await;
    let second = reader(blocks.clone());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    store.open();
    assert!(join(&soon(second).await.unwrap().unwrap()) == data[..]);
    assert_eq!(store.counts(), (1, 0));
}

#[tokio::test]
async fn errors_reach_every_reader_and_are_not_kept() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let data = content(1, MIB);
    upload(&blocks, 1, &data).await;
    store.shut();
    store.get_faults.lock().push(Fault::Error);
    let reads: Vec<_> = (0..4)
        .map(|_| {
            let blocks = blocks.clone();
            tokio::spawn(async move { blocks.read(SliceId(1), MIB, 0, MIB, ReadHint::Random).await })
        })
        .collect();
    until("a GET is under way", || store.running.load(SeqCst) == 1).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    store.open();
    for read in reads {
        let result = soon(read).await.unwrap();
        assert!(matches!(result, Err(BlockError::Store { .. })), "{result:?}");
    }
    assert_eq!(blocks.budget().used(), 0);
    expect(&blocks, 1, &data, ReadHint::Random).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_retry_right_after_an_error_does_not_meet_the_same_error_again() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(64 * KIB)).unwrap();
    let data = content(1, 64 * KIB);
    upload(&blocks, 1, &data).await;
    for _ in 0..500 {
        store.get_faults.lock().push(Fault::Error);
        assert!(blocks.read(SliceId(1), 64 * KIB, 0, 100, ReadHint::Sequential).await.is_err());
        expect(&blocks, 1, &data, ReadHint::Sequential).await;
        blocks.evict_slice(SliceId(1), 64 * KIB);
    }
}

#[tokio::test]
async fn a_missing_block_is_told_from_other_errors() {
    let blocks = BlockStore::new(TestStore::new(), config(64 * KIB)).unwrap();
    for (len, hint) in [(10, ReadHint::Random), (1000, ReadHint::Sequential)] {
        let error = blocks.read(SliceId(1), 1000, 0, len, hint).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    assert_eq!(blocks.stats().errors, 0);
}

#[tokio::test]
async fn small_random_reads_use_ranges_until_the_block_is_popular() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let data = content(1, 2 * MIB);
    upload(&blocks, 1, &data).await;
    let read = |off: u32, len: u32| {
        let (blocks, data) = (blocks.clone(), data.clone());
        async move {
            let read = blocks.read(SliceId(1), 2 * MIB, off, len, ReadHint::Random).await.unwrap();
            assert!(join(&read) == data[off as usize..(off + len) as usize]);
        }
    };
    for (n, off) in [(1, 0), (2, 5000), (3, 900_000)] {
        read(off, 4096).await;
        assert_eq!(store.counts(), (0, n));
    }
    read(8192, 4096).await;
    assert_eq!(store.counts(), (1, 3), "the fourth takes the whole block");
    read(100, 200_000).await;
    assert_eq!(store.counts(), (1, 3), "which then is in memory");
    // Another block counts for itself; a quarter is small, more is not.
    read(MIB, MIB / 4).await;
    assert_eq!(store.counts(), (1, 4));
    read(MIB, MIB / 4 + 1).await;
    assert_eq!(store.counts(), (2, 4));
    // Both blocks at once, from memory.
    read(MIB - 100, 200).await;
    assert_eq!(store.counts(), (2, 4));
    let stats = blocks.stats();
    assert_eq!((stats.gets, stats.range_gets), (2, 4));
    assert_eq!((stats.misses, stats.hits), (6, 3));
}

#[tokio::test]
async fn no_ranges_where_they_cost_the_whole_object() {
    for (compression, ranges, hint) in [
        (Compression::None, false, ReadHint::Random),
        (Compression::Zstd, true, ReadHint::Random),
        (Compression::None, true, ReadHint::Sequential),
    ] {
        let store = TestStore::with_ranges(ranges);
        let blocks = BlockStore::new(store.clone(), BlockConfig { compression, ..config(MIB) }).unwrap();
        let data = content(1, MIB);
        upload(&blocks, 1, &data).await;
        for off in [500_000, 0, 900_000] {
            let read = blocks.read(SliceId(1), MIB, off, 100, hint).await.unwrap();
            assert!(join(&read) == data[off as usize..off as usize + 100]);
        }
        assert_eq!(store.counts(), (1, 0), "{compression:?} {ranges} {hint:?}");
    }
}

#[tokio::test]
async fn a_short_object_is_fetched_again_once() {
    for compression in ALL {
        let store = TestStore::new();
        let blocks = BlockStore::new(store.clone(), BlockConfig { compression, ..config(MIB) }).unwrap();
        let data = content(1, 300_000);
        upload(&blocks, 1, &data).await;
        store.get_faults.lock().push(Fault::Short(1000));
        expect(&blocks, 1, &data, ReadHint::Sequential).await;
        assert_eq!(store.counts(), (2, 0));
        assert_eq!(blocks.stats().corrupt, 1);
        blocks.evict_slice(SliceId(1), 300_000);
        store.get_faults.lock().extend([Fault::Short(1), Fault::Short(1)]);
        let error = blocks.read(SliceId(1), 300_000, 0, 300_000, ReadHint::Sequential).await.unwrap_err();
        assert!(matches!(error, BlockError::Corrupt { .. }), "{error}");
        assert_eq!(store.counts(), (4, 0));
        assert_eq!(blocks.budget().used(), 0);
    }
}

#[tokio::test]
async fn an_object_that_does_not_decompress_is_fetched_again_once() {
    let store = TestStore::new();
    let cfg = BlockConfig { compression: Compression::Zstd, ..config(MIB) };
    let blocks = BlockStore::new(store.clone(), cfg).unwrap();
    let data = content(1, MIB);
    upload(&blocks, 1, &data).await;
    store.get_faults.lock().push(Fault::Flip);
    expect(&blocks, 1, &data, ReadHint::Random).await;
    assert_eq!((store.counts(), blocks.stats().corrupt), ((2, 0), 1));
}

#[tokio::test]
async fn blocks_up_to_128_kib_come_whole() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let data = content(1, 128 * KIB);
    upload(&blocks, 1, &data).await;
    let read = blocks.read(SliceId(1), 128 * KIB, 5, 10, ReadHint::Random).await.unwrap();
    assert!(join(&read) == data[5..15]);
    assert_eq!(store.counts(), (1, 0));
}

#[tokio::test]
async fn a_longer_object_is_tolerated_like_by_the_official_client() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let data = content(1, 5000);
    let long = [&data[..], b"tail"].concat();
    store.objects.lock().insert("chunks/0/0/1_0_5000".to_owned(), long.into());
    expect(&blocks, 1, &data, ReadHint::Sequential).await;
}

#[tokio::test]
async fn a_block_brings_no_more_into_memory_than_it_has_room_for() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let long = vec![1; 5000 + (65 << 10)];
    store.objects.lock().insert("chunks/0/0/1_0_5000".to_owned(), long.into());
    let e = blocks.read(SliceId(1), 5000, 0, 5000, ReadHint::Sequential).await.unwrap_err();
    assert!(e.to_string().contains("more than the 70536 bytes"), "{e}");
}

#[tokio::test]
async fn a_failed_range_falls_back_to_the_whole_block() {
    for fault in [Fault::Error, Fault::Short(1)] {
        let store = TestStore::new();
        let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
        let data = content(1, MIB);
        upload(&blocks, 1, &data).await;
        store.get_faults.lock().push(fault);
        let read = blocks.read(SliceId(1), MIB, 1000, 10, ReadHint::Random).await.unwrap();
        assert!(join(&read) == data[1000..1010]);
        assert_eq!(store.counts(), (1, 1));
    }
}

#[tokio::test]
async fn prefetch_brings_blocks_and_knows_its_limits() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(64 * KIB)).unwrap();
    let size = 64 * KIB * 100;
    let data = content(1, size);
    upload(&blocks, 1, &data).await;
    blocks.prefetch(SliceId(1), size, 3);
    until("block 3 is there", || blocks.stats().memory_blocks == 1).await;
    assert_eq!(store.counts(), (1, 0));
    blocks.prefetch(SliceId(1), size, 3);
    blocks.prefetch(SliceId(1), size, 100);
    let read = blocks.read(SliceId(1), size, 3 * 64 * KIB, 64 * KIB, ReadHint::Sequential).await.unwrap();
    assert!(join(&read) == data[3 * 65536..4 * 65536]);
    assert_eq!(store.counts(), (1, 0));
    store.shut();
    for indx in 10..100 {
        blocks.prefetch(SliceId(1), size, indx);
    }
    until("one worker works", || store.counts().0 == 2).await;
    // A worker and ten places.
    assert_eq!(blocks.stats().prefetch_dropped, 90 - 11);
    store.open();
    until("all are there", || blocks.stats().memory_blocks == 12).await;
    assert_eq!(store.counts(), (12, 0));
}

#[tokio::test]
async fn read_ahead_runs_in_parallel_and_leaves_memory_for_readers() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(MIB)).unwrap();
    let size = 40 * MIB;
    let data = content(1, size);
    upload(&blocks, 1, &data).await;
    store.shut();
    let mut started = 0;
    while blocks.read_ahead(SliceId(1), size, started) {
        started += 1;
        let want = started as usize;
        until("it is under way", || store.running.load(SeqCst) == want).await;
    }
    // 3/4 of the 5/8 of 32 MiB that readers can have.
    assert_eq!(started, 15);
    let reader = {
        let blocks = blocks.clone();
        tokio::spawn(async move { blocks.read(SliceId(1), size, 30 * MIB, MIB, ReadHint::Random).await })
    };
    until("the reader is under way", || store.running.load(SeqCst) == 16).await;
    store.open();
    assert!(join(&soon(reader).await.unwrap().unwrap()) == data[30 << 20..31 << 20]);
    // Memory that the cache holds is given up for what somebody wants.
    expect(&blocks, 1, &content(1, size).slice(..), ReadHint::Random).await;
}
