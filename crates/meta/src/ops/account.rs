//! Limits and usage: what an operation takes is checked, guarded and charged in its commit.
//!
//! Usage of the volume, of owners and of every directory with a quota above the change rides in the commit of the change
//! itself, so it equals what a walk would find, whatever happens to the client. A limit is checked against what is
//! believed and guarded, so that clients of this kind never exceed one together; the official client charges every few
//! seconds, and what it has not charged yet nobody sees (`docs/format/quotas.md#how-usage-is-kept`).
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::BTreeMap;

use ciderfs_format::Ino;
use ciderfs_format::quota::Quota;

use crate::charges::{Amount, Charges, add};
use crate::error::Errno;
use crate::ledger::{Hold, Place};
use crate::store::{AttrMask, Counter, Guard, QuotaKey, Write};
use crate::txn::{Step, Txn};
use crate::volume::Meta;

/// Directories above one; a longer way is a loop.
pub(crate) const DEPTH_MAX: usize = 10_000;

/// What the smallest file with data takes, in bytes.
const BLOCK: i64 = 4096;
/// The most bytes, and the most inodes, that any volume holds: sums stay far from the end of 64 bits, where an engine, or another
/// client, could not add to them any more.
const IMPLIED_LIMIT: i64 = 1 << 62;
/// As long as less is used, a volume without a limit costs no guard.
const FAR_FROM_FULL: i64 = IMPLIED_LIMIT / 2;

/// What a limit in the settings means, for a volume that uses so much as far as is known; `None`: nothing to check.
pub(crate) fn volume_limit(limit: u64, used: i64) -> Option<i64> {
    if limit == 0 && used < FAR_FROM_FULL {
        return None;
    }
    let limit = i64::try_from(limit).unwrap_or(IMPLIED_LIMIT).min(IMPLIED_LIMIT);
    Some(if limit == 0 { IMPLIED_LIMIT } else { limit })
}

impl Meta {
    /// Checks what the operation takes and buffers the charges. Order: user, group, capacity, inodes, directories.
    pub(crate) fn account(&self, t: &mut Txn<'_>) -> Step<()> {
        let charges = std::mem::take(&mut t.charges);
        if charges.is_empty() {
            return Ok(());
        }
        let by_owner = if self.settings().user_group_quota { &charges.owners } else { &BTreeMap::new() };
        let by_dir = self.by_quota_dir(t, &charges)?;
        let hold = self.hold(&charges, by_owner.iter().chain(&by_dir));
        for (key, amount) in by_owner {
            self.require_quota(t, &charges, &hold, *key, *amount)?;
        }
        self.require_volume(t, &charges, &hold)?;
        for (key, amount) in &by_dir {
            self.require_quota(t, &charges, &hold, *key, *amount)?;
        }
        if charges.probe {
            return Ok(());
        }
        t.hold = Some(hold);
        for (counter, n) in [(Counter::UsedSpace, charges.volume.0), (Counter::TotalInodes, charges.volume.1)]
        {
            if n != 0 {
                t.write(Write::AddCounter(counter, n));
            }
        }
        for (key, amount) in by_owner.iter().chain(&by_dir) {
            if *amount != (0, 0) {
                t.write(Write::AddQuota(*key, amount.0, amount.1));
            }
        }
        Ok(())
    }

    /// Holds what the operation takes, but for what is claimed already. Before its checks: a claim that is raised meanwhile is
    /// either seen by them or sees what is held.
    fn hold<'a>(&self, charges: &Charges, quotas: impl Iterator<Item = (&'a QuotaKey, &'a Amount)>) -> Hold {
        let volume = std::iter::once((Place::Volume, charges.volume.0));
        let places = volume.chain(quotas.map(|(key, amount)| (Place::Quota(*key), amount.0)));
        let held = places.filter(|(_, bytes)| *bytes > 0 && !charges.claimed && !charges.probe);
        Hold::new(&self.ledger, held.collect())
    }

    /// Are there usage records of directories, and quotas?
    pub(crate) fn counted_dirs(&self) -> (bool, bool) {
        (self.settings().dir_stats, self.ledger.has_dir_quotas())
    }

    /// Growth of each directory with a quota, at any depth above what grew.
    fn by_quota_dir(&self, t: &mut Txn<'_>, charges: &Charges) -> Step<BTreeMap<QuotaKey, Amount>> {
        let mut out: BTreeMap<QuotaKey, Amount> = BTreeMap::new();
        if !self.ledger.has_dir_quotas() {
            return Ok(out);
        }
        for (dir, amount) in charges.dirs.iter().filter(|(_, amount)| **amount != (0, 0)) {
            for above in self.quota_dirs_above(t, *dir)? {
                add(out.entry(QuotaKey::Dir(above)).or_default(), amount.0, amount.1);
            }
        }
        Ok(out)
    }

    /// Directories with a quota from `dir` upwards, `dir` included. Every step is guarded: a directory that is moved
    /// elsewhere at the same time takes this change along.
    pub(crate) fn quota_dirs_above(&self, t: &mut Txn<'_>, dir: Ino) -> Step<Vec<Ino>> {
        let mut out = Vec::new();
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            // The trash is under nobody's quota.
            if at.0 == 0 || at.is_trash() {
                break;
            }
            if self.ledger.quota(QuotaKey::Dir(at)).is_some() {
                // On a damaged volume a way may lead back to where it was.
                if out.contains(&at) {
                    break;
                }
                out.push(at);
            }
            if at == Ino::ROOT {
                break;
            }
            match t.attr_opt(at, AttrMask::IDENTITY)? {
                Some(a) => at = a.parent,
                None => break,
            }
        }
        Ok(out)
    }

    fn require_volume(&self, t: &mut Txn<'_>, charges: &Charges, hold: &Hold) -> Step<()> {
        let s = self.settings();
        let claimed = if charges.claimed { 0 } else { hold.others(Place::Volume) };
        let limits = [
            (Counter::UsedSpace, s.capacity, charges.volume.0, claimed, self.ledger.space()),
            (Counter::TotalInodes, s.inodes, charges.volume.1, 0, self.ledger.inodes()),
        ];
        for (counter, limit, more, claimed, believed) in limits {
            let limit = volume_limit(limit, believed.saturating_add(more));
            let Some(limit) = limit.filter(|_| more > 0 && !charges.exempt) else { continue };
            let most = limit.saturating_sub(more).saturating_sub(claimed);
            let used = t.counter_or(counter, believed);
            if used > most {
                return Err(Errno::ENOSPC.into());
            }
            t.guard(Guard::CounterRoom(counter, most));
        }
        Ok(())
    }

    /// Has the volume room for another block? If so it is guarded.
    pub(crate) fn require_free_block(&self, t: &mut Txn<'_>) -> bool {
        let Some(limit) = volume_limit(self.settings().capacity, self.ledger.space()) else { return true };
        let most = limit.saturating_sub(BLOCK).saturating_sub(self.ledger.claimed(Place::Volume));
        let free = t.counter_or(Counter::UsedSpace, self.ledger.space()) <= most;
        if free {
            t.guard(Guard::CounterRoom(Counter::UsedSpace, most));
        }
        free
    }

    fn require_quota(
        &self,
        t: &mut Txn<'_>,
        charges: &Charges,
        hold: &Hold,
        key: QuotaKey,
        more: Amount,
    ) -> Step<()> {
        if (more.0 <= 0 && more.1 <= 0) || charges.exempt {
            return Ok(());
        }
        // Asked for before the usage: what is committed meanwhile is then counted twice, not never.
        let claimed = if charges.claimed { 0 } else { hold.others(Place::Quota(key)) };
        let Some(believed) = self.ledger.quota(key).filter(is_limited) else { return Ok(()) };
        let Some(q) = t.quota_or(key, believed).filter(is_limited) else { return Ok(()) };
        let space = room(q.limits.max_space, more.0, claimed);
        let inodes = room(q.limits.max_inodes, more.1, 0);
        if q.used_space > space || q.used_inodes > inodes {
            return Err(Errno::EDQUOT.into());
        }
        t.guard(Guard::QuotaRoom { key, space, inodes });
        Ok(())
    }
}

fn is_limited(q: &Quota) -> bool {
    q.limits.max_space > 0 || q.limits.max_inodes > 0
}

/// The most that may be used already if `more` is to fit; what is not limited, or does not grow, fits always.
fn room(limit: i64, more: i64, claimed: i64) -> i64 {
    if limit <= 0 || more <= 0 { i64::MAX } else { limit.saturating_sub(more).saturating_sub(claimed) }
}
