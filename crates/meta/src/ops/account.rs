//! Limits and usage: what an operation takes is checked, guarded and charged in its commit.
//!
//! Usage of the volume, of owners and of every directory with a quota above the change rides in the commit of the change
//! itself, so it equals what a walk would find, whatever happens to the client. A limit is checked against what is
//! believed and guarded, so that clients of this kind never exceed one together; the official client charges every few
//! seconds, and what it has not charged yet nobody sees (`spec/meta-redis.md` 4.11).

use std::collections::BTreeMap;

use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Ino};

use crate::charges::{Amount, Charges, add};
use crate::error::{Errno, Result};
use crate::ledger::{Claim, Limit, Place};
use crate::store::{AttrMask, Counter, Guard, QuotaKey, Read, Scan, Scanned, Value, Write};
use crate::txn::{Step, Txn};
use crate::volume::Meta;

/// Directories above one; a longer way is a loop.
pub(crate) const DEPTH_MAX: usize = 10_000;

impl Meta {
    /// Checks what the operation takes and buffers the charges. Order: user, group, capacity, inodes, directories.
    pub(crate) fn account(&self, t: &mut Txn<'_>) -> Step<()> {
        let charges = std::mem::take(&mut t.charges);
        if charges.is_empty() {
            return Ok(());
        }
        let by_owner = if self.settings().user_group_quota { &charges.owners } else { &BTreeMap::new() };
        let by_dir = self.by_quota_dir(t, &charges)?;
        for (key, amount) in by_owner {
            self.require_quota(t, &charges, *key, *amount)?;
        }
        self.require_volume(t, &charges)?;
        for (key, amount) in &by_dir {
            self.require_quota(t, &charges, *key, *amount)?;
        }
        if charges.probe {
            return Ok(());
        }
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

    fn require_volume(&self, t: &mut Txn<'_>, charges: &Charges) -> Step<()> {
        let s = self.settings();
        let claimed = if charges.claimed { 0 } else { self.ledger.claimed(Place::Volume) };
        let limits = [
            (Counter::UsedSpace, s.capacity, charges.volume.0, claimed, self.ledger.space()),
            (Counter::TotalInodes, s.inodes, charges.volume.1, 0, self.ledger.inodes()),
        ];
        for (counter, limit, more, claimed, believed) in limits {
            if limit == 0 || more <= 0 || charges.exempt {
                continue;
            }
            let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_sub(more).saturating_sub(claimed);
            let used = t.counter_or(counter, believed);
            if used > most {
                return Err(Errno::ENOSPC.into());
            }
            t.guard(Guard::CounterRoom(counter, most));
        }
        Ok(())
    }

    fn require_quota(&self, t: &mut Txn<'_>, charges: &Charges, key: QuotaKey, more: Amount) -> Step<()> {
        if (more.0 <= 0 && more.1 <= 0) || charges.exempt {
            return Ok(());
        }
        let Some(believed) = self.ledger.quota(key).filter(is_limited) else { return Ok(()) };
        let Some(q) = t.quota_or(key, believed).filter(is_limited) else { return Ok(()) };
        let claimed = if charges.claimed { 0 } else { self.ledger.claimed(Place::Quota(key)) };
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

/// Room for writes that are buffered first and committed later.
impl Meta {
    /// A claim without bytes, for a file that is to be written.
    pub fn claim_room(&self) -> Claim {
        Claim::new(std::sync::Arc::clone(&self.ledger))
    }

    /// Raises a claim to `bytes`, the growth of the file in whole blocks since its last commit. Rests on what is known
    /// here, without a turn; after [`Meta::refresh_room`] the answer rests on fetched values. A file with several names is
    /// not checked against the quotas of their directories before its commit.
    ///
    /// # Errors
    /// `EDQUOT`, `ENOSPC`; the claim is then what it was.
    pub fn raise_claim(&self, claim: &mut Claim, attr: &Attr, bytes: u64) -> Result<()> {
        let capacity = self.settings.read().capacity;
        if capacity == 0 && !self.ledger.has_limits() {
            return Ok(());
        }
        let limits: Vec<Limit> = self
            .places_of(attr)
            .into_iter()
            .filter_map(|place| match place {
                Place::Volume => Some(Limit {
                    place,
                    used: self.ledger.space(),
                    most: i64::try_from(capacity).ok().filter(|c| *c > 0)?,
                }),
                Place::Quota(key) => {
                    let q = self.ledger.quota(key).filter(|q| q.limits.max_space > 0)?;
                    Some(Limit { place, used: q.used_space, most: q.limits.max_space })
                }
            })
            .collect();
        claim.raise(bytes as i64, &limits).map_err(|place| match place {
            Place::Volume => Errno::ENOSPC.into(),
            Place::Quota(_) => Errno::EDQUOT.into(),
        })
    }

    /// Fetches all quotas. Those that are gone bind nobody any more.
    pub(crate) async fn reload_quotas(&self) -> Result<()> {
        let mut rows = self.scan(Scan::DirQuotas, usize::MAX).await?;
        if self.settings().user_group_quota {
            rows.extend(self.scan(Scan::OwnerQuotas, usize::MAX).await?);
        }
        let rows = rows.into_iter();
        self.ledger.set_quotas(
            rows.filter_map(|r| if let Scanned::Quota(k, q) = r { Some((k, q)) } else { None }).collect(),
        );
        Ok(())
    }

    /// Fetches the figures that bind a file, in one turn.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn refresh_room(&self, attr: &Attr) -> Result<()> {
        let mut reads = vec![Read::Counter(Counter::UsedSpace), Read::Counter(Counter::TotalInodes)];
        reads.extend(self.places_of(attr).into_iter().filter_map(|p| match p {
            Place::Quota(key) => Some(Read::Quota(key)),
            Place::Volume => None,
        }));
        let values = self.read(&reads).await?;
        for (read, value) in reads.iter().zip(&values) {
            self.note_figures(read, value);
        }
        Ok(())
    }

    /// Keeps what a fetched record says about usage.
    pub(crate) fn note_figures(&self, read: &Read, value: &Value) {
        match (read, value) {
            (Read::Counter(Counter::UsedSpace), Value::Int(n)) => self.ledger.set_space(*n),
            (Read::Counter(Counter::TotalInodes), Value::Int(n)) => self.ledger.set_inodes(*n),
            (Read::Quota(key), Value::Quota(q)) => self.ledger.learn(*key, *q),
            _ => {}
        }
    }

    /// What limits the growth of a file, in the order of the checks, as far as it is known without asking.
    fn places_of(&self, attr: &Attr) -> Vec<Place> {
        let mut out = Vec::new();
        if self.settings.read().user_group_quota {
            out.push(Place::Quota(QuotaKey::User(attr.uid)));
            out.push(Place::Quota(QuotaKey::Group(attr.gid)));
        }
        out.push(Place::Volume);
        if !self.ledger.has_dir_quotas() || attr.nlink == 0 {
            return out;
        }
        let mut at = attr.parent;
        for _ in 0..DEPTH_MAX {
            if at.0 == 0 || at.is_trash() {
                break;
            }
            if self.ledger.quota(QuotaKey::Dir(at)).is_some() {
                out.push(Place::Quota(QuotaKey::Dir(at)));
            }
            match self.beliefs.attr(at) {
                Some(a) if at != Ino::ROOT => at = a.parent,
                _ => break,
            }
        }
        out
    }
}
