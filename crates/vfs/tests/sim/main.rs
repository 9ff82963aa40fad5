//! Coherence on a fake kernel, by seeds.
//!
//! Two mounts of a volume in memory, each below a kernel of its own (`kernel`): pages, attributes and names that are believed for a
//! time, requests and notifications under way. Programs do what a seed draws (`programs`), replies are held back and overtake
//! each other (`engine`), and what each program sees is compared with what `docs/semantics.md`, "Consistency", lets it see
//! (`history`). `SIM_SEED=17 cargo test -p ciderfs-vfs --test sim one_seed -- --nocapture` shows what happened in a seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod engine;
mod history;
mod kernel;
mod programs;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Runs a seed. What contradicts the promises, and a number that stands for all that happened.
fn run(seed: u64) -> (Vec<String>, u64) {
    let show = std::env::var_os("SIM_SEED").is_some();
    let done = catch_unwind(AssertUnwindSafe(|| {
        ciderfs_rt::replay::run(seed, || async move {
            let world = World::new(show).await;
            programs::run(&world).await;
            world.history.check_names();
            world.end().await;
            (world.history.complaints(), world.history.hash())
        })
    }));
    done.unwrap_or_else(|_| (vec!["a panic".to_owned()], 0))
}

/// The first seed of these that finds something, with what it finds.
fn find(seeds: std::ops::Range<u64>) -> Option<(u64, Vec<String>)> {
    let (next, found) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if !run(seed).0.is_empty() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.into_inner();
    (seed < seeds.end).then(|| (seed, run(seed).0))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_thousand_seeds() {
    let seeds = number("SIM_SEEDS").unwrap_or(1000);
    if let Some((seed, complaints)) = find(0..seeds) {
        panic!("seed {seed}:\n{}", complaints.join("\n"));
    }
}

#[test]
fn a_seed_replays() {
    // Not all of them do yet: several who wait for one download are woken in a drawn order (`block::flight`).
    for seed in 0..10 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!(one, two, "seed {seed}");
    }
}

/// For whoever looks into one: `SIM_SEED`.
#[test]
fn one_seed() {
    if let Some(seed) = number("SIM_SEED") {
        let (complaints, hash) = run(seed);
        assert!(complaints.is_empty(), "seed {seed} ({hash:x}):\n{}", complaints.join("\n"));
    }
}
