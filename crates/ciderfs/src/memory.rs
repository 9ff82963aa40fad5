//! The allocator, and giving memory back to the system when the load ends (`docs/memory.md`).

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ciderfs_block::BlockStore;
use ciderfs_fuse::Monitor;

/// Allocations from this size on are mapped one by one and go back to the system when freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 1 << 20;
/// Arenas at most. Each keeps what is free between its blocks; glibc would make eight for each processor.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: usize = 8;

/// How often it is looked whether there is memory to give back.
const TICK: Duration = Duration::from_secs(1);
/// Longest pause, in ticks, while that gains nothing.
const PAUSE_MAX: u32 = 32;
/// Resident memory beyond what the buffers hold that is nothing to look at: the program itself, and what it knows.
const KEPT: u64 = 40 << 20;

/// Keeps freed blocks from piling up. By default glibc stops mapping large allocations after the first one is freed,
/// and each thread's arena then holds on to some: a third of a mount's peak memory.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let arenas = libc::c_int::try_from(cores.clamp(2, ARENAS_MAX)).unwrap_or(2);
        // SAFETY: called once, before there is another thread; a refused setting changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
            libc::mallopt(libc::M_ARENA_MAX, arenas);
        }
    }
}

/// No huge pages for this process: the kernel then never stops it to put small ones together.
///
/// # Errors
/// When the kernel refuses.
pub fn without_huge_pages() -> std::io::Result<()> {
    // SAFETY: sets a flag of this process; no memory is touched.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Gives memory back that nobody needs any more, as long as the mount lives.
///
/// glibc gives back only what is free at the end of an arena; blocks of many sizes leave holes everywhere.
///
/// # Errors
/// When no thread can be started.
pub fn keep_small(blocks: &Arc<BlockStore>, requests: Monitor) -> std::io::Result<()> {
    let blocks = Arc::downgrade(blocks);
    thread::Builder::new().name("memory-keeper".to_owned()).spawn(move || keep(&blocks, &requests))?;
    Ok(())
}

fn keep(blocks: &Weak<BlockStore>, requests: &Monitor) {
    let (mut pause, mut waited) = (1, 0);
    loop {
        thread::sleep(TICK);
        let Some(held) = blocks.upgrade().map(|blocks| blocks.budget().used()) else { return };
        requests.trim_buffers();
        let surplus = |resident: u64| resident.saturating_sub(held.saturating_add(KEPT));
        let Some(before) = resident().map(surplus).filter(|n| *n > 0) else {
            (pause, waited) = (1, 0);
            continue;
        };
        waited += 1;
        if waited < pause {
            continue;
        }
        give_back();
        let after = resident().map_or(before, surplus);
        // What cannot be given back now is tried for less and less often: it costs time in proportion to what is held.
        pause = if after < before / 2 { 1 } else { (pause * 2).min(PAUSE_MAX) };
        waited = 0;
    }
}

/// Bytes of memory that the process occupies.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
