//! The writers' side of a cache directory: blocks become files, old ones make room, free space is kept.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ciderfs_format::shown;
use ciderfs_object::Bounce;
use ciderfs_rt::Instant;

use super::blocks::Blocks;
use super::dir::{CacheDir, State};
use super::file;
use super::index::Change;
use super::policy::cost;
use crate::key::BlockId;
use crate::observe::CacheUse;
use crate::stats::count;

/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

impl CacheDir {
    /// The body of a writer thread; returns after [`CacheDir::close`], when the queue is empty.
    pub fn write_queued(&self, mut bounce: Bounce) {
        loop {
            let (block, data) = {
                let mut state = self.state.lock();
                loop {
                    match state.queue.pop_front() {
                        Some(block) => match state.pending.get(&block) {
                            Some(pending) => break (block, pending.data.clone()),
                            // Removed while it waited.
                            None => continue,
                        },
                        None if state.closed => return,
                        None => {
                            bounce.release();
                            self.wake.wait(&mut state);
                        }
                    }
                }
            };
            let written = self.write(&block, &data, &mut bounce);
            let mut surplus = Vec::new();
            let pending = {
                let second = self.clock.second();
                let mut state = self.state.lock();
                let pending = state.pending.remove(&block);
                if pending.is_some() {
                    state.queued_bytes -= u64::from(block.len);
                }
                if written {
                    if pending.is_some() {
                        // Again, because the other writer may have taken the room.
                        surplus = self.evict(&mut state, |blocks| blocks.make_room(block.len));
                        if state.blocks.fits(block.len) {
                            state.blocks.insert(block, second);
                            state.changes.push(Change::added(block, second));
                        } else {
                            surplus.push(block);
                        }
                    } else if !state.blocks.contains(&block) {
                        surplus.push(block);
                    }
                }
                pending
            };
            self.unlink_all(&surplus);
            drop((data, pending));
            self.flush_changes();
        }
    }

    fn write(&self, block: &BlockId, data: &[u8], bounce: &mut Bounce) -> bool {
        self.check_space();
        let fits = {
            let mut state = self.state.lock();
            if state.full || !self.breaker.lock().allows(Instant::now()) {
                drop(state);
                count(&self.counters.cache_drops, 1);
                return false;
            }
            let victims = self.evict(&mut state, |blocks| blocks.make_room(block.len));
            let fits = state.blocks.fits(block.len);
            drop(state);
            self.unlink_all(&victims);
            fits
        };
        if !fits {
            count(&self.counters.cache_drops, 1);
            return false;
        }
        let temp = self.root.join("tmp").join(self.temp.fetch_add(1, Relaxed).to_string());
        let began = Instant::now();
        match self.write_file(&temp, block, data, bounce) {
            Ok(()) => {
                self.counters.cache_uses.tell(CacheUse::Write, began.elapsed());
                count(&self.counters.cache_writes, 1);
                count(&self.counters.cache_write_bytes, data.len() as u64);
                true
            }
            Err(e) => {
                count(&self.counters.cache_drops, 1);
                if matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                    // The disk is well, only full: leave some room to the others and wait for the next look.
                    *self.space_checked.lock() = Some(Instant::now());
                    let victims = {
                        let mut state = self.state.lock();
                        state.full = true;
                        self.evict(&mut state, |blocks| blocks.shed(2 * cost(block.len), 1))
                    };
                    self.unlink_all(&victims);
                } else {
                    self.disk_error("write", &e);
                }
                false
            }
        }
    }

    fn write_file(
        &self,
        temp: &Path,
        block: &BlockId,
        data: &[u8],
        bounce: &mut Bounce,
    ) -> std::io::Result<()> {
        #[cfg(test)]
        match self.fail_writes.load(Relaxed) {
            0 => {}
            errno => return Err(std::io::Error::from_raw_os_error(errno)),
        }
        file::write(temp, &self.path(block), block, data, self.setup.mode.file(), &self.new_files, bounce)
    }

    pub(super) fn evict(
        &self,
        state: &mut State,
        choose: impl FnOnce(&mut Blocks) -> Vec<BlockId>,
    ) -> Vec<BlockId> {
        let victims = choose(&mut state.blocks);
        state.changes.extend(victims.iter().map(|&block| Change::removed(block)));
        count(&self.counters.evictions, victims.len() as u64);
        victims
    }

    pub(super) fn unlink_all(&self, blocks: &[BlockId]) {
        for block in blocks {
            self.unlink(block);
        }
    }

    /// Removes the file of a block.
    pub(super) fn unlink(&self, block: &BlockId) {
        self.open.lock().forget(block);
        match std::fs::remove_file(self.path(block)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => self.disk_error("remove", &e),
            _ => {}
        }
    }

    /// Looks at free space, at most once a second, and makes room if there is too little. Who comes during a look waits for
    /// what it finds.
    pub fn check_space(&self) {
        let mut checked = self.space_checked.lock();
        let now = Instant::now();
        if checked.is_some_and(|t| now.saturating_duration_since(t) < SPACE_INTERVAL) {
            return;
        }
        *checked = Some(now);
        let Ok(fs) = rustix::fs::statvfs(&self.root) else { return };
        let lack =
            |total: u64, free: u64| ((total as f64 * self.setup.free_ratio) as u64).saturating_sub(free);
        let bytes = lack(fs.f_blocks, fs.f_bavail).saturating_mul(fs.f_frsize);
        let inodes = lack(fs.f_files, fs.f_favail);
        let (victims, useless) = {
            let mut state = self.state.lock();
            state.full = bytes > 0 || inodes > 0;
            let victims = self.evict(&mut state, |blocks| blocks.shed(bytes, inodes));
            let useless = state.full && state.blocks.len() == 0;
            let news = useless != std::mem::replace(&mut state.useless, useless);
            (victims, news.then_some(useless))
        };
        match useless {
            Some(true) => {
                let dir = shown(self.held.named()).to_string();
                let percent = (self.setup.free_ratio * 1000.0).round() / 10.0;
                tracing::warn!(
                    "nothing is cached in {dir}: less than {percent}% of its disk is free; make room, or lower --free-space-ratio"
                );
            }
            Some(false) => tracing::info!("{} caches again: its disk has room", shown(self.held.named())),
            None => {}
        }
        drop(checked);
        self.unlink_all(&victims);
        self.flush_changes();
    }
}
