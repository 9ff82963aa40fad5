//! The index of the disk cache on disk, so that a start needs no scan: a snapshot and the changes since.
//!
//! `index.snap` is generation G; `index.log.G` holds the changes since. A new snapshot is made by starting log G+1,
//! writing the snapshot of that moment as generation G+1 and removing the older logs; so at any moment the snapshot
//! and all logs from its generation on give the index. Nothing here is synced to disk: each cache file proves itself,
//! so a wrong index costs a miss or some space until the next sweep, never wrong data.
//!
//! ```text
//! snapshot: magic[8] | u64 generation | u64 count | clock | u32 CRC-32C of these | records | u32 CRC-32C of the records
//! clock:    u32 second | u64 seconds since the machine's start | u128 which start (see `clock`)
//! log:      magic[8] | u64 generation | u32 CRC-32C of these | records
//! record:   u8 what (1 present, 2 gone) | u8 uses | u8 main | 0 | u32 indx | u32 len | u64 id | u32 second | u32 CRC-32C
//! ```
//!
//! All numbers are big-endian. Records say what any policy of eviction wants to know, so another one can go on with them.

use ciderfs_format::SliceId;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::blocks::{Blocks, Kept, MAX_ENTRIES};
use super::clock::{Clock, Reading};
use super::file::PRIVATE_FILE;
use crate::key::BlockId;

const SNAP_MAGIC: &[u8; 8] = b"CDRSNAP\x02";
const LOG_MAGIC: &[u8; 8] = b"CDRCLOG\x02";
const SNAP_NAME: &str = "index.snap";
const LOG_PREFIX: &str = "index.log.";
const RECORD: usize = 28;
/// Bytes before the records of a snapshot, and of a log.
const SNAP_HEAD: usize = 8 + 8 + 8 + 4 + 8 + 16 + 4;
const LOG_HEAD: usize = 8 + 8 + 4;
/// Log records after which a snapshot is worth it, if there are more than blocks.
const MIN_RECORDS: u64 = 64 << 10;
/// Logs that may pile up when snapshots fail; then the index is given up and found again by a sweep.
const MAX_LOGS: usize = 8;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The block as it is, or was.
    pub kept: Kept,
    /// Is it there now?
    pub present: bool,
}

impl Change {
    /// A block that is new in this second of the cache's clock.
    pub fn added(block: BlockId, second: u32) -> Self {
        Self { kept: Kept { block, second, uses: 0, main: false }, present: true }
    }

    /// A block that is gone.
    pub fn removed(block: BlockId) -> Self {
        Self { kept: Kept { block, second: 0, uses: 0, main: false }, present: false }
    }

    fn encode(&self) -> [u8; RECORD] {
        let Kept { block, second, uses, main } = self.kept;
        let mut out = [0; RECORD];
        out[0] = if self.present { 1 } else { 2 };
        out[1] = uses;
        out[2] = main.into();
        out[4..8].copy_from_slice(&block.indx.to_be_bytes());
        out[8..12].copy_from_slice(&block.len.to_be_bytes());
        out[12..20].copy_from_slice(&block.id.0.to_be_bytes());
        out[20..24].copy_from_slice(&second.to_be_bytes());
        let sum = crc32c::crc32c(&out[..24]);
        out[24..].copy_from_slice(&sum.to_be_bytes());
        out
    }

    fn decode(raw: &[u8; RECORD]) -> Option<Self> {
        let present = match raw[0] {
            1 => true,
            2 => false,
            _ => return None,
        };
        let u32_at = |i: usize| u32::from_be_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]]);
        let id = u64::from(u32_at(12)) << 32 | u64::from(u32_at(16));
        if u32_at(24) != crc32c::crc32c(&raw[..24]) {
            return None;
        }
        let block = BlockId { id: SliceId(id), indx: u32_at(4), len: u32_at(8) };
        let kept = Kept { block, second: u32_at(20), uses: raw[1], main: raw[2] != 0 };
        Some(Self { kept, present })
    }

    fn apply(&self, blocks: &mut Blocks) {
        if self.present {
            blocks.restore(self.kept);
        } else {
            blocks.remove(&self.kept.block);
        }
    }
}

/// What is known about the files after loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// The index is exactly what was there at the last, orderly shutdown.
    Clean,
    /// The index is good, but some files may be unknown to it.
    Unclean,
    /// There is no usable index: look at all files.
    Lost,
}

/// The open log and where it lives.
#[derive(Debug)]
pub(crate) struct Index {
    dir: PathBuf,
    log: Option<File>,
    generation: u64,
    records: u64,
}

impl Index {
    /// Reads the index into `blocks` and opens the log for more. An error means that no log can be written.
    pub fn open(dir: &Path, blocks: &mut Blocks) -> std::io::Result<(Self, Loaded, Clock)> {
        let mut index = Self { dir: dir.to_owned(), log: None, generation: 0, records: 0 };
        let logs = index.logs()?;
        let snap = index.read_snapshot(blocks);
        let mut reading = None;
        let mut loaded = match snap {
            Snap::Good(generation, clock) => {
                index.generation = generation;
                reading = Some(clock);
                if logs.iter().any(|&g| g >= generation) { Loaded::Unclean } else { Loaded::Clean }
            }
            Snap::Missing | Snap::Damaged => Loaded::Lost,
        };
        if loaded != Loaded::Lost {
            let snapshot = index.generation;
            for &generation in logs.iter().filter(|&&g| g >= snapshot) {
                if generation > index.generation + 1 || !index.read_log(generation, blocks) {
                    loaded = Loaded::Lost;
                }
                index.generation = generation;
            }
        }
        if loaded == Loaded::Lost {
            // What could be read is still the best guess; missing files turn into misses.
            index.generation = logs.last().copied().unwrap_or(0).max(index.generation);
        }
        let clock = Clock::resume(reading, blocks.newest());
        if loaded != Loaded::Clean {
            // The last uses were not written down.
            blocks.renew(clock.second());
        }
        index.rotate(index.generation + 1)?;
        index.write_snapshot(clock.reading(), blocks.export())?;
        Ok((index, loaded, clock))
    }

    /// Appends changes.
    pub fn append(&mut self, changes: &[Change]) -> std::io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let raw: Vec<u8> = changes.iter().flat_map(Change::encode).collect();
        log.write_all(&raw)?;
        self.records += changes.len() as u64;
        Ok(())
    }

    /// Is the log so long, for this many blocks, that a snapshot is due?
    pub fn wants_snapshot(&self, blocks: usize) -> bool {
        self.records > MIN_RECORDS.max(blocks as u64)
    }

    /// Starts a new log. What is appended from now on comes after the snapshot that the caller is about to take; call
    /// it under the lock that orders changes, and [`Index::write_snapshot`] afterwards.
    pub fn start_snapshot(&mut self) -> std::io::Result<()> {
        self.rotate(self.generation + 1)
    }

    /// Writes the snapshot that belongs to the open log and removes what it replaces.
    pub fn write_snapshot(&mut self, now: Reading, blocks: Vec<Kept>) -> std::io::Result<()> {
        let temp = self.dir.join("index.snap.tmp");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(&temp)?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let mut head = Vec::with_capacity(SNAP_HEAD);
        head.extend_from_slice(SNAP_MAGIC);
        head.extend_from_slice(&self.generation.to_be_bytes());
        head.extend_from_slice(&(blocks.len() as u64).to_be_bytes());
        head.extend_from_slice(&now.second.to_be_bytes());
        head.extend_from_slice(&now.steady.to_be_bytes());
        head.extend_from_slice(&now.boot.to_be_bytes());
        let sum = crc32c::crc32c(&head);
        head.extend_from_slice(&sum.to_be_bytes());
        out.write_all(&head)?;
        let mut sum = 0;
        for kept in blocks {
            let raw = Change { kept, present: true }.encode();
            sum = crc32c::crc32c_append(sum, &raw);
            out.write_all(&raw)?;
        }
        out.write_all(&sum.to_be_bytes())?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        std::fs::rename(&temp, self.dir.join(SNAP_NAME))?;
        for generation in self.logs()? {
            if generation < self.generation {
                std::fs::remove_file(self.log_path(generation))?;
            }
        }
        Ok(())
    }

    /// Ends in good order: a snapshot without a log says that nothing is unknown.
    pub fn close(&mut self, now: Reading, blocks: Vec<Kept>) -> std::io::Result<()> {
        self.log = None;
        self.write_snapshot(now, blocks)?;
        std::fs::remove_file(self.log_path(self.generation))
    }

    fn log_path(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("{LOG_PREFIX}{generation}"))
    }

    fn rotate(&mut self, generation: u64) -> std::io::Result<()> {
        if self.logs()?.len() >= MAX_LOGS {
            self.log = None;
            return Err(std::io::Error::other("too many index logs, snapshots keep failing"));
        }
        let mut head = Vec::with_capacity(LOG_HEAD);
        head.extend_from_slice(LOG_MAGIC);
        head.extend_from_slice(&generation.to_be_bytes());
        let sum = crc32c::crc32c(&head);
        head.extend_from_slice(&sum.to_be_bytes());
        let path = self.log_path(generation);
        let mut log =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(path)?;
        log.write_all(&head)?;
        self.log = Some(log);
        self.generation = generation;
        self.records = 0;
        Ok(())
    }

    /// Generations of the logs present, ascending.
    fn logs(&self) -> std::io::Result<Vec<u64>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            if let Some(g) = name.to_str().and_then(|n| n.strip_prefix(LOG_PREFIX)?.parse().ok()) {
                out.push(g);
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    fn read_snapshot(&self, blocks: &mut Blocks) -> Snap {
        let file = match File::open(self.dir.join(SNAP_NAME)) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Snap::Missing,
            Err(_) => return Snap::Damaged,
        };
        let mut input = BufReader::with_capacity(1 << 16, file);
        let Some(head) = read_head::<SNAP_HEAD>(&mut input, SNAP_MAGIC) else { return Snap::Damaged };
        let (generation, count) = (be(&head[8..16]) as u64, be(&head[16..24]) as u64);
        let clock = Reading {
            second: be(&head[24..28]) as u32,
            steady: be(&head[28..36]) as u64,
            boot: be(&head[36..52]),
        };
        if count > MAX_ENTRIES as u64 {
            return Snap::Damaged;
        }
        let mut sum = 0;
        let mut raw = [0; RECORD];
        for _ in 0..count {
            if input.read_exact(&mut raw).is_err() {
                return Snap::Damaged;
            }
            sum = crc32c::crc32c_append(sum, &raw);
            match Change::decode(&raw) {
                Some(change) => change.apply(blocks),
                None => return Snap::Damaged,
            }
        }
        let mut tail = [0; 4];
        if input.read_exact(&mut tail).is_err() || tail != sum.to_be_bytes() {
            return Snap::Damaged;
        }
        Snap::Good(generation, clock)
    }

    /// Applies a log; false if it is damaged. One that only ends within a record is not: the process died.
    fn read_log(&self, generation: u64, blocks: &mut Blocks) -> bool {
        let Ok(file) = File::open(self.log_path(generation)) else { return false };
        let mut input = BufReader::with_capacity(1 << 16, file);
        match read_head::<LOG_HEAD>(&mut input, LOG_MAGIC) {
            Some(head) if be(&head[8..16]) == generation.into() => {}
            _ => return false,
        }
        let mut raw = [0; RECORD];
        while input.read_exact(&mut raw).is_ok() {
            match Change::decode(&raw) {
                Some(change) => change.apply(blocks),
                None => return false,
            }
        }
        true
    }
}

enum Snap {
    Good(u64, Reading),
    Missing,
    Damaged,
}

fn read_head<const N: usize>(input: &mut impl Read, magic: &[u8; 8]) -> Option<[u8; N]> {
    let mut head = [0; N];
    input.read_exact(&mut head).ok()?;
    let (covered, sum) = head.split_at(N - 4);
    (covered.starts_with(magic) && crc32c::crc32c(covered).to_be_bytes() == sum).then_some(head)
}

fn be(raw: &[u8]) -> u128 {
    raw.iter().fold(0, |n, &b| n << 8 | u128::from(b))
}
