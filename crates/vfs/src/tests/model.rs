//! Random operations against a vector of bytes. `CIDERFS_SEED=N` repeats a failed run.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::support::*;

const LIMIT: usize = 1_500 * KIB;

async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let w = World::new(u32::from(rng.random_bool(0.5))).await;
    let clients = [w.client().await, w.client().await];
    let (ino, mut fh) = clients[0].create("f").await;
    let mut at = 0;
    let mut model: Vec<u8> = Vec::new();
    for step in 0..250 {
        let c = &clients[at];
        let off = rng.random_range(0..LIMIT);
        let len = match rng.random_range(0..4) {
            0 => rng.random_range(1..200),
            1 => rng.random_range(1..20 * KIB),
            2 => 64 * KIB,
            _ => rng.random_range(1..200 * KIB),
        };
        let what = rng.random_range(0..100);
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
        let stat = late.vfs.statfs().await.unwrap();
        (stat.used_space, stat.used_inodes)
    };
    let want = (model.len() as u64).next_multiple_of(4096);
    assert!(space >= want && inodes >= 1, "seed {seed}: {space} used, {want} held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations() {
    match std::env::var("CIDERFS_SEED") {
        Ok(seed) => soon(run(seed.parse().unwrap())).await,
        Err(_) => {
            for seed in 0..12 {
                soon(run(seed)).await;
            }
        }
    }
}
