//! Tests of the pieces of the disk cache.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciderfs_object::{Bounce, Buffers, NewFiles};
use proptest::prelude::*;

use super::fifo::{ENTRY_OVERHEAD, Fifo, cost};
use super::file::{self, BlockFile, FileError, PIECE, file_len, widened};
use super::index::{Change, Index, Loaded};
use crate::key::BlockId;

const fn block(id: u64) -> BlockId {
    BlockId { id, indx: 0, len: 1000 }
}

fn put(temp: &Path, path: &Path, block: &BlockId, data: &[u8]) {
    let bounce = &mut Bounce::new(&Buffers::new(u64::MAX));
    file::write(temp, path, block, data, &NewFiles::default(), bounce).unwrap();
}

const COST: u64 = 1000 + ENTRY_OVERHEAD;

fn add(fifo: &mut Fifo, id: u64) -> Vec<u64> {
    let victims = fifo.make_room(cost(1000));
    fifo.insert(block(id), 1);
    victims.into_iter().map(|b| b.id).collect()
}

#[test]
fn one_long_scan_does_not_wash_out_what_is_used() {
    let mut fifo = Fifo::new(100 * COST);
    for id in 0..50 {
        add(&mut fifo, id);
        assert!(fifo.touch(&block(id), 2));
    }
    let mut gone = Vec::new();
    for id in 1000..2000 {
        gone.extend(add(&mut fifo, id));
    }
    assert!(gone.iter().all(|&id| id >= 1000), "only blocks of the scan leave");
    assert_eq!(fifo.len(), 100);
    assert!((0..50).all(|id| fifo.contains(&block(id))));
}

#[test]
fn a_block_that_comes_back_soon_is_kept() {
    let mut fifo = Fifo::new(20 * COST);
    for id in 0..30 {
        add(&mut fifo, id);
    }
    assert!(!fifo.contains(&block(5)));
    add(&mut fifo, 5);
    for id in 100..200 {
        add(&mut fifo, id);
    }
    assert!(fifo.contains(&block(5)));
}

#[test]
fn several_bites_of_one_reader_are_one_use() {
    let mut fifo = Fifo::new(10 * COST);
    add(&mut fifo, 1);
    // In the second of its arrival it does not count at all.
    assert!(fifo.touch(&block(1), 1) && fifo.touch(&block(1), 1));
    assert_eq!(fifo.export(), [(block(1), 0, false)]);
    for second in [2, 2, 2, 3, 4, 5, 6] {
        fifo.touch(&block(1), second);
    }
    assert_eq!(fifo.export(), [(block(1), 3, false)]);
    let other = BlockId { len: 999, ..block(1) };
    assert!(!fifo.touch(&other, 9) && !fifo.contains(&other) && !fifo.remove(&other));
}

#[test]
fn shed_frees_what_is_asked() {
    let mut fifo = Fifo::new(100 * COST);
    for id in 0..50 {
        add(&mut fifo, id);
    }
    assert_eq!(fifo.shed(3 * COST, 0).len(), 3);
    assert_eq!(fifo.shed(1, 5).len(), 5);
    assert_eq!(fifo.used(), 42 * COST);
    assert_eq!(fifo.shed(u64::MAX, 0).len(), 42);
    assert_eq!((fifo.len(), fifo.used()), (0, 0));
}

#[derive(Debug, Clone)]
enum Op {
    Add(u64),
    Touch(u64),
    Remove(u64),
}

proptest! {
    #[test]
    fn the_blocks_agree_with_a_set(ops in prop::collection::vec(
        (0..3_u8, 0..40_u64).prop_map(|(op, id)| match op {
            0 => Op::Add(id),
            1 => Op::Touch(id),
            _ => Op::Remove(id),
        }), 0..3000)) {
        let mut fifo = Fifo::new(20 * COST);
        let mut set = std::collections::BTreeSet::new();
        for (second, op) in ops.into_iter().enumerate() {
            match op {
                Op::Add(id) => {
                    if !fifo.contains(&block(id)) {
                        for gone in add(&mut fifo, id) {
                            prop_assert!(set.remove(&gone));
                        }
                    }
                    set.insert(id);
                }
                Op::Touch(id) => prop_assert_eq!(fifo.touch(&block(id), second as u32), set.contains(&id)),
                Op::Remove(id) => prop_assert_eq!(fifo.remove(&block(id)), set.remove(&id)),
            }
            prop_assert_eq!(fifo.len(), set.len());
            prop_assert_eq!(fifo.used(), set.len() as u64 * COST);
            prop_assert!(fifo.used() <= fifo.capacity());
        }
        let mut exported: Vec<_> = fifo.export().into_iter().map(|(b, ..)| b.id).collect();
        exported.sort_unstable();
        prop_assert_eq!(exported, set.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn widening_covers_and_stays_inside(len in 1..200_000_u32, a: u32, b: u32) {
        let (off, n) = (a % len, b % len + 1);
        let n = n.min(len - off);
        let (start, wide) = widened(len, off, n);
        prop_assert!(start <= off && start + wide >= off + n && start + wide <= len);
        prop_assert!(start % PIECE == 0 && ((start + wide) % PIECE == 0 || start + wide == len));
    }

    #[test]
    fn no_damage_of_a_file_goes_unnoticed(at in 0..70_000_usize, flip in 1..=255_u8, len in 60_000..70_000_u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let id = BlockId { id: 7, indx: 3, len };
        let data: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        put(&dir.path().join("temp"), &path, &id, &data);
        let at = at % file_len(len) as usize;
        let mut raw = std::fs::read(&path).unwrap();
        prop_assert_eq!(raw.len() as u64, file_len(len));
        raw[at] ^= flip;
        std::fs::write(&path, raw).unwrap();
        let read = || -> Result<Vec<u8>, FileError> {
            let mut out = vec![0; len as usize];
            BlockFile::open(&path, &id)?.read(0, &mut out)?;
            Ok(out)
        };
        prop_assert!(matches!(read(), Err(FileError::Damaged(_))));
    }
}

#[test]
fn a_file_reads_back_in_all_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for len in [1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE] {
        let id = BlockId { id: u64::MAX, indx: 3, len };
        let data: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        put(&dir.path().join("temp"), &path, &id, &data);
        let open = BlockFile::open(&path, &id).unwrap();
        for (off, n) in [(0, len), (len - 1, 1), (len / 2, len - len / 2)] {
            let (start, wide) = widened(len, off, n);
            let mut out = vec![0; wide as usize];
            open.read(start, &mut out).unwrap();
            assert_eq!(out, data[start as usize..(start + wide) as usize]);
            out.fill(0);
            if let Some(result) = open.read_nowait(start, &mut out) {
                result.unwrap();
                assert_eq!(out, data[start as usize..(start + wide) as usize]);
            }
        }
        let other = BlockId { indx: 4, ..id };
        assert!(matches!(BlockFile::open(&path, &other), Err(FileError::Damaged("another block"))));
    }
    assert!(!dir.path().join("temp").exists());
}

#[test]
fn a_file_cut_short_while_open_is_damaged_not_a_disk_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let id = BlockId { id: 1, indx: 0, len: 100_000 };
    put(&dir.path().join("temp"), &path, &id, &[1; 100_000]);
    let open = BlockFile::open(&path, &id).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let mut out = vec![0; 100_000];
    assert!(matches!(open.read(0, &mut out), Err(FileError::Damaged(_))));
}

fn reopen(dir: &std::path::Path) -> (Index, Loaded, Vec<u64>) {
    let mut fifo = Fifo::new(u64::MAX);
    let (index, loaded) = Index::open(dir, &mut fifo).unwrap();
    let mut ids: Vec<_> = fifo.export().into_iter().map(|(b, ..)| b.id).collect();
    ids.sort_unstable();
    (index, loaded, ids)
}

fn log(dir: &std::path::Path) -> std::path::PathBuf {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_string_lossy().contains("index.log."))
        .unwrap()
}

#[test]
fn the_index_survives_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids.len()), (Loaded::Lost, 0));
    index.append(&[1, 2, 3].map(|id| Change::added(block(id)))).unwrap();
    index.append(&[Change::removed(block(2))]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![1, 3]));
    // Killed between starting a log and writing its snapshot.
    index.append(&[Change::added(block(4))]).unwrap();
    index.start_snapshot().unwrap();
    index.append(&[Change::removed(block(1))]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![3, 4]));
    // Killed within a record.
    index.append(&[Change::added(block(5)), Change::added(block(6))]).unwrap();
    drop(index);
    let path = log(dir.path());
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 5).unwrap();
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![3, 4, 5]));
    index.close(vec![(block(3), 2, true), (block(4), 0, false)]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Clean, vec![3, 4]));
    // A damaged log is told from a short one.
    index.append(&[7, 8, 9].map(|id| Change::added(block(id)))).unwrap();
    drop(index);
    let file = std::fs::OpenOptions::new().write(true).open(log(dir.path())).unwrap();
    file.write_all_at(&[0xff], 20 + 24 + 5).unwrap();
    let (_, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Lost, vec![3, 4, 7]));
}
