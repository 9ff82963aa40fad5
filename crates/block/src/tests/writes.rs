//! Upload and delete.

use std::sync::atomic::Ordering::SeqCst;

use ciderfs_format::{Compression, SliceId};

use super::support::*;
use crate::{BlockConfig, BlockError, BlockStore, ReadHint};

#[tokio::test]
async fn every_compression_and_layout_reads_back() {
    for compression in ALL {
        for hash_prefix in [false, true] {
            let store = TestStore::new();
            let cfg = BlockConfig { compression, hash_prefix, ..config(64 * KIB) };
            let blocks = BlockStore::new(store.clone(), cfg.clone()).unwrap();
            for (id, size) in [(1, 1), (7, 64 * KIB), (4097, 64 * KIB + 1), (1_000_001, 300 * KIB + 17)] {
                let data = content(id, size);
                upload(&blocks, id, &data).await;
                // From another client, whose caches are empty.
                let other = BlockStore::new(store.clone(), cfg.clone()).unwrap();
                expect(&other, id, &data, ReadHint::Random).await;
                expect(&blocks, id, &data, ReadHint::Sequential).await;
            }
            let name = if hash_prefix { "chunks/01/0/4097_1_1" } else { "chunks/0/4/4097_1_1" };
            assert!(store.objects.lock().contains_key(name));
        }
    }
}

#[tokio::test]
async fn objects_are_what_the_format_says() {
    for compression in ALL {
        let store = TestStore::new();
        let blocks = BlockStore::new(store.clone(), BlockConfig { compression, ..config(MIB) }).unwrap();
        let data = content(5, 200_000);
        blocks.put_block(SliceId(5), 3, data.clone(), 2).await.unwrap();
        let object = store.objects.lock()["chunks/0/0/5_3_200000"].clone();
        assert_eq!(compression.decompress(&object, data.len()).unwrap(), data);
        assert!(object.len() <= compression.bound(data.len()));
        assert_eq!(blocks.stats().put_bytes, object.len() as u64);
    }
}

#[tokio::test]
async fn upload_errors_surface() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), config(64 * KIB)).unwrap();
    store.put_faults.lock().push(Fault::Error);
    let data = content(1, 100);
    let error = blocks.put_block(SliceId(1), 0, data.clone(), 0).await.unwrap_err();
    assert!(matches!(error, BlockError::Store { .. }), "{error}");
    assert!(error.to_string().contains("chunks/0/0/1_0_100"));
    assert!(!blocks.is_cached(SliceId(1), 100, 0));
    assert_eq!(blocks.stats().errors, 1);
    blocks.put_block(SliceId(1), 0, data.clone(), 0).await.unwrap();
    expect(&blocks, 1, &data, ReadHint::Random).await;
}

#[tokio::test]
async fn impossible_blocks_are_refused() {
    let blocks = BlockStore::new(TestStore::new(), config(64 * KIB)).unwrap();
    for size in [0, 64 * KIB + 1] {
        let error = blocks.put_block(SliceId(1), 0, content(1, size), 0).await.unwrap_err();
        assert!(matches!(error, BlockError::Invalid(_)), "{error}");
    }
    let error = blocks.read(SliceId(1), 100, 50, 51, ReadHint::Random).await.unwrap_err();
    assert!(matches!(error, BlockError::Invalid(_)), "{error}");
    let error = blocks.read(SliceId(1), 100, u32::MAX, 2, ReadHint::Random).await.unwrap_err();
    assert!(matches!(error, BlockError::Invalid(_)), "{error}");
    assert!(blocks.read(SliceId(1), 100, 100, 0, ReadHint::Random).await.unwrap().is_empty());
    for block_size in [0, 4096, 100_000, 32 * MIB] {
        let error = BlockStore::new(TestStore::new(), config(block_size)).unwrap_err();
        assert!(matches!(error, BlockError::Config(_)), "{error}");
    }
}

#[tokio::test]
async fn read_only_changes_nothing() {
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), BlockConfig { read_only: true, ..config(64 * KIB) }).unwrap();
    assert!(matches!(blocks.put_block(SliceId(1), 0, content(1, 10), 0).await, Err(BlockError::ReadOnly)));
    assert!(matches!(blocks.delete_slice(SliceId(1), 10).await, Err(BlockError::ReadOnly)));
    assert_eq!((store.puts.load(SeqCst), store.deletes.load(SeqCst)), (0, 0));
}

#[tokio::test]
async fn uploads_are_bounded() {
    let store = TestStore::new();
    let cfg = BlockConfig { max_uploads: 3, compression: Compression::Lz4, ..config(128 * KIB) };
    let blocks = BlockStore::new(store.clone(), cfg).unwrap();
    let data = content(9, 128 * KIB * 40);
    let uploads = (0..40_u32).map(|indx| {
        let at = (indx * 128 * KIB) as usize;
        blocks.put_block(SliceId(9), indx, data.slice(at..at + 128 * KIB as usize), 0)
    });
    soon(futures_util::future::try_join_all(uploads)).await.unwrap();
    assert!((2..=3).contains(&store.most_running.load(SeqCst)), "{:?}", store.most_running);
    expect(&blocks, 9, &data, ReadHint::Sequential).await;
}

#[tokio::test]
async fn delete_removes_all_and_forgives_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let blocks = BlockStore::new(store.clone(), cached(64 * KIB, dir.path())).unwrap();
    let data = content(3, 64 * KIB * 20 + 5);
    let size = data.len() as u32;
    upload(&blocks, 3, &data).await;
    expect(&blocks, 3, &data, ReadHint::Random).await;
    store.objects.lock().remove("chunks/0/0/3_20_5").unwrap();
    store.delete_faults.lock().push(Fault::Error);
    store.most_running.store(0, SeqCst);
    let error = blocks.delete_slice(SliceId(3), size).await.unwrap_err();
    assert!(matches!(error, BlockError::Store { .. }), "{error}");
    assert_eq!(store.objects.lock().len(), 1, "the others are gone all the same");
    blocks.delete_slice(SliceId(3), size).await.unwrap();
    assert!(store.objects.lock().is_empty());
    assert_eq!(store.most_running.load(SeqCst), 8);
    assert!((0..21).all(|indx| !blocks.is_cached(SliceId(3), size, indx)));
    let error = blocks.read(SliceId(3), size, 0, 10, ReadHint::Random).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    until("cache is empty", || blocks.stats().cache_blocks == 0).await;
}
