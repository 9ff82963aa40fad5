//! What every policy keeps, and what each one promises.

use ciderfs_format::SliceId;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{ENTRY_OVERHEAD, cost};
use crate::Eviction;
use crate::disk::blocks::{Blocks, Rules};
use crate::disk::expiry::STEP;
use crate::key::BlockId;

const LEN: u32 = 1000;
const COST: u64 = LEN as u64 + ENTRY_OVERHEAD;

const fn block(id: u64) -> BlockId {
    BlockId { id: SliceId(id), indx: 0, len: LEN }
}

/// Room for `n` blocks.
fn blocks(eviction: Eviction, n: u64) -> Blocks {
    Blocks::new(Rules { bytes: n * COST, items: usize::MAX, eviction, expire: 0 })
}

fn add(blocks: &mut Blocks, id: u64, second: u32) -> Vec<u64> {
    let victims = blocks.make_room(LEN);
    if blocks.fits(LEN) {
        blocks.insert(block(id), second);
    }
    victims.into_iter().map(|b| b.id.0).collect()
}

#[test]
fn one_long_scan_does_not_wash_out_what_is_used() {
    // Whether bytes or blocks are what is short.
    for rules in [
        Rules { bytes: 100 * COST, items: usize::MAX, eviction: Eviction::S3Fifo, expire: 0 },
        Rules { bytes: u64::MAX, items: 100, eviction: Eviction::S3Fifo, expire: 0 },
    ] {
        let mut blocks = Blocks::new(rules);
        for id in 0..50 {
            add(&mut blocks, id, 1);
            assert!(blocks.touch(&block(id), 2));
        }
        let mut gone = Vec::new();
        for id in 1000..2000 {
            gone.extend(add(&mut blocks, id, 3));
        }
        assert!(gone.iter().all(|&id| id >= 1000), "only blocks of the scan leave");
        assert_eq!(blocks.len(), 100);
        assert!((0..50).all(|id| blocks.contains(&block(id))));
    }
}

#[test]
fn a_block_that_comes_back_soon_is_kept() {
    let mut blocks = blocks(Eviction::S3Fifo, 20);
    for id in 0..30 {
        add(&mut blocks, id, 1);
    }
    assert!(!blocks.contains(&block(5)));
    add(&mut blocks, 5, 1);
    for id in 100..200 {
        add(&mut blocks, id, 1);
    }
    assert!(blocks.contains(&block(5)));
}

#[test]
fn several_bites_of_one_reader_are_one_use() {
    for eviction in Eviction::ALL {
        let mut blocks = blocks(eviction, 10);
        add(&mut blocks, 1, 1);
        let uses = |blocks: &Blocks| blocks.export().iter().map(|kept| kept.uses).collect::<Vec<_>>();
        // In the second of its arrival it does not count at all.
        assert!(blocks.touch(&block(1), 1) && blocks.touch(&block(1), 1));
        assert_eq!(uses(&blocks), [0]);
        for second in [2, 2, 2, 3, 4, 5, 6] {
            blocks.touch(&block(1), second);
        }
        assert_eq!(uses(&blocks), [3]);
        let other = BlockId { len: 999, ..block(1) };
        assert!(!blocks.touch(&other, 9) && !blocks.contains(&other) && !blocks.remove(&other));
    }
}

#[test]
fn shed_frees_what_is_asked() {
    for eviction in [Eviction::TwoRandom, Eviction::Lru, Eviction::S3Fifo] {
        let mut blocks = blocks(eviction, 100);
        for id in 0..50 {
            add(&mut blocks, id, 1);
        }
        assert_eq!(blocks.shed(3 * COST, 0).len(), 3);
        assert_eq!(blocks.shed(1, 5).len(), 5);
        assert_eq!(blocks.used(), 42 * COST);
        assert_eq!(blocks.shed(u64::MAX, 0).len(), 42);
        assert_eq!((blocks.len(), blocks.used()), (0, 0));
    }
}

#[test]
fn without_eviction_nothing_leaves_but_what_smaller_limits_forbid() {
    let mut full = blocks(Eviction::None, 3);
    for id in 0..5 {
        assert_eq!(full.admits(LEN), id < 3);
        assert!(add(&mut full, id, 10 - id as u32).is_empty());
    }
    assert!(full.shed(COST, 1).is_empty());
    assert!((0..3).all(|id| full.contains(&block(id))) && full.len() == 3);
    // One that goes makes room for another.
    assert!(full.remove(&block(1)) && full.admits(LEN));
    for rules in [
        Rules { bytes: COST, items: 9, eviction: Eviction::None, expire: 0 },
        Rules { bytes: 9 * COST, items: 1, eviction: Eviction::None, expire: 0 },
    ] {
        let mut smaller = Blocks::new(rules);
        full.export().into_iter().for_each(|kept| smaller.restore(kept));
        assert_eq!(smaller.trim(), [block(2)], "the one not used for longer");
        assert!(smaller.contains(&block(0)));
    }
}

#[test]
fn two_random_keeps_what_is_used_last() {
    let mut blocks = blocks(Eviction::TwoRandom, 50);
    add(&mut blocks, 1, 1);
    for round in 1..2000_u32 {
        add(&mut blocks, 1000 + u64::from(round), 2 * round);
        assert!(blocks.touch(&block(1), 2 * round + 1), "what was used last is in no pair the older one");
    }
    // By chance, but the old ones leave: of those that came last hardly any is gone.
    let young = (1975..2000).filter(|round| blocks.contains(&block(1000 + round))).count();
    assert!(young >= 15, "{young}");
}

#[test]
fn what_is_not_used_leaves_after_its_time_a_bounded_number_at_a_time() {
    for eviction in Eviction::ALL {
        let rules = Rules { bytes: u64::MAX, items: usize::MAX, eviction, expire: 100 };
        let mut blocks = Blocks::new(rules);
        let n = 2 * STEP as u64 + 10;
        for id in 0..n {
            add(&mut blocks, id, 50);
        }
        assert!(blocks.touch(&block(3), 120) && blocks.remove(&block(4)));
        add(&mut blocks, 4, 130);
        add(&mut blocks, n, 149);
        assert!(blocks.expire(150).is_empty(), "{eviction}: not before its time");
        let mut gone = Vec::new();
        for _ in 0..3 {
            let step = blocks.expire(151);
            assert!(step.len() <= STEP);
            gone.extend(step);
        }
        assert!(blocks.expire(151).is_empty());
        assert_eq!(gone.len() as u64, n - 2, "{eviction}");
        assert!([3, 4, n].iter().all(|&id| blocks.contains(&block(id))), "{eviction}");
        assert_eq!(blocks.used(), 3 * COST);
        assert_eq!(blocks.expire(221), [block(3)]);
        // Nobody knows how old they are: they begin anew.
        blocks.renew(1000);
        assert!(blocks.expire(1100).is_empty());
        assert_eq!(blocks.expire(1101).len(), 2);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Add(BlockId),
    Touch(BlockId),
    Remove(BlockId),
    Shed,
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    (0..20_u8, 0..40_u64, 1..4_u32).prop_map(|(op, id, k)| {
        let block = BlockId { id: SliceId(id / 2), indx: (id % 2) as u32, len: k * LEN };
        match op {
            0..8 => Op::Add(block),
            8..15 => Op::Touch(block),
            15..18 => Op::Remove(block),
            18 => Op::Shed,
            _ => Op::Expire,
        }
    })
}

/// What a model keeps of a block: its length, and when it was used.
type Model = BTreeMap<(SliceId, u32), (u32, u32)>;

/// Takes the blocks out of the model; they must have been in it.
fn leave(model: &mut Model, gone: &[BlockId]) -> Result<(), TestCaseError> {
    for block in gone {
        let known = model.remove(&block.key());
        prop_assert_eq!(known.map(|k| k.0), Some(block.len), "{:?} leaves", block);
    }
    Ok(())
}

const EXPIRE: u32 = 60;

fn run(eviction: Eviction, ops: Vec<Op>, bytes: u64, items: usize) -> Result<(), TestCaseError> {
    let mut blocks = Blocks::new(Rules { bytes, items, eviction, expire: EXPIRE });
    let mut model = Model::new();
    let oldest = |model: &Model| model.iter().min_by_key(|(_, known)| known.1).map(|(key, _)| *key);
    for (second, op) in (1_u32..).zip(ops) {
        match op {
            Op::Add(block) if blocks.contains(&block) || !blocks.admits(block.len) => {}
            Op::Add(block) => {
                let gone = blocks.make_room(block.len);
                prop_assert!(eviction != Eviction::None || gone.is_empty());
                for gone in gone {
                    if eviction == Eviction::Lru {
                        prop_assert_eq!(Some(gone.key()), oldest(&model));
                    }
                    if model.len() > 1 && eviction == Eviction::TwoRandom {
                        let last = model.iter().max_by_key(|(_, known)| known.1).map(|(key, _)| *key);
                        prop_assert_ne!(Some(gone.key()), last);
                    }
                    leave(&mut model, &[gone])?;
                }
                prop_assert!(blocks.fits(block.len), "what is admitted fits");
                blocks.insert(block, second);
                model.insert(block.key(), (block.len, second));
            }
            Op::Touch(block) => {
                let known = model.get_mut(&block.key()).filter(|known| known.0 == block.len);
                prop_assert_eq!(blocks.touch(&block, second), known.is_some());
                if let Some(known) = known {
                    known.1 = second;
                }
            }
            Op::Remove(block) => {
                let there = model.get(&block.key()).is_some_and(|known| known.0 == block.len);
                prop_assert_eq!(blocks.remove(&block), there);
                if there {
                    model.remove(&block.key());
                }
            }
            Op::Shed => leave(&mut model, &blocks.shed(1, 1))?,
            Op::Expire => {
                leave(&mut model, &blocks.expire(second))?;
                prop_assert!(model.values().all(|known| second - known.1 <= EXPIRE));
            }
        }
        let used: u64 = model.values().map(|known| cost(known.0)).sum();
        prop_assert_eq!((blocks.len(), blocks.used()), (model.len(), used));
        prop_assert!(used <= bytes && model.len() <= items);
    }
    let mut exported: Vec<_> =
        blocks.export().into_iter().map(|kept| (kept.block.key(), (kept.block.len, kept.second))).collect();
    if eviction == Eviction::Lru {
        prop_assert!(exported.is_sorted_by_key(|(_, known)| known.1), "in the order of their last use");
    }
    exported.sort_unstable();
    prop_assert_eq!(exported, model.into_iter().collect::<Vec<_>>());
    Ok(())
}

proptest! {
    #[test]
    fn none_agrees_with_a_map(ops in prop::collection::vec(op(), 0..600), items in 1..30_usize) {
        run(Eviction::None, ops, 20 * COST, items)?;
    }

    #[test]
    fn two_random_agrees_with_a_map(ops in prop::collection::vec(op(), 0..600), items in 1..30_usize) {
        run(Eviction::TwoRandom, ops, 20 * COST, items)?;
    }

    #[test]
    fn lru_agrees_with_a_map(ops in prop::collection::vec(op(), 0..600), items in 1..30_usize) {
        run(Eviction::Lru, ops, 20 * COST, items)?;
    }

    #[test]
    fn s3_fifo_agrees_with_a_map(ops in prop::collection::vec(op(), 0..600), items in 1..30_usize) {
        run(Eviction::S3Fifo, ops, 20 * COST, items)?;
    }
}
