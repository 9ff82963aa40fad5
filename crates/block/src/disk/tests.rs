//! Tests of the pieces of the disk cache.

use ciderfs_format::SliceId;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciderfs_object::{Bounce, Buffers, NewFiles};
use proptest::prelude::*;

use super::blocks::{Blocks, Kept, Rules};
use super::clock::{Clock, Reading};
use super::file::{self, BlockFile, FileError, PIECE, file_len, widened};
use super::index::{Change, Index, Loaded};
use crate::Eviction;
use crate::key::BlockId;

const fn block(id: u64) -> BlockId {
    BlockId { id: SliceId(id), indx: 0, len: 1000 }
}

fn put(temp: &Path, path: &Path, block: &BlockId, data: &[u8]) {
    let bounce = &mut Bounce::new(&Buffers::new(u64::MAX));
    file::write(temp, path, block, data, 0o600, &NewFiles::default(), bounce).unwrap();
}

proptest! {
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
        let id = BlockId { id: SliceId(7), indx: 3, len };
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
        let id = BlockId { id: SliceId(u64::MAX), indx: 3, len };
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
    let id = BlockId { id: SliceId(1), indx: 0, len: 100_000 };
    put(&dir.path().join("temp"), &path, &id, &[1; 100_000]);
    let open = BlockFile::open(&path, &id).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let mut out = vec![0; 100_000];
    assert!(matches!(open.read(0, &mut out), Err(FileError::Damaged(_))));
}

fn opened(dir: &Path, eviction: Eviction) -> (Index, Loaded, Clock, Blocks) {
    let mut blocks = Blocks::new(Rules { bytes: u64::MAX, items: usize::MAX, eviction, expire: 0 });
    let (index, loaded, clock) = Index::open(dir, &mut blocks).unwrap();
    (index, loaded, clock, blocks)
}

fn reopen(dir: &Path) -> (Index, Loaded, Vec<u64>) {
    let (index, loaded, _, blocks) = opened(dir, Eviction::S3Fifo);
    let mut ids: Vec<_> = blocks.export().into_iter().map(|kept| kept.block.id.0).collect();
    ids.sort_unstable();
    (index, loaded, ids)
}

const READING: Reading = Reading { second: 1000, steady: 0, boot: 0 };

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
    index.append(&[1, 2, 3].map(|id| Change::added(block(id), 1))).unwrap();
    index.append(&[Change::removed(block(2))]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![1, 3]));
    // Killed between starting a log and writing its snapshot.
    index.append(&[Change::added(block(4), 1)]).unwrap();
    index.start_snapshot().unwrap();
    index.append(&[Change::removed(block(1))]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![3, 4]));
    // Killed within a record.
    index.append(&[Change::added(block(5), 1), Change::added(block(6), 1)]).unwrap();
    drop(index);
    let path = log(dir.path());
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 5).unwrap();
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Unclean, vec![3, 4, 5]));
    let kept = |id| Kept { block: block(id), second: 9, uses: 2, main: true };
    index.close(READING, vec![kept(3), kept(4)]).unwrap();
    drop(index);
    let (mut index, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Clean, vec![3, 4]));
    // A damaged log is told from a short one.
    index.append(&[7, 8, 9].map(|id| Change::added(block(id), 1))).unwrap();
    drop(index);
    let file = std::fs::OpenOptions::new().write(true).open(log(dir.path())).unwrap();
    file.write_all_at(&[0xff], 20 + 28 + 5).unwrap();
    let (_, loaded, ids) = reopen(dir.path());
    assert_eq!((loaded, ids), (Loaded::Lost, vec![3, 4, 7]));
}

#[test]
fn any_policy_goes_on_with_the_index_of_another() {
    for (from, to) in Eviction::ALL.into_iter().flat_map(|from| Eviction::ALL.map(|to| (from, to))) {
        let dir = tempfile::tempdir().unwrap();
        let (mut index, _, clock, mut blocks) = opened(dir.path(), from);
        for id in 0..20 {
            blocks.insert(block(id), 10 + id as u32);
        }
        for second in 31..34 {
            assert!(blocks.touch(&block(5), second));
        }
        // Some leave; of S3-FIFO, block 5 moves to the main queue.
        blocks.shed(1, 6);
        let mut before = blocks.export();
        index.close(Reading { second: 500, ..clock.reading() }, before.clone()).unwrap();
        let (_, loaded, clock, blocks) = opened(dir.path(), to);
        let mut after = blocks.export();
        let last = after.last().map(|kept| kept.block);
        before.sort_by_key(|kept| kept.block);
        after.sort_by_key(|kept| kept.block);
        assert_eq!((loaded, after), (Loaded::Clean, before), "{from} to {to}");
        assert!(clock.second() > 500, "the clock goes on");
        if to != Eviction::S3Fifo {
            assert_eq!(last, Some(block(5)), "{from} to {to}: the last that was used leaves last");
        }
    }
}

#[test]
fn after_a_crash_nobody_knows_how_old_a_block_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut index, _, clock, mut blocks) = opened(dir.path(), Eviction::Lru);
    blocks.insert(block(1), 10);
    index.write_snapshot(Reading { second: 5000, ..clock.reading() }, blocks.export()).unwrap();
    index.append(&[Change::added(block(2), 6000)]).unwrap();
    drop(index);
    let (mut index, loaded, clock, blocks) = opened(dir.path(), Eviction::Lru);
    assert_eq!(loaded, Loaded::Unclean);
    assert!(clock.second() > 6000);
    assert!(blocks.export().iter().all(|kept| kept.second > 6000), "{:?}", blocks.export());
    // So it is in the next life.
    index.close(clock.reading(), blocks.export()).unwrap();
    let (.., blocks) = opened(dir.path(), Eviction::Lru);
    assert!(blocks.export().iter().all(|kept| kept.second > 6000), "{:?}", blocks.export());
}
