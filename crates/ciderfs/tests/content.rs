//! Random operations on the content of files, checked byte for byte against a model, while other mounts of the volume read,
//! compact and write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

#[path = "content/exerciser.rs"]
mod exerciser;
#[path = "content/mapped.rs"]
mod mapped;
#[path = "content/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_testkit::official::Official;
use exerciser::{ALL, Exerciser, Op, wander};
use support::random::{Seed, steps};
use support::{Engine, Volume};

on_engines!(
    random_operations_match_a_model_while_another_mount_reads_and_writes,
    random_operations_match_a_model_beside_the_official_client,
);

/// Files that are worked on.
const FILES: usize = 4;
/// Small enough that a file has many blocks.
const FORMAT: &[&str] = &["--block-size=64K", "--trash-days=0"];
/// Operations in an ordinary test run.
const STEPS: usize = 800;
/// Operations beside the official client.
const STEPS_BESIDE: usize = 400;

/// The official client believes names and lengths for a second also when a file is opened. It logs its compactions.
const BESIDE: &[&str] = &["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0", "--verbose"];

/// Operations that the file system does not have yet.
const NOT_YET: &[Op] = &[Op::Collapse, Op::Insert, Op::Clone];

fn operations(without: &[Op]) -> Vec<(u64, Op)> {
    ALL.iter().copied().filter(|(_, op)| !without.contains(op) && !NOT_YET.contains(op)).collect()
}

/// Ends the readers, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn random_operations_match_a_model_while_another_mount_reads_and_writes(engine: Engine) {
    let seed = Seed::new();
    let volume = Volume::new(engine, FORMAT);
    let steps = steps(STEPS);
    let first = volume.mount(&["--buffer-size=32"]);
    // This one finds nothing in a cache.
    let second = volume.mount(&["--buffer-size=32", "--cache-size=0"]);
    let roots = |a: &support::Mount| vec![a.path().to_owned(), second.path().to_owned()];
    let mut exerciser = Exerciser::new(seed.0, roots(&first), FILES, operations(&[]));
    let stop = AtomicBool::new(false);
    let first = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| wander(second.path(), FILES, seed.0, &stop));
        exerciser.run(steps / 2);
        exerciser.check();
        first.unmount();
        let first = volume.mount(&["--buffer-size=32"]);
        exerciser.moved(roots(&first));
        exerciser.run(steps - steps / 2);
        first
    });
    exerciser.check();
    first.unmount();
    second.unmount();
    let again = volume.mount(&["--read-only"]);
    exerciser.moved_to_read(vec![again.path().to_owned()]);
    exerciser.check();
    again.unmount();
    volume.check();
}

/// The official client reads what ours has written, as soon as it is stored, and compacts as it reads.
fn random_operations_match_a_model_beside_the_official_client(engine: Engine) {
    let seed = Seed::new();
    let volume = Volume::new(engine, FORMAT);
    let ours = volume.mount(&["--buffer-size=32"]);
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let theirs = official.mount(&volume.meta, &volume.new_path(), BESIDE).unwrap_or_else(|e| panic!("{e:#}"));
    let roots = vec![ours.path().to_owned(), theirs.path().to_owned()];
    let mut exerciser = Exerciser::new(seed.0, roots, FILES, operations(&[Op::HandOver]));
    // Nobody else reads there at the same time: a reader that fetches an old list of slices while another one opens the
    // file leaves that list in the official client's cache.
    exerciser.run(steps(STEPS_BESIDE));
    exerciser.check();
    let log = theirs.unmount_for_log().unwrap_or_else(|e| panic!("{e:#}"));
    ours.unmount();
    // A compaction of the official client that fails, because ours was faster, or that is cut off by the unmount leaves
    // objects: it deletes them without waiting for the uploads under way. What it replaced it deletes later, or leaves to the
    // hourly work. Nothing else may be left.
    let compacted: BTreeSet<u64> = log
        .lines()
        .filter_map(|l| l.split("to new slice ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    let unused = volume.unused_slices();
    let leaked = volume.collect_leaked(&official);
    let known = compacted.union(&unused).copied().collect();
    assert!(
        leaked.is_subset(&known),
        "leaked {leaked:?}, of which the official client made {compacted:?} and {unused:?} are noted as unused"
    );
    println!("leaked {leaked:?}, unused {unused:?}");
    volume.check();
}
