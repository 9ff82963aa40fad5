//! Random operations against a vector of bytes. `CIDERFS_SEED=N` repeats a failed run.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use ciderfs_meta::Caller;

use super::support::*;

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const LIMIT: usize = 1_500 * KIB;

async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let w = World::new(u32::from(rng.random_bool(0.5))).await;
    let clients = [w.client().await, w.client().await];
    let (ino, mut fh) = clients[0].create("f").await;
    let mut at = 0;
    let mut model: Vec<u8> = Vec::new();
    for step in 0..320 {
        let c = &clients[at];
        let off = rng.random_range(0..LIMIT);
        let len = match rng.random_range(0..4) {
            0 => rng.random_range(1..200),
            1 => rng.random_range(1..20 * KIB),
            2 => 64 * KIB,
            _ => rng.random_range(1..200 * KIB),
        };
        let what = rng.random_range(0..130);
        match what {
            0..45 => {
                // Often where the last one ended or began.
                let off = if rng.random_bool(0.4) { model.len().min(LIMIT) } else { off };
                let data = pattern(rng.random(), len);
                c.write(fh, off, &data).await;
                if model.len() < off + len {
                    model.resize(off + len, 0);
                }
                model[off..off + len].copy_from_slice(&data);
            }
            45..75 => {
                let want = model.get(off..).map(|m| &m[..len.min(m.len())]).unwrap_or_default();
                let got = c.read(fh, off, len).await;
                assert!(got == want, "seed {seed}, step {step}: {len} bytes at {off}");
            }
            75..83 => {
                let size = rng.random_range(0..LIMIT);
                c.truncate(ino, fh, size).await;
                model.resize(size, 0);
            }
            83..90 => c.fsync(fh).await.unwrap(),
            100..112 => {
                let (mode, grows) = match rng.random_range(0..4) {
                    0 => (0, true),
                    1 => (PUNCH, false),
                    2 => (libc::FALLOC_FL_ZERO_RANGE, true),
                    _ => (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, false),
                };
                c.vfs.fallocate(&Caller::root(), fh, mode as u32, off as u64, len as u64).await.unwrap();
                if grows && model.len() < off + len {
                    model.resize(off + len, 0);
                }
                let (from, to) = (off.min(model.len()), (off + len).min(model.len()));
                if mode != 0 {
                    model[from..to].fill(0);
                }
            }
            112..122 => {
                let to = rng.random_range(0..LIMIT);
                let copied = c
                    .vfs
                    .copy_file_range(&Caller::root(), (fh, off as u64), (fh, to as u64), len as u64, 0)
                    .await;
                let n = len.min(model.len().saturating_sub(off));
                if n > 0 && off < to + n && to < off + n {
                    assert_eq!(errno(copied), ciderfs_meta::Errno::EINVAL);
                } else {
                    assert_eq!(copied.unwrap(), n as u64, "seed {seed}, step {step}");
                    if n > 0 && model.len() < to + n {
                        model.resize(to + n, 0);
                    }
                    let bytes = model[off.min(model.len())..].iter().take(n).copied().collect::<Vec<_>>();
                    if n > 0 {
                        model[to..to + n].copy_from_slice(&bytes);
                    }
                }
            }
            122..130 => {
                let data = c.vfs.lseek(fh, off as u64, libc::SEEK_DATA as u32).await;
                let hole = c.vfs.lseek(fh, off as u64, libc::SEEK_HOLE as u32).await;
                if off >= model.len() {
                    assert_eq!(errno(data), ciderfs_meta::Errno::ENXIO);
                    assert_eq!(errno(hole), ciderfs_meta::Errno::ENXIO);
                } else {
                    // Nothing but zeros up to the data, and a zero (or the end) at the hole.
                    let next = data.map_or(model.len(), |n| n as usize);
                    assert!(model[off..next].iter().all(|b| *b == 0), "seed {seed}, step {step}");
                    let hole = hole.unwrap() as usize;
                    assert!(model.get(hole).is_none_or(|b| *b == 0), "seed {seed}, step {step}");
                    assert!(off.max(hole) == hole && hole <= model.len());
                }
            }
            90..95 => {
                c.close(fh).await.unwrap();
                fh = c.open(ino).await;
            }
            _ => {
                // The other mount goes on.
                c.close(fh).await.unwrap();
                at = 1 - at;
                fh = clients[at].open(ino).await;
            }
        }
        assert_eq!(clients[at].length(ino).await, model.len(), "seed {seed}, step {step}: {what}");
    }
    clients[at].close(fh).await.unwrap();
    let late = w.client().await;
    let fh = late.open(ino).await;
    assert!(late.read(fh, 0, 2 * LIMIT).await == model, "seed {seed}: at the end");
    let (space, inodes) = {
        let stat = late.vfs.statfs(ciderfs_format::Ino::ROOT).await.unwrap();
        (stat.used_space, stat.used_inodes)
    };
    let want = (model.len() as u64).next_multiple_of(4096);
    assert!(space >= want && inodes >= 1, "seed {seed}: {space} used, {want} held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations() {
    match std::env::var("CIDERFS_SEED") {
        Ok(seed) => soon(Box::pin(run(seed.parse().unwrap()))).await,
        Err(_) => {
            for seed in 0..12 {
                soon(Box::pin(run(seed))).await;
            }
        }
    }
}
