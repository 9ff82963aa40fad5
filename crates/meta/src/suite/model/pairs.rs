//! Every operation of a client with every operation of another, the second before each call of the first to the engine in
//! turn. A new volume for each case, so in memory only.

use std::sync::Arc;

use ciderfs_format::{FileType, Ino};
use tokio::sync::Notify;

use super::run::{Run, made};
use super::tree::Op;
use crate::Allocate;
use crate::memory::MemoryStore;
use crate::store::{QuotaKey, Store};
use crate::suite::Engine;
use crate::suite::flaky::{Fate, When};
use crate::suite::world::{ROOT, World};

/// What happens to the first client's first commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    None,
    /// It is made, and its reply lost.
    Made,
    /// It is said to be lost, and arrives when the client has looked for it.
    Late,
    /// It never arrives.
    Dropped,
}

/// Without the trash.
pub async fn pairs() {
    all(false, &[Loss::None]).await;
}

/// With the trash.
pub async fn pairs_with_trash() {
    all(true, &[Loss::None]).await;
}

/// The first commit of the first client gets lost in one way or another.
pub async fn pairs_with_a_lost_reply() {
    all(false, &[Loss::Made, Loss::Late, Loss::Dropped]).await;
}

async fn engine() -> Engine {
    let store = Arc::new(MemoryStore::new());
    Engine::new((), move || {
        let store: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        async move { store }
    })
}

async fn all(trash: bool, losses: &[Loss]) {
    let count = {
        let w = World::new(engine().await).await;
        let mut run = Run::new(&w, 0, 2, 0).await;
        let places = Places::make(&mut run).await;
        places.operations(0).len()
    };
    for first in 0..count {
        for second in 0..count {
            for loss in losses {
                let mut call = 0;
                while case(trash, (first, second), *loss, call).await {
                    call += 1;
                }
                assert!(call < 40, "the first operation made {call} calls");
            }
        }
    }
}

/// False if the first operation ends before it makes that call.
async fn case(trash: bool, (first, second): (usize, usize), loss: Loss, call: usize) -> bool {
    let w =
        World::with(engine().await, |s| (s.user_group_quota, s.trash_days) = (true, u32::from(trash))).await;
    let mut run = Run::new(&w, 0, 2, 0).await;
    let places = Places::make(&mut run).await;
    for c in &run.clients {
        c.meta.reload_quotas().await.unwrap();
    }
    let ops = [places.operations(0)[first], places.operations(1)[second]];
    match loss {
        Loss::None => {}
        Loss::Made => run.between[0].lose_next(Fate::Made),
        // The next call is the look.
        Loss::Late => run.between[0].lose_next(Fate::Late(1)),
        Loss::Dropped => run.between[0].lose_next(Fate::Dropped),
    }
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at_call, opened) = (Arc::clone(&reached), Arc::clone(&go_on));
    run.between[0].at(When::Call(call), async move {
        at_call.notify_one();
        opened.notified().await;
    });
    let (answers, met) = {
        let mut one = std::pin::pin!(run.carry_out(0, ops[0]));
        tokio::select! {
            biased;
            answer = &mut one => (vec![answer, run.carry_out(1, ops[1]).await], false),
            () = reached.notified() => {
                let other = run.carry_out(1, ops[1]).await;
                go_on.notify_one();
                (vec![one.await, other], true)
            }
        }
    };
    run.between[0].give_up().await;
    // What is still on its way arrives.
    for _ in 0..3 {
        _ = run.clients[0].find(ROOT, "a").await;
        run.clients[0].meta.read_raw_chunk(ROOT, 0).await.unwrap();
    }
    let context = format!("{ops:?} answered {answers:?}, {loss:?}, before call {call}");
    let tree = run.explain(&ops, &answers, usize::from(loss != Loss::None)).await;
    run.tree =
        tree.unwrap_or_else(|why| panic!("no order explains {context}: {why:?}\nbefore: {:?}", run.tree));
    // Looking at every record takes the longest by far: of the many cases with losses some must do.
    if loss == Loss::None || (first + second + call).is_multiple_of(4) {
        let store = Arc::clone(&w.store);
        let checked = tokio::spawn(async move { crate::suite::check::check(store.as_ref()).await });
        assert!(checked.await.is_ok(), "the volume contradicts itself after {context}");
    }
    met
}

/// Where things are before each case:
///
/// ```text
/// a/          a quota           b/           a quota
/// a/a/a       a file            b/a/         empty
/// a/b         a file with data  b/b          a file with data
/// a/c         a link to b/b     b/c/a/       empty
/// ```
struct Places {
    a: Ino,
    b: Ino,
    full: Ino,
    first: Ino,
    second: Ino,
    /// Numbers for the slices of each client.
    ids: [[u64; 3]; 2],
}

impl Places {
    async fn make(run: &mut Run<'_>) -> Self {
        let dir = FileType::Directory;
        let a = does(run, Op::Create { dir: ROOT, name: "a", kind: dir }).await;
        let b = does(run, Op::Create { dir: ROOT, name: "b", kind: dir }).await;
        for quota in [a, b] {
            run.clients[1].meta.set_quota(QuotaKey::Dir(quota), Some(1 << 60), None).await.unwrap();
        }
        let full = does(run, Op::Create { dir: a, name: "a", kind: dir }).await;
        does(run, Op::Create { dir: full, name: "a", kind: FileType::File }).await;
        let first = does(run, Op::Create { dir: a, name: "b", kind: FileType::File }).await;
        does(run, Op::Create { dir: b, name: "a", kind: dir }).await;
        let second = does(run, Op::Create { dir: b, name: "b", kind: FileType::File }).await;
        does(run, Op::Link { ino: second, dir: a, name: "c" }).await;
        let deep = does(run, Op::Create { dir: b, name: "c", kind: dir }).await;
        does(run, Op::Create { dir: deep, name: "a", kind: dir }).await;
        for (ino, unit) in [(first, 2), (second, 5)] {
            let id = run.clients[1].meta.new_slice_id().await.unwrap();
            does(run, Op::Write { ino, indx: 0, unit, units: 4, id: id.0 }).await;
        }
        let mut ids = [[0; 3]; 2];
        for id in ids.as_flattened_mut() {
            *id = run.clients[1].meta.new_slice_id().await.unwrap().0;
        }
        Self { a, b, full, first, second, ids }
    }

    fn operations(&self, client: usize) -> Vec<Op> {
        let Self { a, b, full, first, second, .. } = *self;
        let ids = self.ids[client];
        let (file, dir) = (FileType::File, FileType::Directory);
        let rename = |from, to| Op::Rename { from, to, noreplace: false };
        vec![
            Op::Create { dir: a, name: "d", kind: file },
            Op::Create { dir: a, name: "d", kind: dir },
            Op::Create { dir: full, name: "d", kind: FileType::Symlink },
            Op::Create { dir: a, name: "b", kind: file },
            Op::Link { ino: first, dir: a, name: "d" },
            Op::Link { ino: second, dir: full, name: "b" },
            Op::Unlink { dir: a, name: "b" },
            Op::Unlink { dir: a, name: "c" },
            Op::Unlink { dir: b, name: "b" },
            Op::Unlink { dir: full, name: "a" },
            Op::Unlink { dir: a, name: "d" },
            Op::Rmdir { dir: b, name: "a" },
            Op::Rmdir { dir: a, name: "a" },
            rename((a, "b"), (a, "d")),
            rename((a, "b"), (b, "d")),
            rename((a, "b"), (b, "b")),
            rename((a, "c"), (b, "b")),
            rename((a, "a"), (b, "d")),
            rename((a, "a"), (b, "a")),
            rename((ROOT, "b"), (full, "d")),
            rename((full, "a"), (a, "d")),
            Op::Rename { from: (a, "b"), to: (a, "d"), noreplace: true },
            Op::Exchange { a: (a, "b"), b: (b, "b") },
            Op::Exchange { a: (a, "a"), b: (b, "a") },
            Op::Exchange { a: (a, "a"), b: (b, "c") },
            Op::Exchange { a: (a, "a"), b: (ROOT, "b") },
            Op::Lookup { dir: a, name: "b" },
            Op::Chmod { ino: first, mode: 0o600 },
            Op::Chmod { ino: full, mode: 0o700 },
            Op::Write { ino: first, indx: 0, unit: 4, units: 4, id: ids[0] },
            Op::Write { ino: second, indx: 1, unit: 0, units: 2, id: ids[1] },
            Op::Truncate { ino: first, length: 3000 },
            Op::Truncate { ino: second, length: 1 << 27 },
            Op::Allocate { ino: first, how: Allocate::Punch, from: (0, 3), to: (0, 5) },
            Op::Copy { from: (first, 0, 2), to: (second, 0, 0), units: 3 },
            Op::Compact { ino: first, indx: 0, id: ids[2] },
        ]
    }
}

async fn does(run: &mut Run<'_>, op: Op) -> Ino {
    let answer = run.carry_out(1, op).await;
    let ino = made(&answer);
    assert_eq!(run.tree.apply(op, ino).unwrap(), answer.unwrap());
    ino
}
