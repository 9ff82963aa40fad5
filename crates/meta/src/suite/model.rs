//! Random operations against a reference of a POSIX tree.
//!
//! A failure prints its seed; `CIDERFS_SEED=<seed>` makes the same choices again.

mod pairs;
mod run;
mod tree;

use ciderfs_format::SliceId;
use std::collections::BTreeSet;

pub use self::pairs::{pairs, pairs_with_a_lost_reply, pairs_with_trash};
use self::run::Run;
use self::tree::Op;
use super::Engine;
use super::rng::Seed;
use super::world::World;
use crate::store::{Scan, Scanned};

/// Operations of one client.
const ALONE: usize = 600;
/// Rounds in which several clients act at once.
const ROUNDS: usize = 150;
/// Calls in a thousand that fail.
const FAULTS: u64 = 25;

/// One client: every answer, every attribute, all content.
pub async fn one_client(engine: Engine) {
    alone(World::new(engine).await, 0).await;
}

/// One client with the trash on.
pub async fn one_client_with_trash(engine: Engine) {
    alone(World::with_trash(engine).await, 0).await;
}

/// One client whose requests and replies get lost: its answers are as if nothing had happened.
pub async fn lost_replies(engine: Engine) {
    alone(World::new(engine).await, FAULTS).await;
}

/// Lost requests and replies with the trash on.
pub async fn lost_replies_with_trash(engine: Engine) {
    alone(World::with_trash(engine).await, FAULTS).await;
}

/// Two clients at once: what they saw is what one after the other would have seen.
pub async fn two_clients(engine: Engine) {
    together(World::new(engine).await, 2, 0).await;
}

/// Three clients, with the trash on.
pub async fn three_clients_with_trash(engine: Engine) {
    together(World::with_trash(engine).await, 3, 0).await;
}

/// Two clients that lose requests and replies.
pub async fn two_clients_lost_replies(engine: Engine) {
    together(World::new(engine).await, 2, FAULTS).await;
}

/// One client under quotas of directories, users and groups that come and go.
pub async fn quotas_one_client(engine: Engine) {
    alone(with_quotas(engine, false).await, 0).await;
}

/// Quotas with the trash on, and lost requests and replies.
pub async fn quotas_lost_replies_with_trash(engine: Engine) {
    alone(with_quotas(engine, true).await, FAULTS).await;
}

/// Two clients under quotas.
pub async fn quotas_two_clients(engine: Engine) {
    together(with_quotas(engine, false).await, 2, 0).await;
}

/// Three clients under quotas, with the trash on.
pub async fn quotas_three_clients_with_trash(engine: Engine) {
    together(with_quotas(engine, true).await, 3, 0).await;
}

async fn with_quotas(engine: Engine, trash: bool) -> World {
    World::with(engine, |s| (s.user_group_quota, s.trash_days) = (true, u32::from(trash))).await
}

async fn alone(w: World, faults: u64) {
    let seed = Seed::new();
    let mut run = Run::new(&w, seed.0, 1, faults).await;
    run.tree.sustains = true;
    run.register(0).await;
    for step in 0..ALONE {
        if w.settings.user_group_quota && step % 15 == 0 {
            run.shuffle_quotas().await;
        }
        let op = run.choose(true).await;
        let answer = run.carry_out(0, op).await;
        let made = run::made(&answer);
        let expected = run.tree.apply(op, made);
        let fits = match faults {
            0 => run::fits(&answer, &expected),
            _ => run::fits_given_up(op, &answer, &expected),
        };
        assert!(fits, "step {step}: {op:?} gave {answer:?}, not {expected:?}");
        run.note(op, made);
        if step % 60 == 59 {
            run.compare(&run.tree).await.unwrap_or_else(|e| panic!("step {step}: {e}"));
            w.check().await;
        }
    }
    for ino in run.open_files() {
        run.carry_out(0, Op::Close { ino }).await.unwrap();
        run.tree.apply(Op::Close { ino }, ino).unwrap();
    }
    run.compare(&run.tree).await.unwrap();
    run.clients[0].meta.close_session().await.unwrap();
    nothing_leaked(&w, &run).await;
}

async fn together(w: World, clients: usize, faults: u64) {
    let seed = Seed::new();
    let mut run = Run::new(&w, seed.0, clients, faults).await;
    let lossy = if faults == 0 { 0 } else { clients };
    for round in 0..ROUNDS {
        let mut ops = Vec::new();
        if w.settings.user_group_quota && round % 5 == 0 {
            run.shuffle_quotas().await;
        }
        for _ in 0..clients {
            ops.push(run.choose(false).await);
        }
        let calls = ops.iter().enumerate().map(|(i, op)| run.carry_out(i, *op));
        let answers = futures_util::future::join_all(calls).await;
        let tree = run.explain(&ops, &answers, lossy).await.unwrap_or_else(|reasons| {
            let answered: Vec<_> = ops.iter().zip(&answers).collect();
            panic!("round {round}: no order explains {answered:?}; {reasons:?}\nbefore: {:?}", run.tree)
        });
        run.tree = tree;
        for (op, answer) in ops.into_iter().zip(&answers) {
            run.note(op, run::made(answer));
        }
        if round % 30 == 29 {
            w.check().await;
        }
    }
    nothing_leaked(&w, &run).await;
}

/// All data is either in a list or deleted, once everybody has cleaned up.
async fn nothing_leaked(w: &World, run: &Run<'_>) {
    for c in &run.clients {
        c.meta.drain_deletions().await;
    }
    w.check().await;
    let steady = w.client().await;
    w.clock.advance(2 * 3600);
    steady.meta.run_hourly_jobs().await.unwrap();
    w.clock.advance(2 * 3600);
    steady.meta.run_hourly_jobs().await.unwrap();
    w.check().await;
    for left in [Scan::Delfiles(i64::MAX >> 1), Scan::DeadSlices] {
        assert_eq!(w.store.scan(&left, 10).await.unwrap(), []);
    }
    let removed: BTreeSet<(SliceId, u32)> = w.recorder.take().into_iter().collect();
    let mut used = BTreeSet::new();
    for ino in run.tree.nodes.keys() {
        for item in w.store.scan(&Scan::Chunks(*ino), usize::MAX).await.unwrap() {
            let Scanned::Chunk(indx) = item else { panic!("{item:?}") };
            let list = steady.meta.read_raw_chunk(*ino, indx).await.unwrap();
            used.extend(list.iter().filter(|s| s.id.is_data()).map(|s| (s.id, s.size)));
        }
    }
    for item in w.store.scan(&Scan::DelayedSlices, usize::MAX).await.unwrap() {
        let Scanned::Delayed(_, _, list) = item else { panic!("{item:?}") };
        used.extend(list);
    }
    assert_eq!(used.intersection(&removed).count(), 0, "data in use was deleted");
    for slice in run.written.lock().iter() {
        assert!(used.contains(slice) || removed.contains(slice), "slice {slice:?} is left behind");
    }
}
