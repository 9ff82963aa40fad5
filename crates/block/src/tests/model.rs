//! Random sequences against a model: a map from slice to content.

use ciderfs_format::SliceId;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use proptest::prelude::*;

use super::support::*;
use crate::{BlockConfig, BlockError, BlockStore, Eviction, ReadHint};

#[derive(Debug, Clone)]
enum Step {
    Put {
        size: u32,
    },
    Read {
        slice: usize,
        from: u32,
        len: u32,
        sequential: bool,
    },
    Prefetch {
        slice: usize,
        indx: u32,
    },
    Evict {
        slice: usize,
    },
    Delete {
        slice: usize,
    },
    Fault(Fault),
    /// With another policy of eviction.
    Restart(Eviction),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..900 * KIB).prop_map(|size| Step::Put { size }),
        8 => (any::<usize>(), 0..900 * KIB, 0..900 * KIB, any::<bool>())
            .prop_map(|(slice, from, len, sequential)| Step::Read { slice, from, len, sequential }),
        4 => (any::<usize>(), 0..900 * KIB, 1..8 * KIB)
            .prop_map(|(slice, from, len)| Step::Read { slice, from, len, sequential: false }),
        2 => (any::<usize>(), 0..4_u32).prop_map(|(slice, indx)| Step::Prefetch { slice, indx }),
        1 => any::<usize>().prop_map(|slice| Step::Evict { slice }),
        1 => any::<usize>().prop_map(|slice| Step::Delete { slice }),
        1 => prop_oneof![Just(Fault::Error), Just(Fault::Short(7))].prop_map(Step::Fault),
        1 => prop::sample::select(&Eviction::ALL[..]).prop_map(Step::Restart),
    ]
}

fn pick(model: &BTreeMap<u64, Bytes>, slice: usize) -> Option<(u64, Bytes)> {
    let at = slice.checked_rem(model.len())?;
    model.iter().nth(at).map(|(id, data)| (*id, data.clone()))
}

async fn run(steps: Vec<Step>, compression: ciderfs_format::Compression, disk: bool, cache_items: u64) {
    let dir = tempfile::tempdir().unwrap();
    let base = if disk { cached(256 * KIB, dir.path()) } else { config(256 * KIB) };
    let mut cfg =
        BlockConfig { compression, cache_size: 2 << 20, cache_items, cache_large_write: true, ..base };
    let store = TestStore::new();
    let mut blocks = BlockStore::new(store.clone(), cfg.clone()).unwrap();
    let mut model = BTreeMap::new();
    let mut next = 1;
    for step in steps {
        match step {
            Step::Put { size } => {
                let data = content(next, size);
                upload(&blocks, next, &data).await;
                model.insert(next, data);
                next += 1;
            }
            Step::Read { slice, from, len, sequential } => {
                let Some((id, data)) = pick(&model, slice) else { continue };
                let size = data.len() as u32;
                let (from, len) = (from.min(size), len.min(size - from.min(size)));
                let hint = if sequential { ReadHint::Sequential } else { ReadHint::Random };
                let range = from as usize..(from + len) as usize;
                let mut tries = 0;
                let read = loop {
                    match blocks.read(SliceId(id), size, from, len, hint).await {
                        Ok(read) => break read,
                        // Only an injected fault may do that, or a prefetch that met one and that this read joined.
                        Err(BlockError::Store { .. } | BlockError::Corrupt { .. }) if tries < 4 => {
                            store.get_faults.lock().clear();
                            tries += 1;
                        }
                        Err(e) => panic!("{e}"),
                    }
                };
                assert!(join(&read) == data[range]);
            }
            Step::Prefetch { slice, indx } => {
                if let Some((id, data)) = pick(&model, slice) {
                    blocks.prefetch(SliceId(id), data.len() as u32, indx);
                }
            }
            Step::Evict { slice } => {
                if let Some((id, data)) = pick(&model, slice) {
                    blocks.evict_slice(SliceId(id), data.len() as u32);
                }
            }
            Step::Delete { slice } => {
                if let Some((id, data)) = pick(&model, slice) {
                    blocks.delete_slice(SliceId(id), data.len() as u32).await.unwrap();
                    model.remove(&id);
                }
            }
            Step::Fault(fault) => store.get_faults.lock().push(fault),
            Step::Restart(eviction) => {
                blocks.shutdown().await;
                cfg.cache_eviction = eviction;
                blocks = BlockStore::new(store.clone(), cfg.clone()).unwrap();
            }
        }
    }
    store.get_faults.lock().clear();
    until("prefetches are done", || store.running.load(SeqCst) == 0).await;
    for (id, data) in &model {
        expect(&blocks, *id, data, ReadHint::Random).await;
    }
    let stats = blocks.stats();
    assert!(stats.buffer_peak <= 32 << 20);
    blocks.shutdown().await;
    assert!(blocks.stats().cache_bytes <= cfg.cache_size);
    assert!(cache_items == 0 || blocks.stats().cache_blocks <= cache_items);
    let left: usize = model.values().map(|data| data.len().div_ceil(256 << 10)).sum();
    assert_eq!(store.objects.lock().len(), left);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_reads_what_was_put(
        steps in prop::collection::vec(step(), 1..60),
        compression in prop::sample::select(&ALL[..]),
        disk: bool,
        items in 0..6_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(soon(run(steps, compression, disk, items)));
    }
}
