//! Usage of a directory that moves: its whole tree leaves the quotas above its old place and comes under those above its
//! new one (`spec/meta-redis.md` 5.11).

use std::collections::{BTreeSet, HashMap};

use ciderfs_format::{Attr, Edge, FileType, Ino};

use crate::charges::Amount;
use crate::error::{Errno, Result};
use crate::store::{AttrMask, DirStat, Guard, Read, StoreError, Value};
use crate::txn::{Known, Step, Stop, Txn};
use crate::volume::Meta;

/// Directories guarded in the commit of a move: up to so many the moved usage is exact although other clients work in the
/// tree, unless they spoil [`SUMS_MAX`] sums.
const GUARDED_DIRS_MAX: usize = 10_000;
/// Rounds of sums of one operation whose trees others keep changing; after that the last ones count, guarded or not.
const SUMS_MAX: usize = 20;
/// What is guarded of a directory in a tree, besides its usage record: its parent, and how many directories are in it. An
/// exchange of two of them, or of one and something as small, changes no usage record above.
const PLACE: AttrMask = AttrMask(AttrMask::IDENTITY.0 | AttrMask::NLINK.0);

/// A directory that a sum rests on.
struct Summed {
    dir: Ino,
    attr: Option<Attr>,
    stat: Option<DirStat>,
}

/// What a tree holds, without its top.
pub(crate) struct Sum {
    pub(super) amount: Amount,
    dirs: Vec<Summed>,
}

impl Sum {
    /// What must still be so for the sum to be right.
    pub(super) fn guards(&self) -> impl Iterator<Item = Guard> {
        self.dirs.iter().take(GUARDED_DIRS_MAX).flat_map(|d| {
            let place = Guard::Attr { ino: d.dir, expect: d.attr.clone(), mask: PLACE };
            [Some(place), d.stat.map(|stat| Guard::DirStat(d.dir, Some(stat)))].into_iter().flatten()
        })
    }
}

/// Sums of the trees that an operation moves.
#[derive(Default)]
pub(crate) struct Trees {
    sums: HashMap<Ino, Sum>,
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
            sum.guards().for_each(|guard| self.guard(guard));
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
            let sum = match self.sum_tree(top).await {
                // Somebody moved a directory within the tree meanwhile, and it was met twice: it is missed once more.
                Err(e) if e.errno() == Errno::ELOOP && known.trees.rounds < SUMS_MAX => continue,
                sum => sum?,
            };
            known.begin_turn();
            for d in &sum.dirs {
                known.learn(Read::Attr(d.dir), Value::Attr(d.attr.clone()), &self.beliefs);
                if d.stat.is_some() {
                    known.learn(Read::DirStat(d.dir), Value::DirStat(d.stat), &self.beliefs);
                }
            }
            known.trees.sums.insert(top, sum);
        }
        Ok(())
    }

    /// Bytes and inodes below a directory, itself not counted, from the usage records.
    pub(super) async fn sum_tree(&self, top: Ino) -> Result<Sum> {
        let mut sum = Sum { amount: (0, 0), dirs: Vec::new() };
        let mut level = vec![top];
        let mut seen = BTreeSet::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for dirs in level.chunks(1000) {
                let reads: Vec<Read> =
                    dirs.iter().flat_map(|d| [Read::Attr(*d), Read::DirStat(*d)]).collect();
                let values = self.read(&reads).await?;
                for (dir, pair) in dirs.iter().zip(values.chunks_exact(2)) {
                    let [Value::Attr(attr), Value::DirStat(stat)] = pair else {
                        return Err(StoreError::another_question().into());
                    };
                    if !seen.insert(*dir) {
                        return Err(Errno::ELOOP.into());
                    }
                    let leaf = attr.as_ref().is_none_or(|a| a.nlink <= 2);
                    let stat = stat.filter(|_| self.settings().dir_stats);
                    if !leaf || stat.is_none() {
                        let entries = self.all_entries(*dir).await?;
                        if stat.is_none() {
                            let space = |a: &Attr| a.charged_space() as i64;
                            sum.amount.0 +=
                                entries.iter().map(|e| e.attr.as_ref().map_or(4096, space)).sum::<i64>();
                            sum.amount.1 += entries.len() as i64;
                        }
                        next.extend(
                            entries.iter().filter(|e| e.edge.kind == FileType::Directory).map(|e| e.edge.ino),
                        );
                    }
                    if let Some(stat) = stat {
                        sum.amount.0 += stat.space;
                        sum.amount.1 += stat.inodes;
                    }
                    sum.dirs.push(Summed { dir: *dir, attr: attr.clone(), stat });
                }
            }
            level = next;
        }
        Ok(sum)
    }
}
