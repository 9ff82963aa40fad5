//! Usage of a directory that moves: its whole tree leaves the quotas above its old place and comes under those above its
//! new one (`docs/format/quotas.md#directory-quotas`).

use std::collections::{BTreeSet, HashMap, VecDeque};

use ciderfs_format::{Attr, Edge, FileType, Ino};

use crate::charges::{Amount, add};
use crate::error::Result;
use crate::known::Known;
use crate::store::{AttrMask, DirStat, Guard, Read, StoreError, Value};
use crate::txn::{Step, Stop, Txn};
use crate::volume::Meta;

/// Directories guarded in the commit of a move: up to so many the moved usage is exact although other clients work in the
/// tree, unless they spoil [`SUMS_MAX`] sums.
const GUARDED_DIRS_MAX: usize = 10_000;
/// Rounds of sums of one operation whose trees others keep changing; after that the last ones count, guarded or not.
const SUMS_MAX: usize = 20;
/// Rounds after which what tears a sum in the same places is damage of the volume, not a change.
const TORN_MAX: usize = 3;
/// What is guarded of a directory in a tree, besides its usage record: its parent, and how many directories are in it. An
/// exchange of two of them, or of one and something as small, changes no usage record above.
const PLACE: AttrMask = AttrMask(AttrMask::PARENT.0 | AttrMask::NLINK.0);

/// A directory that a sum rests on.
struct Summed {
    dir: Ino,
    attr: Option<Attr>,
    stat: Option<DirStat>,
}

/// What a tree holds, without its top.
#[derive(Default)]
pub(crate) struct Sum {
    pub(super) amount: Amount,
    /// The first [`GUARDED_DIRS_MAX`].
    dirs: Vec<Summed>,
    /// Directories that were met twice, have another parent than they were listed under, are gone, or do not list as many
    /// directories as their link count says: somebody moved something meanwhile, which no guard shows.
    torn: BTreeSet<Ino>,
}

/// Where the last sums of a tree were torn.
#[derive(Default)]
pub(super) struct Tears {
    last: VecDeque<BTreeSet<Ino>>,
}

impl Tears {
    /// May the sum be used?
    pub(super) fn accept(&mut self, sum: &Sum) -> bool {
        // What was torn in each of the last rounds; activity elsewhere comes and goes.
        self.last.push_front(sum.torn.clone());
        self.last.truncate(TORN_MAX);
        let always = |dir| self.last.len() == TORN_MAX && self.last.iter().all(|torn| torn.contains(dir));
        sum.torn.iter().all(always)
    }
}

impl Sum {
    /// What must still be so for the sum to be right.
    pub(super) fn guards(&self) -> impl Iterator<Item = Guard> {
        self.dirs.iter().flat_map(|d| {
            let place = Guard::Attr { ino: d.dir, expect: d.attr.clone(), mask: PLACE };
            [Some(place), d.stat.map(|stat| Guard::DirStat(d.dir, Some(stat)))].into_iter().flatten()
        })
    }
}

/// Sums of the trees that an operation moves.
#[derive(Default)]
pub(crate) struct Trees {
    sums: HashMap<Ino, Sum>,
    tears: HashMap<Ino, Tears>,
    rounds: usize,
}

impl Txn<'_> {
    /// What the tree below a directory holds, guarded. Without a sum, or with one that turned out to be old, the tree is noted
    /// as missing.
    fn tree(&mut self, top: Ino) -> Option<Amount> {
        let known = self.known();
        let bound = known.trees.rounds < SUMS_MAX;
        let sum = known.trees.sums.get(&top).filter(|sum| {
            !bound
                || sum.guards().all(|g| match known.value(&g.read()) {
                    Some(found) => g.holds(&found),
                    None => true,
                })
        });
        let Some(sum) = sum else {
            self.missing_trees.push(top);
            return None;
        };
        if bound {
            sum.guards().for_each(|guard| self.guard_fetched(guard));
        }
        Some(sum.amount)
    }
}

impl Meta {
    /// Charges the trees below the directories among these entries, moved from one directory to another, to the quotas above
    /// their new places instead of those above the old ones.
    pub(super) fn move_trees(&self, t: &mut Txn<'_>, moved: &[(Ino, Ino, Edge, &Attr)]) -> Step<()> {
        for (from, to, e, a) in moved {
            if !a.is_dir() || from == to || !self.ledger.has_dir_quotas() {
                continue;
            }
            let old: BTreeSet<Ino> = self.quota_dirs_above(t, *from)?.into_iter().collect();
            let new: BTreeSet<Ino> = self.quota_dirs_above(t, *to)?.into_iter().collect();
            if old == new {
                continue;
            }
            if let Some((space, inodes)) = t.tree(e.ino) {
                t.charges.dir(*from, -space, -inodes);
                t.charges.dir(*to, space, inodes);
            }
        }
        if t.missing_trees.is_empty() { Ok(()) } else { Err(Stop::Need) }
    }

    /// Sums up the trees that an attempt missed.
    pub(crate) async fn sum_trees(&self, known: &mut Known, missing: Vec<Ino>) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        known.trees.rounds += 1;
        for top in missing {
            let sum = self.sum_tree(top).await?;
            let whole = known.trees.tears.entry(top).or_default().accept(&sum);
            if !whole && known.trees.rounds < SUMS_MAX {
                continue;
            }
            for d in &sum.dirs {
                known.learn_summed(d.dir, d.attr.clone(), d.stat);
            }
            known.trees.sums.insert(top, sum);
        }
        Ok(())
    }

    /// The sum of a tree that nobody changes meanwhile, if there is one in a few attempts.
    pub(super) async fn steady_sum(&self, top: Ino) -> Result<Sum> {
        let mut tears = Tears::default();
        for _ in 1..SUMS_MAX {
            let sum = self.sum_tree(top).await?;
            if tears.accept(&sum) {
                return Ok(sum);
            }
        }
        self.sum_tree(top).await
    }

    /// Bytes and inodes below a directory, itself not counted, from the usage records.
    pub(super) async fn sum_tree(&self, top: Ino) -> Result<Sum> {
        let mut sum = Sum::default();
        // Directories, and where they were listed.
        let mut level = vec![(top, None)];
        let mut seen = BTreeSet::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for dirs in level.chunks(1000) {
                let reads: Vec<Read> =
                    dirs.iter().flat_map(|(d, _)| [Read::Attr(*d), Read::DirStat(*d)]).collect();
                let values = self.read(&reads).await?;
                for ((dir, parent), pair) in dirs.iter().zip(values.chunks_exact(2)) {
                    let [Value::Attr(attr), Value::DirStat(stat)] = pair else {
                        return Err(StoreError::another_question().into());
                    };
                    if !seen.insert(*dir) {
                        sum.torn.insert(*dir);
                        continue;
                    }
                    let moved = |listed| attr.as_ref().is_none_or(|a| a.parent != listed);
                    let mut torn = parent.is_some_and(moved);
                    let leaf = attr.as_ref().is_none_or(|a| a.nlink <= 2);
                    let stat = stat.filter(|_| self.settings().dir_stats);
                    if !leaf || stat.is_none() {
                        let entries = self.all_entries(*dir).await?;
                        if stat.is_none() {
                            let space = |a: &Attr| a.charged_space() as i64;
                            for e in &entries {
                                add(&mut sum.amount, e.attr.as_ref().map_or(4096, space), 1);
                            }
                        }
                        let subdirs = entries.iter().filter(|e| e.edge.kind == FileType::Directory);
                        let before = next.len();
                        next.extend(subdirs.map(|e| (e.edge.ino, Some(*dir))));
                        let found = next.len() - before;
                        torn |=
                            attr.as_ref().is_some_and(|a| (a.nlink as usize).checked_sub(2) != Some(found));
                    }
                    if torn {
                        sum.torn.insert(*dir);
                    }
                    if let Some(stat) = stat {
                        add(&mut sum.amount, stat.space, stat.inodes);
                    }
                    if sum.dirs.len() < GUARDED_DIRS_MAX {
                        sum.dirs.push(Summed { dir: *dir, attr: attr.clone(), stat });
                    }
                }
            }
            level = next;
        }
        Ok(sum)
    }
}
