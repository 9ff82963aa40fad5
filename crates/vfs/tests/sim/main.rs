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

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
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

/// What came of each seed.
type Runs = BTreeMap<u64, (Vec<String>, u64)>;

/// Runs seeds until one of them finds something, or all of them.
fn run_all(seeds: Range<u64>, to_the_end: bool) -> Runs {
    let (next, found) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let runs = Mutex::new(Runs::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while to_the_end || !found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let done = run(seed);
                    found.fetch_or(!done.0.is_empty(), Ordering::Relaxed);
                    runs.lock().insert(seed, done);
                }
            });
        }
    });
    runs.into_inner()
}

/// What the seeds have found, to be read.
fn findings(runs: &Runs) -> Vec<String> {
    let found = runs.iter().filter(|(_, (complaints, _))| !complaints.is_empty());
    found.map(|(seed, (complaints, _))| format!("seed {seed}:\n{}", complaints.join("\n"))).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SIM_FROM`, `SIM_SEEDS`: other seeds; `SIM_ALL`: does not stop at the first that finds something; `SIM_HASHES`: a file for
/// what stands for all that happened in each, to be compared with another process.
#[test]
fn a_thousand_seeds() {
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds = from..from + number("SIM_SEEDS").unwrap_or(1000);
    let runs = run_all(seeds, number("SIM_ALL").is_some());
    if let Some(file) = std::env::var_os("SIM_HASHES") {
        let hashes: String = runs.iter().map(|(seed, (_, hash))| format!("{seed} {hash:x}\n")).collect();
        std::fs::write(file, hashes).unwrap();
    }
    let found = findings(&runs);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_seed_replays() {
    let seeds = number("SIM_SEEDS").unwrap_or(50);
    let (one, two) = (run_all(0..seeds, true), run_all(0..seeds, true));
    let differ: Vec<u64> = (0..seeds).filter(|seed| one[seed] != two[seed]).collect();
    assert!(differ.is_empty(), "seeds {differ:?}");
}

/// For whoever looks into one: `SIM_SEED`.
#[test]
fn one_seed() {
    if let Some(seed) = number("SIM_SEED") {
        let (complaints, hash) = run(seed);
        assert!(complaints.is_empty(), "seed {seed} ({hash:x}):\n{}", complaints.join("\n"));
    }
}
