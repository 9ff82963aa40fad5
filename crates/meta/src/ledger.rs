//! What this client knows of usage and limits: of the volume, and of quotas.
//!
//! Figures here are beliefs. An operation that relies on one sends it along as a guard; only checks before data is
//! buffered rest on them alone. So that what was accepted has room later, the figures are never too small by what this
//! client itself takes: each byte is counted as claimed, as held by an operation under way, or as used, and where two
//! requests cross each other, so that the order of their answers does not tell whether a figure holds a change, twice
//! rather than not at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciderfs_format::Ino;
use ciderfs_format::quota::{Quota, QuotaLimits};
use parking_lot::Mutex;

use crate::figure::Figure;
use crate::store::QuotaKey;

/// Directories remembered as lacking a usage record; more are left to the next operation in them.
const MISSING_STATS_MAX: usize = 10_000;

/// Something that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The volume.
    Volume,
    /// A quota.
    Quota(QuotaKey),
}

impl Place {
    /// Which of several full ones is told, as [`crate::Meta::account`] checks them.
    fn rank(self) -> u8 {
        match self {
            Self::Quota(QuotaKey::User(_)) => 0,
            Self::Quota(QuotaKey::Group(_)) => 1,
            Self::Volume => 2,
            Self::Quota(QuotaKey::Dir(_)) => 3,
        }
    }
}

/// What limits the growth of a file, and how often a byte of it counts there: a directory pays for each name.
pub(crate) type Places = BTreeMap<Place, i64>;

/// What limits the growth of a file.
#[derive(Debug, Clone)]
pub struct ClaimPlaces(pub(crate) Places);

/// Usage and limits as last seen, and what is claimed here for data not committed yet.
#[derive(Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
    /// Quotas of directories.
    dirs: AtomicUsize,
    /// Quotas with a limit.
    limited: AtomicUsize,
    missing_stats: Mutex<HashSet<Ino>>,
}

#[derive(Default)]
struct Books {
    /// Counts requests and answers.
    clock: u64,
    /// Requests under way that may tell a figure, by the moment when they were sent, ascending.
    asked: Vec<u64>,
    space: Figure,
    inodes: Figure,
    quotas: HashMap<QuotaKey, Account>,
    /// Bytes that buffered writes and operations under way will take, by what limits them.
    claimed: HashMap<Place, i64>,
}

/// A quota as last seen.
struct Account {
    limits: QuotaLimits,
    space: Figure,
    inodes: Figure,
}

impl Account {
    fn new(limits: QuotaLimits) -> Self {
        Self { limits, space: Figure::default(), inodes: Figure::default() }
    }

    fn quota(&self) -> Quota {
        Quota { limits: self.limits, used_space: self.space.used(), used_inodes: self.inodes.used() }
    }
}

impl Books {
    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The moment of the oldest request under way that may still tell a figure, but for the one sent at `but`.
    fn oldest(&self, but: u64) -> Option<u64> {
        self.asked.iter().copied().find(|at| *at != but)
    }

    fn learn(&mut self, key: QuotaKey, quota: Option<Quota>, asked: u64) {
        let now = self.now();
        match quota {
            Some(q) => {
                let account = self.quotas.entry(key).or_insert_with(|| Account::new(q.limits));
                account.limits = q.limits;
                account.space.tell(asked, now, q.used_space);
                account.inodes.tell(asked, now, q.used_inodes);
            }
            None => _ = self.quotas.remove(&key),
        }
    }

    fn used(&self, place: Place) -> i64 {
        match place {
            Place::Volume => self.space.used(),
            Place::Quota(key) => self.quotas.get(&key).map_or(0, |a| a.space.used()),
        }
    }

    /// Most bytes that may be used.
    fn most(&self, place: Place, capacity: i64) -> Option<i64> {
        let most = match place {
            Place::Volume => capacity,
            Place::Quota(key) => self.quotas.get(&key)?.limits.max_space,
        };
        Some(most).filter(|n| *n > 0)
    }

    fn hold(&mut self, places: &Places, bytes: i64) {
        for (place, times) in places {
            let n = self.claimed.entry(*place).or_default();
            *n = n.saturating_add(bytes.saturating_mul(*times));
            if *n == 0 {
                self.claimed.remove(place);
            }
        }
    }
}

/// A request under way. What it tells was so after it was sent.
pub(crate) struct Asked {
    ledger: Arc<Ledger>,
    at: u64,
}

impl Asked {
    /// Bytes used by the volume.
    pub(crate) fn space(&self, n: i64) {
        let mut books = self.ledger.books.lock();
        let now = books.now();
        books.space.tell(self.at, now, n);
    }

    /// Inodes used by the volume.
    pub(crate) fn inodes(&self, n: i64) {
        let mut books = self.ledger.books.lock();
        let now = books.now();
        books.inodes.tell(self.at, now, n);
    }

    /// A quota; `None` if there is none.
    pub(crate) fn quota(&self, key: QuotaKey, quota: Option<Quota>) {
        let mut books = self.ledger.books.lock();
        books.learn(key, quota, self.at);
        self.ledger.recount(&books);
    }

    /// All quotas there are.
    pub(crate) fn quotas(&self, quotas: HashMap<QuotaKey, Quota>) {
        let mut books = self.ledger.books.lock();
        books.quotas.retain(|key, _| quotas.contains_key(key));
        for (key, quota) in quotas {
            books.learn(key, Some(quota), self.at);
        }
        self.ledger.recount(&books);
    }

    /// This request has changed the volume's space, and told the figure with it, if its answer has come.
    pub(crate) fn took_space(&self, more: i64, told: Option<i64>) {
        let mut books = self.ledger.books.lock();
        let (now, oldest) = (books.now(), books.oldest(self.at));
        books.space.land(self.at, now, more, told, oldest);
    }

    /// The same for inodes.
    pub(crate) fn took_inodes(&self, more: i64, told: Option<i64>) {
        let mut books = self.ledger.books.lock();
        let (now, oldest) = (books.now(), books.oldest(self.at));
        books.inodes.land(self.at, now, more, told, oldest);
    }

    /// This request has changed the usage of a quota.
    pub(crate) fn took_quota(&self, key: QuotaKey, space: i64, inodes: i64) {
        let mut books = self.ledger.books.lock();
        let (now, oldest) = (books.now(), books.oldest(self.at));
        if let Some(account) = books.quotas.get_mut(&key) {
            account.space.land(self.at, now, space, None, oldest);
            account.inodes.land(self.at, now, inodes, None, oldest);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut books = self.ledger.books.lock();
        books.asked.retain(|at| *at != self.at);
    }
}

impl Ledger {
    /// A request is about to be sent that may tell figures or change them.
    pub(crate) fn ask(self: &Arc<Self>) -> Asked {
        let mut books = self.books.lock();
        let at = books.now();
        books.asked.push(at);
        Asked { ledger: Arc::clone(self), at }
    }

    /// Bytes used by the volume.
    pub(crate) fn space(&self) -> i64 {
        self.books.lock().space.used()
    }

    /// Inodes used by the volume.
    pub(crate) fn inodes(&self) -> i64 {
        self.books.lock().inodes.used()
    }

    /// Limits and usage of a quota.
    pub(crate) fn quota(&self, key: QuotaKey) -> Option<Quota> {
        self.books.lock().quotas.get(&key).map(Account::quota)
    }

    /// Has any directory a quota?
    pub(crate) fn has_dir_quotas(&self) -> bool {
        self.dirs.load(Ordering::Relaxed) > 0
    }

    /// Has any quota a limit?
    pub(crate) fn has_limits(&self) -> bool {
        self.limited.load(Ordering::Relaxed) > 0
    }

    /// All quotas.
    pub(crate) fn quotas(&self) -> Vec<(QuotaKey, Quota)> {
        self.books.lock().quotas.iter().map(|(key, account)| (*key, account.quota())).collect()
    }

    /// Directories with a quota.
    pub(crate) fn quota_dirs(&self) -> HashSet<Ino> {
        let dir = |key: &QuotaKey| if let QuotaKey::Dir(ino) = key { Some(*ino) } else { None };
        self.books.lock().quotas.keys().filter_map(dir).collect()
    }

    /// A quota that is gone, if it is known at all.
    pub(crate) fn forget(&self, key: QuotaKey) {
        let mut books = self.books.lock();
        if books.quotas.remove(&key).is_some() {
            self.recount(&books);
        }
    }

    fn recount(&self, books: &Books) {
        let dirs = books.quotas.keys().filter(|k| matches!(k, QuotaKey::Dir(_))).count();
        let limited =
            books.quotas.values().filter(|a| a.limits.max_space > 0 || a.limits.max_inodes > 0).count();
        self.dirs.store(dirs, Ordering::Relaxed);
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Bytes claimed for buffered writes, or held by operations under way.
    pub(crate) fn claimed(&self, place: Place) -> i64 {
        self.books.lock().claimed.get(&place).copied().unwrap_or(0)
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

/// Bytes that an operation takes which is not committed yet: whoever claims room meanwhile must see them, or both would be
/// given the same room. Given back when dropped, which is after its figures are entered.
pub struct Hold {
    ledger: Arc<Ledger>,
    held: Vec<(Place, i64)>,
}

impl Hold {
    pub(crate) fn new(ledger: &Arc<Ledger>, held: Vec<(Place, i64)>) -> Self {
        let mut books = ledger.books.lock();
        for (place, bytes) in &held {
            books.hold(&Places::from([(*place, 1)]), *bytes);
        }
        drop(books);
        Self { ledger: Arc::clone(ledger), held }
    }

    /// What others have claimed.
    pub(crate) fn others(&self, place: Place) -> i64 {
        let mine: i64 = self.held.iter().filter(|(p, _)| *p == place).map(|(_, bytes)| bytes).sum();
        self.ledger.claimed(place).saturating_sub(mine)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut books = self.ledger.books.lock();
        for (place, bytes) in &self.held {
            books.hold(&Places::from([(*place, 1)]), -bytes);
        }
    }
}

/// Bytes that buffered writes of one file will take when they are committed. They count against every limit that binds the
/// file, so that what was accepted has room later. Given back when dropped.
pub struct Claim {
    ledger: Arc<Ledger>,
    bytes: i64,
    places: Places,
    /// Were the places looked for since nothing was claimed?
    placed: bool,
}

impl Claim {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, bytes: 0, places: Places::new(), placed: false }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes.max(0) as u64
    }

    /// What limits the file, as last said.
    pub fn places(&self) -> ClaimPlaces {
        ClaimPlaces(self.places.clone())
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.placed
    }

    /// Says what limits the file. Bytes that are held move there.
    pub fn place(&mut self, places: ClaimPlaces) {
        let mut books = self.ledger.books.lock();
        books.hold(&self.places, -self.bytes);
        books.hold(&places.0, self.bytes);
        drop(books);
        (self.places, self.placed) = (places.0, true);
    }

    /// Raises the claim to `bytes`, if all limits have room; the first one that has none is returned.
    pub(crate) fn raise(&mut self, bytes: i64, capacity: i64) -> Result<(), Place> {
        let more = bytes.saturating_sub(self.bytes);
        let mut books = self.ledger.books.lock();
        let full = self.places.iter().filter(|(place, times)| {
            let Some(most) = books.most(**place, capacity) else { return false };
            let claimed = books.claimed.get(place).copied().unwrap_or(0);
            let claimed = claimed.saturating_add(more.saturating_mul(**times));
            books.used(**place).saturating_add(claimed) > most
        });
        if let Some((place, _)) = full.min_by_key(|(place, _)| place.rank()) {
            self.placed &= self.bytes > 0;
            return Err(*place);
        }
        books.hold(&self.places, more);
        drop(books);
        (self.bytes, self.placed) = (bytes, true);
        Ok(())
    }

    /// Sets the claim to what is still to be committed, whether there is room or not.
    pub fn settle(&mut self, bytes: u64) {
        let bytes = bytes as i64;
        if self.placed && bytes != self.bytes {
            self.ledger.books.lock().hold(&self.places, bytes - self.bytes);
            self.bytes = bytes;
            self.placed = bytes > 0;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: QuotaKey = QuotaKey::User(7);

    fn ledger(used: i64) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::default());
        ledger.ask().space(used);
        ledger
    }

    fn claim(ledger: &Arc<Ledger>, places: &[(Place, i64)]) -> Claim {
        let mut claim = Claim::new(Arc::clone(ledger));
        claim.place(ClaimPlaces(places.iter().copied().collect()));
        claim
    }

    fn volume(ledger: &Arc<Ledger>) -> Claim {
        claim(ledger, &[(Place::Volume, 1)])
    }

    #[test]
    fn claims_share_a_limit() {
        let ledger = ledger(0);
        let (mut a, mut b) = (volume(&ledger), volume(&ledger));
        a.raise(60, 100).unwrap();
        assert_eq!(b.raise(60, 100), Err(Place::Volume));
        assert_eq!(b.bytes(), 0);
        b.raise(40, 100).unwrap();
        // Its own claim does not stand in the way of a file.
        a.raise(60, 100).unwrap();
        assert_eq!(a.raise(61, 100), Err(Place::Volume));
        assert_eq!(a.bytes(), 60);
        a.settle(10);
        assert_eq!(ledger.claimed(Place::Volume), 50);
        // What must be held is held, room or not.
        a.settle(80);
        assert_eq!(ledger.claimed(Place::Volume), 120);
        drop(b);
        assert_eq!(ledger.claimed(Place::Volume), 80);
        drop(a);
        assert_eq!(ledger.claimed(Place::Volume), 0);
        assert!(ledger.books.lock().claimed.is_empty());
    }

    #[test]
    fn the_first_full_limit_is_named_and_names_count() {
        let ledger = ledger(5);
        let limits = QuotaLimits { max_space: 10, max_inodes: 0 };
        ledger.ask().quota(USER, Some(Quota { limits, used_space: 5, used_inodes: 0 }));
        let user = Place::Quota(USER);
        let mut a = claim(&ledger, &[(Place::Volume, 1), (user, 2)]);
        assert_eq!(a.raise(3, 1000), Err(user));
        a.raise(2, 1000).unwrap();
        assert_eq!(ledger.claimed(user), 4);
        let free = QuotaLimits { max_space: 0, max_inodes: 0 };
        ledger.ask().quota(USER, Some(Quota { limits: free, used_space: 5, used_inodes: 0 }));
        assert_eq!(a.raise(96, 100), Err(Place::Volume));
        // It moves to another place.
        a.place(ClaimPlaces(Places::from([(Place::Volume, 1)])));
        assert_eq!((ledger.claimed(user), ledger.claimed(Place::Volume)), (0, 2));
    }

    #[test]
    fn an_operation_under_way_and_a_claim_are_not_given_the_same_room() {
        let ledger = ledger(90);
        let held = Hold::new(&ledger, vec![(Place::Volume, 8)]);
        assert_eq!(held.others(Place::Volume), 0);
        let mut a = volume(&ledger);
        assert_eq!(a.raise(4, 100), Err(Place::Volume));
        a.raise(2, 100).unwrap();
        assert_eq!(held.others(Place::Volume), 2);
        let asked = ledger.ask();
        asked.took_space(8, Some(98));
        drop((asked, held));
        assert_eq!(a.raise(4, 100), Err(Place::Volume));
        assert_eq!((ledger.space(), ledger.claimed(Place::Volume)), (98, 2));
        assert!(ledger.books.lock().asked.is_empty());
    }
}
