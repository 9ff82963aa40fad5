//! Choosing operations, carrying them out, comparing the volume with the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciderfs_format::{CHUNK_SIZE, FileType, Ino, SessionId, Slice, SliceId};
use parking_lot::Mutex;

use super::tree::{Answer, Op, Tree, UNIT, offset};
use crate::error::{Errno, Error};
use crate::ops::rename::EXCHANGE;
use crate::store::{Commit, Counter, DirCursor, QuotaKey, StoreError, Write};
use crate::suite::flaky::Flaky;
use crate::suite::rng::Rng;
use crate::suite::world::*;
use crate::{Allocate, OpenFlags, SetAttr};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KINDS: [FileType; 6] = [
    FileType::File,
    FileType::File,
    FileType::Directory,
    FileType::Directory,
    FileType::Directory,
    FileType::Symlink,
];
/// Numbers of gone inodes that are still tried.
const GONE_MAX: usize = 8;
/// Nodes above which removals are preferred.
const NODES_MAX: usize = 40;

/// What became of an operation.
pub(super) type Outcome = Result<Answer, Errno>;

/// Slices that compactions made: which unit of them is which unit of an older one.
#[derive(Default)]
struct Compacted {
    ids: BTreeSet<u64>,
    units: BTreeMap<(u64, u32), (u64, u32)>,
}

impl Compacted {
    /// The unit as it was written first; `None` for zeros.
    fn origin(&self, mut unit: (u64, u32)) -> Option<(u64, u32)> {
        while self.ids.contains(&unit.0) {
            unit = *self.units.get(&unit)?;
        }
        Some(unit)
    }
}

/// A sequence of operations.
pub(super) struct Run<'a> {
    pub(super) clients: Vec<Client>,
    /// What lies between each client and the engine.
    pub(super) between: Vec<Arc<Flaky>>,
    pub(super) tree: Tree,
    /// Slices that were committed.
    pub(super) written: Mutex<BTreeSet<(SliceId, u32)>>,
    rng: Mutex<Rng>,
    gone: Vec<Ino>,
    compacted: Mutex<Compacted>,
    /// Operations whose outcome was said to be unknown.
    unknown: Mutex<Vec<Op>>,
    /// Looks at the volume without faults.
    witness: Client,
    world: &'a World,
}

/// The inode of a new node.
pub(super) fn made(answer: &Outcome) -> Ino {
    if let Ok(Answer::Ino(ino)) = answer { *ino } else { Ino(0) }
}

/// Is the answer one of those expected?
pub(super) fn fits(answer: &Outcome, expected: &Result<Answer, Vec<Errno>>) -> bool {
    match (answer, expected) {
        (Ok(a), Ok(e)) => a == e,
        (Err(a), Err(e)) => e.contains(a),
        _ => false,
    }
}

/// [`fits`], or a compaction that is given up because its outcome is unknown: it is done for profit only.
pub(super) fn fits_given_up(op: Op, answer: &Outcome, expected: &Result<Answer, Vec<Errno>>) -> bool {
    fits(answer, expected) || (matches!(op, Op::Compact { .. }) && *answer == Err(Errno::EIO))
}

/// [`fits`], or else one of the few answers that cannot be helped when a request got lost: what it wanted had been done by
/// another client before, which looks as if it had been done by this request.
fn fits_after_loss(op: Op, answer: &Outcome, expected: &Result<Answer, Vec<Errno>>) -> bool {
    let done_before = match (op, expected) {
        (Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. } | Op::Exchange { .. }, Err(e)) => {
            e.contains(&Errno::ENOENT)
        }
        (Op::Link { .. }, Err(e)) => e.contains(&Errno::EEXIST),
        _ => false,
    };
    fits_given_up(op, answer, expected) || (done_before && answer.is_ok())
}

/// All orders of a few operations: (which, does its answer count).
fn orders(n: usize) -> Vec<Vec<(usize, bool)>> {
    let mut out = vec![Vec::new()];
    for i in 0..n {
        let longer = |order: &Vec<(usize, bool)>| {
            let order = order.clone();
            (0..=i).map(move |at| {
                let mut order = order.clone();
                order.insert(at, (i, true));
                order
            })
        };
        out = out.iter().flat_map(longer).collect();
    }
    out
}

/// [`orders`], and those in which an operation of one of the first `lossy` clients happens twice: its first reply was lost and
/// another client undid it before it could be found out. A removal or a move of a node that another client has changed since
/// cannot be told from one that another client made: then the answer may be `ENOENT`, once more.
fn orders_after_loss(answers: &[Outcome], lossy: usize) -> Vec<Vec<(usize, bool)>> {
    let n = answers.len();
    let mut out = orders(n);
    for order in orders(n) {
        let undone = |again: &usize| order.last().is_some_and(|(last, _)| last != again);
        for again in (0..lossy).filter(|i| undone(i) || answers[*i] == Err(Errno::ENOENT)) {
            let mut order = order.clone();
            order.iter_mut().filter(|(i, _)| *i == again).for_each(|o| o.1 = false);
            order.push((again, true));
            out.push(order);
        }
    }
    out
}

impl<'a> Run<'a> {
    pub(super) async fn new(world: &'a World, seed: u64, clients: usize, faults: u64) -> Self {
        let mut out = Self {
            clients: Vec::new(),
            between: Vec::new(),
            tree: Tree::new(world.settings.trash_enabled()),
            written: Mutex::default(),
            rng: Mutex::new(Rng::new(seed)),
            gone: vec![Ino(900_000)],
            compacted: Mutex::default(),
            unknown: Mutex::default(),
            witness: world.client().await,
            world,
        };
        for i in 0..clients as u64 {
            let (between, client) = world.client_behind(seed ^ ((i + 1) << 40)).await;
            between.set_faults(faults);
            out.clients.push(client);
            out.between.push(between);
        }
        out
    }

    /// Gives directories a quota or takes it, and nodes to other owners. Limits never bind, so answers stay what they are.
    pub(super) async fn shuffle_quotas(&self) {
        let (set, drop, given, uid, client) = {
            let rng = &mut *self.rng.lock();
            let given = rng.per_mille(500);
            (
                self.pick_node(rng, true),
                self.pick_node(rng, true),
                self.pick_node(rng, given),
                rng.below(3) as u32,
                rng.below(self.clients.len() as u64) as usize,
            )
        };
        let admin = &self.witness.meta;
        // Gone, or no directory: then there is nothing to do.
        let _ = admin.set_quota(QuotaKey::Dir(set), Some(1 << 60), Some(1 << 40)).await;
        if drop != set {
            admin.delete_quota(QuotaKey::Dir(drop)).await.unwrap();
        }
        for c in &self.clients {
            c.meta.reload_quotas().await.unwrap();
        }
        let set = SetAttr { uid: Some(uid), gid: Some(uid + 5), ..SetAttr::default() };
        let _ = self.clients[client].meta.setattr(&root(), given, &set).await;
    }

    fn pick_node(&self, rng: &mut Rng, dir: bool) -> Ino {
        if rng.per_mille(40) {
            return rng.pick(&self.gone);
        }
        let wanted = |n: &super::tree::Node| (n.kind == FileType::Directory) == dir;
        let anything = rng.per_mille(40);
        let nodes = self.tree.nodes.iter().filter(|(_, n)| anything || wanted(n));
        let nodes: Vec<Ino> = nodes.map(|(i, _)| *i).collect();
        if nodes.is_empty() { Ino::ROOT } else { rng.pick(&nodes) }
    }

    /// The next operation. `open`: also opens and closes, which other clients do not know of.
    pub(super) async fn choose(&self, open: bool) -> Op {
        let op = self.choose_without_id(open);
        match op {
            Op::Write { ino, indx, unit, units, .. } => {
                let id = self.witness.meta.new_slice_id().await.unwrap();
                Op::Write { ino, indx, unit, units, id: id.0 }
            }
            Op::Compact { ino, indx, .. } => {
                let id = self.witness.meta.new_slice_id().await.unwrap();
                Op::Compact { ino, indx, id: id.0 }
            }
            other => other,
        }
    }

    fn choose_without_id(&self, open: bool) -> Op {
        let rng = &mut *self.rng.lock();
        let (dir, name) = (self.pick_node(rng, true), rng.pick(&NAMES));
        let crowded = self.tree.nodes.len() > NODES_MAX;
        match rng.below(100) {
            0..22 if !crowded => Op::Create { dir, name, kind: rng.pick(&KINDS) },
            22..30 => Op::Link { ino: self.pick_node(rng, false), dir, name },
            0..38 => Op::Unlink { dir, name },
            38..44 => Op::Rmdir { dir, name },
            44..50 => Op::Exchange { a: (dir, name), b: (self.pick_node(rng, true), rng.pick(&NAMES)) },
            50..68 => Op::Rename {
                from: (dir, name),
                to: (self.pick_node(rng, true), rng.pick(&NAMES)),
                noreplace: rng.per_mille(100),
            },
            68..71 => Op::Lookup { dir, name },
            71..75 => {
                let is_dir = rng.per_mille(500);
                Op::Chmod { ino: self.pick_node(rng, is_dir), mode: rng.below(0o1000) as u16 }
            }
            75..78 => Op::Compact { ino: self.pick_node(rng, false), indx: rng.below(3) as u32, id: 0 },
            78..87 => Op::Write {
                ino: self.pick_node(rng, false),
                indx: rng.below(3) as u32,
                unit: rng.below(20) as u32,
                units: 1 + rng.below(8) as u32,
                id: 0,
            },
            87..90 => {
                let how = [
                    Allocate::Grow,
                    Allocate::Reserve,
                    Allocate::Punch,
                    Allocate::Punch,
                    Allocate::Zero,
                    Allocate::ZeroInside,
                ];
                let from = (rng.below(3) as u32, rng.below(30) as u32);
                let to = if rng.per_mille(100) {
                    (300, 0)
                } else {
                    (from.0 + rng.below(2) as u32, rng.below(40) as u32)
                };
                Op::Allocate { ino: self.pick_node(rng, false), how: rng.pick(&how), from, to }
            }
            90..94 => {
                let source = self.pick_node(rng, false);
                let target = if rng.per_mille(300) { source } else { self.pick_node(rng, false) };
                Op::Copy {
                    from: (source, rng.below(3) as u32, rng.below(25) as u32),
                    to: (target, rng.below(3) as u32, rng.below(25) as u32),
                    units: 1 + rng.below(25) as u32,
                }
            }
            94..96 => {
                let length = match rng.below(8) {
                    0 => 0,
                    1 => 300 * CHUNK_SIZE + 5000,
                    2 => CHUNK_SIZE,
                    _ => offset(rng.below(3) as u32, rng.below(30) as u32),
                };
                Op::Truncate { ino: self.pick_node(rng, false), length }
            }
            n => {
                let files: Vec<Ino> = self.tree.nodes.keys().copied().collect();
                let open_files = self.open_files();
                if !open {
                    Op::Lookup { dir, name }
                } else if n < 98 && !open_files.is_empty() {
                    Op::Close { ino: rng.pick(&open_files) }
                } else {
                    Op::Open { ino: rng.pick(&files) }
                }
            }
        }
    }

    pub(super) fn open_files(&self) -> Vec<Ino> {
        let open = self.tree.nodes.iter().filter(|(_, n)| n.is_open());
        open.map(|(i, _)| *i).collect()
    }

    pub(super) async fn carry_out(&self, client: usize, op: Op) -> Outcome {
        let c = &self.clients[client];
        let removed = |r: crate::Removed| Answer::Removed(r.ino, r.last);
        let answer = match op {
            Op::Create { dir, name, kind } => c.make(dir, name, kind).await.map(Answer::Ino),
            Op::Link { ino, dir, name } => c.link(ino, dir, name).await.map(|_| Answer::Done),
            Op::Unlink { dir, name } => c.unlink(dir, name).await.map(removed),
            Op::Rmdir { dir, name } => c.rmdir(dir, name).await.map(removed),
            Op::Rename { from, to, noreplace } => {
                let (sname, dname) = (from.1.as_bytes(), to.1.as_bytes());
                let done = c.meta.rename(&root(), from.0, sname, to.0, dname, u32::from(noreplace)).await;
                done.map(|r| r.replaced.map_or(Answer::Done, removed))
            }
            Op::Exchange { a, b } => {
                let (a_name, b_name) = (a.1.as_bytes(), b.1.as_bytes());
                c.meta.rename(&root(), a.0, a_name, b.0, b_name, EXCHANGE).await.map(|_| Answer::Done)
            }
            Op::Lookup { dir, name } => c.find(dir, name).await.map(Answer::Ino),
            Op::Chmod { ino, mode } => {
                self.comes_to(c, ino);
                let set = crate::SetAttr { mode: Some(mode), ..crate::SetAttr::default() };
                c.meta.setattr(&root(), ino, &set).await.map(|_| Answer::Done)
            }
            Op::Write { ino, indx, unit, units, id } => {
                let slice = Slice {
                    pos: unit * UNIT,
                    id: SliceId(id),
                    size: units * UNIT,
                    off: 0,
                    len: units * UNIT,
                };
                c.append(ino, indx, vec![slice]).await.map(|_| Answer::Done)
            }
            Op::Allocate { ino, how, from, to } => {
                let (from, to) = (offset(from.0, from.1), offset(to.0, to.1));
                let len = to.saturating_sub(from);
                c.meta.fallocate(&root(), ino, how, from, len).await.map(|_| Answer::Done)
            }
            Op::Copy { from, to, units } => {
                let (from, to) = ((from.0, offset(from.1, from.2)), (to.0, offset(to.1, to.2)));
                let len = u64::from(units * UNIT);
                c.meta.copy_range(&root(), from, to, len).await.map(|_| Answer::Done)
            }
            Op::Truncate { ino, length } => c.truncate(ino, length).await.map(|_| Answer::Done),
            Op::Compact { ino, indx, id } => self.compact(c, ino, indx, id).await.map(|()| Answer::Done),
            Op::Open { ino } => {
                self.comes_to(c, ino);
                let how = OpenFlags { read: true, ..OpenFlags::default() };
                c.meta.open(&root(), ino, how).await.map(|_| Answer::Done)
            }
            Op::Close { ino } => c.meta.close(ino).await.map(|()| Answer::Done),
        };
        if let Err(Error::Store(StoreError::Ambiguous(_))) = &answer {
            self.unknown.lock().push(op);
        }
        answer.map_err(|e| e.errno())
    }

    /// Somebody finds a node by a name, in the trash if that is where its names are.
    fn comes_to(&self, c: &Client, ino: Ino) {
        let in_trash = self.tree.nodes.get(&ino).is_some_and(|n| n.trashed);
        c.meta.holds.found(if in_trash { Ino::TRASH } else { Ino::ROOT }, std::iter::once(ino));
    }

    async fn compact(&self, c: &Client, ino: Ino, indx: u32, id: u64) -> crate::Result<()> {
        let raw = c.meta.read_raw_chunk(ino, indx).await?;
        let extents = ciderfs_format::slice::resolve(&raw);
        let data: Vec<_> = extents.iter().filter(|e| e.id.is_data()).collect();
        let (Some(first), Some(last)) = (data.first(), data.last()) else { return Ok(()) };
        let size = last.pos + last.len - first.pos;
        {
            let mut compacted = self.compacted.lock();
            compacted.ids.insert(id);
            for e in &data {
                for i in 0..e.len / UNIT {
                    let at = (e.pos - first.pos) / UNIT + i;
                    compacted.units.insert((id, at), (e.id.0, e.off / UNIT + i));
                }
            }
        }
        let new = Slice { pos: first.pos, id: SliceId(id), size, off: 0, len: size };
        if c.meta.commit_compaction(ino, indx, &raw, 0, new).await? {
            self.written.lock().insert((SliceId(id), size));
        }
        Ok(())
    }

    /// Gives a client a session without its background work, so that a test can be repeated exactly.
    pub(super) async fn register(&self, client: usize) {
        let writes = vec![
            Write::AddCounter(Counter::NextSession, 1),
            Write::PutSession(SessionId(1), i64::MAX >> 8, "{}".into()),
        ];
        self.world.store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
        self.clients[client].meta.sid.store(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// The reference after operations that several clients carried out at once, in an order that explains their answers and
    /// the volume; else why there is none. Requests and replies of the first `lossy` clients got lost.
    pub(super) async fn explain(
        &self,
        ops: &[Op],
        answers: &[Outcome],
        lossy: usize,
    ) -> Result<Tree, Vec<String>> {
        let mut orders = orders_after_loss(answers, lossy);
        let unknown = self.unknown(ops, answers);
        for i in &unknown {
            let without = |order: &Vec<(usize, bool)>| order.iter().copied().filter(|o| o.0 != *i).collect();
            orders.extend(orders.iter().map(without).collect::<Vec<_>>());
        }
        let mut reasons = Vec::new();
        for order in orders {
            let mut tree = self.tree.clone();
            let mut before = BTreeMap::new();
            let fit = order.iter().all(|&(i, counts)| {
                // What happens twice happens to the same node.
                let subject = tree.subject(ops[i]);
                let same =
                    before.insert(i, subject).is_none_or(|first| subject.is_none() || first == subject);
                let made = if counts { made(&answers[i]) } else { self.made_first(i, answers) };
                let expected = tree.apply(ops[i], made);
                same && match i < lossy {
                    false => fits(&answers[i], &expected),
                    true => {
                        !counts || unknown.contains(&i) || fits_after_loss(ops[i], &answers[i], &expected)
                    }
                }
            });
            if fit {
                match self.compare(&tree).await {
                    Ok(()) => return Ok(tree),
                    Err(why) => reasons.push(why),
                }
            }
        }
        Err(reasons)
    }

    /// The number of what an operation made when it happened the first time, which its answer does not tell: somebody else's
    /// may, otherwise nobody has seen it.
    fn made_first(&self, i: usize, answers: &[Outcome]) -> Ino {
        let others = answers.iter().enumerate().filter(|(o, _)| *o != i);
        let mut seen = others.filter_map(|(_, answer)| match answer {
            Ok(Answer::Ino(ino) | Answer::Removed(ino, _)) => Some(*ino),
            _ => None,
        });
        seen.find(|ino| !self.tree.nodes.contains_key(ino)).unwrap_or(made(&answers[i]))
    }

    /// The operations that may or may not have happened: their replies were lost, and before it could be found out somebody had
    /// changed the same file, or the name was another node's; by an operation of this round, or by an earlier one that this
    /// client did not know of.
    fn unknown(&self, ops: &[Op], answers: &[Outcome]) -> Vec<usize> {
        let unknown = std::mem::take(&mut *self.unknown.lock());
        let may_be = |op: Op| {
            matches!(
                op,
                Op::Write { .. }
                    | Op::Exchange { .. }
                    | Op::Unlink { .. }
                    | Op::Rmdir { .. }
                    | Op::Rename { .. }
            )
        };
        let lost = |i: usize| answers[i] == Err(Errno::EIO) && unknown.contains(&ops[i]) && may_be(ops[i]);
        (0..ops.len()).filter(|i| lost(*i)).collect()
    }

    /// Remembers what later choices and checks need.
    pub(super) fn note(&mut self, op: Op, made: Ino) {
        if let Op::Write { ino, units, id, .. } = op
            && self.tree.nodes.get(&ino).is_some_and(|n| n.content.values().any(|(i, _)| *i == id))
        {
            self.written.lock().insert((SliceId(id), units * UNIT));
        }
        for ino in [touched(op), made].into_iter().filter(|i| i.0 > 1 && !self.tree.nodes.contains_key(i)) {
            if !self.gone.contains(&ino) {
                self.gone.push(ino);
            }
        }
        while self.gone.len() > GONE_MAX {
            self.gone.remove(1);
        }
    }

    /// Is the volume what the reference says?
    pub(super) async fn compare(&self, tree: &Tree) -> Result<(), String> {
        let c = &self.witness;
        for (ino, want) in &tree.nodes {
            let found = match c.meta.getattr(*ino).await {
                Ok(a) => a,
                Err(e) => return Err(format!("inode {ino}: {e}")),
            };
            let (found, wanted) = (
                (found.kind, found.mode, found.nlink, found.length),
                (want.kind, want.mode, want.nlink, want.length),
            );
            if found != wanted {
                return Err(format!("inode {ino} is {found:?}, not {wanted:?}"));
            }
            if want.kind == FileType::Directory {
                let found = self.entries(*ino).await;
                let wanted: BTreeMap<Vec<u8>, Ino> =
                    want.entries.iter().map(|(n, i)| (n.as_bytes().to_vec(), *i)).collect();
                if found != wanted {
                    return Err(format!("directory {ino} holds {found:?}, not {wanted:?}"));
                }
            }
            if want.kind == FileType::File {
                self.compare_content(*ino, want).await?;
            }
        }
        for ino in self.gone.iter().filter(|i| !tree.nodes.contains_key(i)) {
            if !c.gone(*ino).await {
                return Err(format!("inode {ino} is there"));
            }
        }
        Ok(())
    }

    async fn entries(&self, dir: Ino) -> BTreeMap<Vec<u8>, Ino> {
        let page = self.witness.meta.list_dir(&root(), dir, &DirCursor::Start, 1000, false).await.unwrap();
        page.entries.into_iter().map(|e| (e.name, e.edge.ino)).collect()
    }

    async fn compare_content(&self, ino: Ino, want: &super::tree::Node) -> Result<(), String> {
        for indx in 0..3 {
            let view = self.witness.meta.read_chunk(ino, indx).await.unwrap();
            let mut found = BTreeMap::new();
            for e in view.extents.iter().filter(|e| e.id.is_data()) {
                for i in 0..e.len / UNIT {
                    let unit = e.pos / UNIT + i;
                    let origin = self.compacted.lock().origin((e.id.0, e.off / UNIT + i));
                    if offset(indx, unit) < want.length
                        && let Some(origin) = origin
                    {
                        found.insert((indx, unit), origin);
                    }
                }
            }
            let wanted: BTreeMap<_, _> =
                want.content.range((indx, 0)..=(indx, u32::MAX)).map(|(k, v)| (*k, *v)).collect();
            if found != wanted {
                return Err(format!("chunk {indx} of inode {ino} shows {found:?}, not {wanted:?}"));
            }
        }
        Ok(())
    }
}

/// The inode that an operation names, if any.
fn touched(op: Op) -> Ino {
    match op {
        Op::Link { ino, .. }
        | Op::Chmod { ino, .. }
        | Op::Write { ino, .. }
        | Op::Truncate { ino, .. }
        | Op::Allocate { ino, .. }
        | Op::Compact { ino, .. }
        | Op::Open { ino }
        | Op::Close { ino } => ino,
        Op::Create { dir, .. } | Op::Unlink { dir, .. } | Op::Rmdir { dir, .. } | Op::Lookup { dir, .. } => {
            dir
        }
        Op::Copy { to, .. } => to.0,
        Op::Rename { from, .. } => from.0,
        Op::Exchange { a, .. } => a.0,
    }
}
