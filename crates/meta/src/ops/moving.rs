//! Usage of a directory that moves: its whole tree leaves the quotas above its old place and comes under those above its
//! new one (`spec/meta-redis.md` 5.11).

use std::collections::{BTreeSet, HashMap};

use ciderfs_format::{Attr, Edge, FileType, Ino};

use crate::charges::Amount;
use crate::error::{Errno, Result};
use crate::store::{DirStat, Guard, Read, StoreError, Value};
use crate::txn::{Step, Txn};
use crate::volume::Meta;

/// Usage records guarded in the commit of a move: up to so many directories the moved usage is exact although other clients
/// work in the tree, unless they spoil [`SUMS_MAX`] sums.
const GUARDED_DIRS_MAX: usize = 10_000;
/// Sums of one tree that others keep changing; after that the last one counts, guarded or not.
const SUMS_MAX: usize = 20;

/// What a tree holds, without its top.
pub(super) struct Sum {
    pub(super) amount: Amount,
    /// Usage records that it rests on.
    records: Vec<(Ino, DirStat)>,
}

impl Sum {
    /// What must still be so for the sum to be right.
    pub(super) fn guards(&self) -> impl Iterator<Item = Guard> {
        self.records.iter().take(GUARDED_DIRS_MAX).map(|(dir, stat)| Guard::DirStat(*dir, Some(*stat)))
    }
}

/// Sums of the trees that an operation moves.
#[derive(Default)]
pub(crate) struct Trees {
    sums: HashMap<Ino, Sum>,
    wanted: BTreeSet<Ino>,
    rounds: usize,
}

impl Trees {
    /// An attempt begins: what an earlier one wanted does not matter any more.
    pub(super) fn begin(&mut self) {
        self.wanted.clear();
    }

    /// Is a sum missing? Then the operation's last answer is none.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.wanted.is_empty()
    }
}

impl Meta {
    /// Charges the tree below `e` to the quotas above `to` instead of those above `from`. If its sum is not known (any more), it
    /// is noted as wanted.
    pub(super) fn move_tree(
        &self,
        t: &mut Txn<'_>,
        trees: &mut Trees,
        (from, to): (Ino, Ino),
        e: Edge,
        a: &Attr,
    ) -> Step<()> {
        if !a.is_dir() || from == to || !self.ledger.has_dir_quotas() {
            return Ok(());
        }
        let old: BTreeSet<Ino> = self.quota_dirs_above(t, from)?.into_iter().collect();
        let new: BTreeSet<Ino> = self.quota_dirs_above(t, to)?.into_iter().collect();
        if old == new {
            return Ok(());
        }
        let Some(sum) = trees.sums.get(&e.ino) else {
            trees.wanted.insert(e.ino);
            return Ok(());
        };
        if trees.rounds < SUMS_MAX {
            if sum.records.iter().any(|(dir, stat)| t.dir_stat_changed(*dir, stat)) {
                trees.wanted.insert(e.ino);
                return Ok(());
            }
            sum.guards().for_each(|guard| t.guard(guard));
        }
        t.charges.dir(from, -sum.amount.0, -sum.amount.1);
        t.charges.dir(to, sum.amount.0, sum.amount.1);
        Ok(())
    }

    /// Computes the sums that are wanted.
    pub(super) async fn sum_trees(&self, trees: &mut Trees) -> Result<()> {
        trees.rounds += 1;
        for top in std::mem::take(&mut trees.wanted) {
            match self.sum_tree(top).await {
                // Somebody moved a directory within the tree meanwhile, and it was met twice: it is wanted once more.
                Err(e) if e.errno() == Errno::ELOOP && trees.rounds < SUMS_MAX => {}
                sum => _ = trees.sums.insert(top, sum?),
            }
        }
        Ok(())
    }

    /// Bytes and inodes below a directory, itself not counted, from the usage records.
    pub(super) async fn sum_tree(&self, top: Ino) -> Result<Sum> {
        let mut sum = Sum { amount: (0, 0), records: Vec::new() };
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
                        sum.records.push((*dir, stat));
                    }
                }
            }
            level = next;
        }
        Ok(sum)
    }
}
