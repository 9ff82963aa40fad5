//! What this client knows of usage and limits: of the volume, and of quotas.
//!
//! Figures here are beliefs. An operation that relies on one sends it along as a guard; only checks before data is
//! buffered rest on them alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use ciderfs_format::Ino;
use ciderfs_format::quota::Quota;
use parking_lot::{Mutex, RwLock};

use crate::store::QuotaKey;

/// Directories remembered as lacking a usage record; more are left to the next operation in them.
const MISSING_STATS_MAX: usize = 10_000;

/// Something that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The volume.
    Volume,
    /// A quota.
    Quota(QuotaKey),
}

/// Usage and limits as last seen, and what is claimed here for data not committed yet.
#[derive(Default)]
pub(crate) struct Ledger {
    space: AtomicI64,
    inodes: AtomicI64,
    quotas: RwLock<HashMap<QuotaKey, Quota>>,
    /// Quotas of directories.
    dirs: AtomicUsize,
    /// Quotas with a limit.
    limited: AtomicUsize,
    /// Bytes that buffered writes will take, by what limits them.
    claimed: Mutex<HashMap<Place, i64>>,
    missing_stats: Mutex<HashSet<Ino>>,
}

impl Ledger {
    /// Bytes used by the volume.
    pub(crate) fn space(&self) -> i64 {
        self.space.load(Ordering::Relaxed)
    }

    /// Inodes used by the volume.
    pub(crate) fn inodes(&self) -> i64 {
        self.inodes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_space(&self, n: i64) {
        self.space.store(n, Ordering::Relaxed);
    }

    pub(crate) fn set_inodes(&self, n: i64) {
        self.inodes.store(n, Ordering::Relaxed);
    }

    /// Limits and usage of a quota.
    pub(crate) fn quota(&self, key: QuotaKey) -> Option<Quota> {
        self.quotas.read().get(&key).copied()
    }

    /// Has any directory a quota?
    pub(crate) fn has_dir_quotas(&self) -> bool {
        self.dirs.load(Ordering::Relaxed) > 0
    }

    /// Has any quota a limit?
    pub(crate) fn has_limits(&self) -> bool {
        self.limited.load(Ordering::Relaxed) > 0
    }

    /// Replaces all that is known of quotas.
    pub(crate) fn set_quotas(&self, quotas: HashMap<QuotaKey, Quota>) {
        let mut table = self.quotas.write();
        *table = quotas;
        self.recount(&table);
    }

    /// All quotas.
    pub(crate) fn quotas(&self) -> Vec<(QuotaKey, Quota)> {
        self.quotas.read().iter().map(|(key, quota)| (*key, *quota)).collect()
    }

    /// Directories with a quota.
    pub(crate) fn quota_dirs(&self) -> HashSet<Ino> {
        let dir = |key: &QuotaKey| if let QuotaKey::Dir(ino) = key { Some(*ino) } else { None };
        self.quotas.read().keys().filter_map(dir).collect()
    }

    /// Learns about one quota; `None` if there is none.
    pub(crate) fn learn(&self, key: QuotaKey, quota: Option<Quota>) {
        let mut table = self.quotas.write();
        match quota {
            Some(q) => {
                table.insert(key, q);
            }
            None => {
                table.remove(&key);
            }
        }
        self.recount(&table);
    }

    /// Adds what this client has just committed.
    pub(crate) fn add(&self, key: QuotaKey, space: i64, inodes: i64) {
        if let Some(q) = self.quotas.write().get_mut(&key) {
            q.used_space += space;
            q.used_inodes += inodes;
        }
    }

    /// A quota that is gone, if it is known at all.
    pub(crate) fn forget(&self, key: QuotaKey) {
        if self.quota(key).is_some() {
            self.learn(key, None);
        }
    }

    fn recount(&self, table: &HashMap<QuotaKey, Quota>) {
        let dirs = table.keys().filter(|k| matches!(k, QuotaKey::Dir(_))).count();
        let limited = table.values().filter(|q| q.limits.max_space > 0 || q.limits.max_inodes > 0).count();
        self.dirs.store(dirs, Ordering::Relaxed);
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Bytes claimed for buffered writes.
    pub(crate) fn claimed(&self, place: Place) -> i64 {
        self.claimed.lock().get(&place).copied().unwrap_or(0)
    }

    pub(crate) fn note_missing_stat(&self, dir: Ino) {
        let mut set = self.missing_stats.lock();
        if set.len() < MISSING_STATS_MAX {
            set.insert(dir);
        }
    }

    pub(crate) fn take_missing_stats(&self) -> Vec<Ino> {
        self.missing_stats.lock().drain().collect()
    }
}

/// Bytes that buffered writes of one file will take when they are committed. They count against every limit that binds the
/// file, so that what was accepted has room later. Given back when dropped.
pub struct Claim {
    ledger: Arc<Ledger>,
    bytes: i64,
    places: Vec<Place>,
}

/// A limit as a claim sees it: what binds, used bytes, most bytes.
pub(crate) struct Limit {
    pub(crate) place: Place,
    pub(crate) used: i64,
    pub(crate) most: i64,
}

impl Claim {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, bytes: 0, places: Vec::new() }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes.max(0) as u64
    }

    /// Raises the claim to `bytes` under these limits, in their order; the first one that has no room is returned.
    pub(crate) fn raise(&mut self, bytes: i64, limits: &[Limit]) -> Result<(), Place> {
        let ledger = Arc::clone(&self.ledger);
        let mut claimed = ledger.claimed.lock();
        for l in limits {
            let mine = if self.places.contains(&l.place) { self.bytes } else { 0 };
            let others = claimed.get(&l.place).map_or(0, |n| n - mine);
            if l.used.saturating_add(others).saturating_add(bytes) > l.most {
                return Err(l.place);
            }
        }
        self.release(&mut claimed);
        self.bytes = bytes;
        self.places.extend(limits.iter().map(|l| l.place));
        for place in &self.places {
            *claimed.entry(*place).or_default() += bytes;
        }
        Ok(())
    }

    /// Lowers the claim to what is still to be committed.
    pub fn lower(&mut self, bytes: u64) {
        let bytes = bytes as i64;
        if bytes >= self.bytes {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let mut claimed = ledger.claimed.lock();
        let places = self.places.clone();
        self.release(&mut claimed);
        if bytes > 0 {
            for place in &places {
                *claimed.entry(*place).or_default() += bytes;
            }
            self.places = places;
            self.bytes = bytes;
        }
    }

    fn release(&mut self, claimed: &mut HashMap<Place, i64>) {
        for place in self.places.drain(..) {
            let left = claimed.get_mut(&place).map(|n| {
                *n -= self.bytes;
                *n
            });
            if left.is_some_and(|n| n <= 0) {
                claimed.remove(&place);
            }
        }
        self.bytes = 0;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        self.release(&mut ledger.claimed.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(used: i64, most: i64) -> Vec<Limit> {
        vec![Limit { place: Place::Volume, used, most }]
    }

    #[test]
    fn claims_share_a_limit() {
        let ledger = Arc::new(Ledger::default());
        let (mut a, mut b) = (Claim::new(Arc::clone(&ledger)), Claim::new(Arc::clone(&ledger)));
        a.raise(60, &volume(0, 100)).unwrap();
        assert_eq!(b.raise(60, &volume(0, 100)), Err(Place::Volume));
        assert_eq!(b.bytes(), 0);
        b.raise(40, &volume(0, 100)).unwrap();
        // Its own claim does not stand in the way of a file.
        a.raise(60, &volume(0, 100)).unwrap();
        assert_eq!(a.raise(61, &volume(0, 100)), Err(Place::Volume));
        assert_eq!(a.bytes(), 60);
        a.lower(10);
        assert_eq!(ledger.claimed(Place::Volume), 50);
        a.lower(20);
        assert_eq!(a.bytes(), 10);
        drop(b);
        assert_eq!(ledger.claimed(Place::Volume), 10);
        drop(a);
        assert_eq!(ledger.claimed(Place::Volume), 0);
        assert!(ledger.claimed.lock().is_empty());
    }

    #[test]
    fn the_first_full_limit_is_named() {
        let ledger = Arc::new(Ledger::default());
        let user = Place::Quota(QuotaKey::User(7));
        let mut claim = Claim::new(Arc::clone(&ledger));
        let limits = |most| {
            vec![Limit { place: user, used: 5, most }, Limit { place: Place::Volume, used: 5, most: 100 }]
        };
        assert_eq!(claim.raise(6, &limits(10)), Err(user));
        claim.raise(5, &limits(10)).unwrap();
        assert_eq!(claim.raise(96, &limits(1000)), Err(Place::Volume));
        // Limits that came and went are given back all the same.
        claim.raise(3, &volume(0, 100)).unwrap();
        assert_eq!((ledger.claimed(user), ledger.claimed(Place::Volume)), (0, 3));
    }
}
