//! The memory bound holds, and nobody waits for ever.

use ciderfs_format::SliceId;
use std::sync::Arc;
use std::time::Duration;

use super::support::*;
use crate::{BlockConfig, BlockStore, Budget, BudgetKind, ReadHint, SlicePart};

const M: u64 = 1 << 20;

#[tokio::test]
async fn reserves_keep_readers_and_writers_apart() {
    let budget = Budget::new(32 * M);
    let mut writes = Vec::new();
    while let Some(permit) = budget.try_acquire(M, BudgetKind::Write) {
        writes.push(permit);
    }
    // 32 less a quarter for readers and an eighth for scratch.
    assert_eq!(writes.len(), 20);
    let reads: Vec<_> = (0..8).map(|_| budget.try_acquire(M, BudgetKind::Read).unwrap()).collect();
    assert!(budget.try_acquire(M, BudgetKind::Read).is_none());
    assert!(budget.try_acquire(1, BudgetKind::Cache).is_none());
    let scratch = budget.try_acquire(4 * M, BudgetKind::Scratch).unwrap();
    assert_eq!((budget.used(), budget.peak()), (32 * M, 32 * M));
    drop((writes, reads, scratch));
    assert_eq!(budget.used(), 0);
    assert!(budget.try_acquire(12 * M + 1, BudgetKind::Cache).is_none());
    assert!(budget.try_acquire(12 * M, BudgetKind::Cache).is_some());
}

#[tokio::test]
async fn one_request_larger_than_its_reserve_always_gets_on() {
    let budget = Budget::new(32 * M);
    let _writes = budget.try_acquire(20 * M, BudgetKind::Write).unwrap();
    let first = soon(budget.acquire(16 * M, BudgetKind::Read)).await;
    assert_eq!(budget.used(), 36 * M);
    assert!(budget.try_acquire(16 * M, BudgetKind::Read).is_none());
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { budget.acquire(16 * M, BudgetKind::Read).await.bytes() }
    });
    until("it waits", || budget.has_waiters()).await;
    drop(first);
    assert_eq!(soon(waiting).await.unwrap(), 16 * M);
    assert_eq!(budget.used(), 20 * M);
}

#[tokio::test]
async fn waiters_are_served_in_order_and_may_leave() {
    let budget = Budget::new(32 * M);
    let held = budget.try_acquire(20 * M, BudgetKind::Read).unwrap();
    let wait = |bytes: u64| {
        let budget = budget.clone();
        tokio::spawn(async move { budget.acquire(bytes, BudgetKind::Read).await })
    };
    let large = wait(19 * M);
    until("it waits", || budget.has_waiters()).await;
    let small = wait(M);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let mut held = held;
    held.shrink_to(18 * M);
    assert!(!small.is_finished(), "it must not overtake for ever");
    large.abort();
    let small = soon(small).await.unwrap();
    assert_eq!(small.bytes(), M);
    drop((small, held));
    assert_eq!(budget.used(), 0);
    assert!(!budget.has_waiters());
}

#[tokio::test]
async fn split_and_join_lose_nothing() {
    let budget = Budget::new(32 * M);
    let mut all = budget.try_acquire(1000, BudgetKind::Read).unwrap();
    let part = all.split(300);
    assert_eq!((all.bytes(), part.bytes(), budget.used()), (700, 300, 1000));
    let all = all.join(part);
    assert_eq!((all.bytes(), budget.used()), (1000, 1000));
    let other = budget.try_acquire(50, BudgetKind::Write).unwrap();
    let all = all.join(other);
    assert_eq!((all.bytes(), budget.used()), (1000, 1000));
    drop(all);
    assert_eq!(budget.used(), 0);
}

/// Slices that readers read; together more than the memory cache holds.
const SLICES: u64 = 4;

/// Readers that keep what they read for a moment, as a front door does.
async fn storm(blocks: Arc<BlockStore>, readers: u64, len: u32, hint: ReadHint) {
    let size = 4 * blocks.block_size();
    let mut contents = Vec::new();
    for id in 1..=SLICES {
        contents.push(content(id, size));
        upload(&blocks, id, &contents[id as usize - 1]).await;
    }
    let tasks: Vec<_> = (0..readers)
        .map(|i| {
            let (blocks, data) = (blocks.clone(), contents[(i % SLICES) as usize].clone());
            tokio::spawn(async move {
                let id = i % SLICES + 1;
                for step in 0..4_u32 {
                    let off = (step * 977 * 1024 + i as u32 * 333) % (size - len);
                    let read = blocks.read(SliceId(id), size, off, len, hint).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(200)).await;
                    assert!(join(&read) == data[off as usize..(off + len) as usize]);
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(300), task).await.expect("hangs").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_readers_of_4_mib_blocks_stay_within_32_mib() {
    for (compression, disk) in [(ALL[0], false), (ALL[1], false), (ALL[0], true)] {
        let dir = tempfile::tempdir().unwrap();
        let base = if disk { cached(4 * MIB, dir.path()) } else { config(4 * MIB) };
        let blocks = BlockStore::new(TestStore::new(), BlockConfig { compression, ..base }).unwrap();
        storm(blocks.clone(), 64, 256 * KIB, ReadHint::Sequential).await;
        let stats = blocks.stats();
        assert!(stats.buffer_peak <= 32 * M, "{compression:?}: {} bytes", stats.buffer_peak);
        assert!(stats.buffer_peak > 8 * M, "the test is not hard enough: {}", stats.buffer_peak);
        blocks.shutdown().await;
        (1..=SLICES).for_each(|id| blocks.evict_slice(SliceId(id), 16 * MIB));
        until("all memory is given back", || blocks.budget().used() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_of_many_blocks_do_not_block_each_other() {
    let blocks = BlockStore::new(TestStore::new(), config(MIB)).unwrap();
    // Each wants up to four blocks at once, together far more than there is.
    storm(blocks.clone(), 32, 3 * MIB, ReadHint::Random).await;
    assert!(blocks.stats().buffer_peak <= 32 * M);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_half_as_large_as_the_budget_work() {
    let blocks =
        BlockStore::new(TestStore::new(), BlockConfig { compression: ALL[1], ..config(16 * MIB) }).unwrap();
    let data = content(1, 17 * MIB);
    soon(upload(&blocks, 1, &data)).await;
    let reads: Vec<_> = (0..4)
        .map(|_| {
            let (blocks, data) = (blocks.clone(), data.clone());
            tokio::spawn(async move {
                let read =
                    blocks.read(SliceId(1), 17 * MIB, 15 * MIB, 2 * MIB, ReadHint::Random).await.unwrap();
                assert!(join(&read) == data[15 << 20..]);
            })
        })
        .collect();
    for read in reads {
        soon(read).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fragmented_reads_do_not_block_each_other() {
    // Every read wants a few bytes of 40 blocks of 1 MiB, with a budget of 32 MiB.
    for compression in [ALL[0], ALL[1]] {
        let cfg = BlockConfig { compression, ..config(MIB) };
        let blocks = BlockStore::new(TestStore::new(), cfg).unwrap();
        let data = content(1, 8 * MIB);
        for id in 1..=5 {
            upload(&blocks, id, &data).await;
        }
        let readers: Vec<_> = (0..8_u32)
            .map(|r| {
                let (blocks, data) = (blocks.clone(), data.clone());
                tokio::spawn(async move {
                    let parts: Vec<_> = (0..40_u32)
                        .map(|i| SlicePart {
                            id: SliceId(u64::from(i % 5 + 1)),
                            size: 8 * MIB,
                            off: i / 5 * MIB + r * 1000,
                            len: 4096,
                        })
                        .collect();
                    let read = blocks.read_parts(&parts, ReadHint::Sequential).await.unwrap();
                    assert_eq!(read.len(), parts.len());
                    for (part, bytes) in parts.iter().zip(&read) {
                        assert!(join(bytes) == data[part.off as usize..(part.off + 4096) as usize]);
                    }
                })
            })
            .collect();
        for reader in readers {
            soon(reader).await.unwrap();
        }
        assert!(blocks.stats().buffer_peak <= 32 * M, "{}", blocks.stats().buffer_peak);
    }
}

#[tokio::test]
async fn parts_come_in_order_whatever_their_size() {
    let blocks = BlockStore::new(TestStore::new(), config(64 * KIB)).unwrap();
    let data = content(1, 200 * KIB);
    upload(&blocks, 1, &data).await;
    let part = |off, len| SlicePart { id: SliceId(1), size: 200 * KIB, off, len };
    let parts = [part(100, 150 * KIB), part(0, 0), part(0, 1), part(199 * KIB, KIB)];
    let read = blocks.read_parts(&parts, ReadHint::Random).await.unwrap();
    for (part, bytes) in parts.iter().zip(&read) {
        assert!(join(bytes) == data[part.off as usize..(part.off + part.len) as usize]);
    }
    assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 1, 1]);
    assert!(blocks.read_parts(&[part(0, 1), part(0, 201 * KIB)], ReadHint::Random).await.is_err());
}
