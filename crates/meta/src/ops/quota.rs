//! Administration of quotas: setting, listing, checking, and what the file system statistics say under them
//! (`docs/format/quotas.md#directory-quotas`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ciderfs_format::quota::{Quota, QuotaLimits};
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, FileType, Ino};

use super::moving::Tears;
use crate::charges::{Amount, add};
use crate::error::{Errno, Result};
use crate::store::{
    AttrMask, Commit, Guard, Outcome, QuotaKey, Read, Scan, Scanned, StoreError, Value, Write,
};
use crate::types::{Caller, VolumeStat};
use crate::volume::Meta;

/// Attempts to change what others change at the same time.
const ATTEMPTS_MAX: usize = 20;
/// Counts below a directory that others keep changing.
const COUNTS_MAX: usize = 20;
/// A quota is counted again at this heartbeat after it was found: by then every mount has had two of its own.
const COUNTED_AT: u32 = 2;
/// Heartbeats after which counting is given up: others change too much below the directory, or it is another client's turn.
const COUNTED_UNTIL: u32 = 20;

/// A quota whose recorded usage was compared with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaCheck {
    /// Whose.
    pub key: QuotaKey,
    /// As recorded; `None`: no record although something is used.
    pub recorded: Option<Quota>,
    /// Bytes found.
    pub space: i64,
    /// Inodes found.
    pub inodes: i64,
}

impl QuotaCheck {
    /// Does the record say what was found?
    pub fn is_consistent(&self) -> bool {
        self.recorded.map_or((0, 0), |q| (q.used_space, q.used_inodes)) == (self.space, self.inodes)
    }
}

impl Meta {
    /// The directory at a path of the whole volume; with `create` made if missing, with its parents.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub async fn dir_at(&self, path: &[u8], create: bool) -> Result<Ino> {
        let root = Caller::root();
        let mut at = Ino::ROOT;
        for name in crate::volume::path_names(path) {
            let found = match self.lookup(&root, at, name).await {
                Err(e) if create && e.errno() == Errno::ENOENT => {
                    let node = crate::types::NewNode {
                        kind: FileType::Directory,
                        mode: 0o777,
                        umask: 0,
                        rdev: 0,
                        target: b"",
                    };
                    match self.create(&root, at, name, &node).await {
                        Err(e) if e.errno() == Errno::EEXIST => self.lookup(&root, at, name).await,
                        other => other,
                    }
                }
                other => other,
            };
            let (ino, attr) = found?;
            if !attr.is_dir() {
                return Err(Errno::ENOTDIR.into());
            }
            at = ino;
        }
        Ok(at)
    }

    /// Limits and usage, if there is such a quota; of users and groups only if something is limited.
    pub async fn quota(&self, key: QuotaKey) -> Result<Option<Quota>> {
        Ok(self.quota_record(key).await?.filter(|q| is_set(key, q)))
    }

    async fn quota_record(&self, key: QuotaKey) -> Result<Option<Quota>> {
        match self.read(&[Read::Quota(key)]).await?.into_iter().next() {
            Some(Value::Quota(q)) => Ok(q),
            _ => Err(StoreError::another_question().into()),
        }
    }

    /// Fetches a quota, and remembers it.
    async fn learn_quota(&self, key: QuotaKey) -> Result<Option<Quota>> {
        let asked = self.ledger.ask();
        let quota = self.quota_record(key).await?;
        asked.quota(key, quota);
        Ok(quota)
    }

    /// All quotas, in the order of their keys; of users and groups those that limit something.
    pub async fn quotas(&self) -> Result<Vec<(QuotaKey, Quota)>> {
        Ok(self.quota_records().await?.into_iter().filter(|(k, q)| is_set(*k, q)).collect())
    }

    /// The same as this client knows them, without asking.
    pub fn known_quotas(&self) -> Vec<(QuotaKey, Quota)> {
        let mut quotas = self.ledger.quotas();
        quotas.retain(|(key, quota)| is_set(*key, quota));
        quotas.sort_unstable_by_key(|(key, _)| *key);
        quotas
    }

    async fn quota_records(&self) -> Result<BTreeMap<QuotaKey, Quota>> {
        let mut rows = self.scan(Scan::DirQuotas, usize::MAX).await?;
        rows.extend(self.scan(Scan::OwnerQuotas, usize::MAX).await?);
        let rows = rows.into_iter();
        Ok(rows.filter_map(|r| if let Scanned::Quota(k, q) = r { Some((k, q)) } else { None }).collect())
    }

    /// Sets limits; `None` leaves one as it is, for a new quota unlimited. A new quota of a directory starts with the usage of
    /// its tree; the first one of a user or group turns user and group quotas on and counts the whole volume. Other clients
    /// know of it within a heartbeat; what they change below a directory until then is counted some heartbeats later
    /// ([`Meta::count_young_quotas`]), what they change of an owner is found by [`Meta::check_quota`].
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR` for a directory, those of the engine.
    pub async fn set_quota(
        &self,
        key: QuotaKey,
        max_space: Option<i64>,
        max_inodes: Option<i64>,
    ) -> Result<Quota> {
        match key {
            QuotaKey::Dir(_) => self.enable(|s| std::mem::replace(&mut s.dir_stats, true)).await?,
            _ => self.enable_owner_quotas().await?,
        };
        for _ in 0..ATTEMPTS_MAX {
            let mut guards = Vec::new();
            if let QuotaKey::Dir(ino) = key {
                let attr = self.getattr_of(ino).await?;
                if !attr.is_dir() {
                    return Err(Errno::ENOTDIR.into());
                }
                guards.push(Guard::Attr { ino, expect: Some(attr), mask: AttrMask::EXISTS });
            }
            let old = self.quota_record(key).await?;
            let limits = old.map_or(QuotaLimits::UNLIMITED, |q| q.limits);
            let limits = QuotaLimits {
                max_space: max_space.unwrap_or(limits.max_space),
                max_inodes: max_inodes.unwrap_or(limits.max_inodes),
            };
            let commit = Commit { guards, writes: vec![Write::PutQuotaLimits(key, limits)] };
            if let Outcome::Conflict(_) = self.commit_repeatable(&commit).await? {
                continue;
            }
            if let (QuotaKey::Dir(ino), None) = (key, old)
                && !self.count_usage(ino).await?
            {
                // Others change too much; mounts count again.
                let (space, inodes) = self.steady_sum(ino).await?.amount;
                self.put_usage(key, space, inodes).await?;
            }
            return self.learn_quota(key).await?.ok_or_else(|| Errno::ENOENT.into());
        }
        Err(Errno::EIO.into())
    }

    /// Removes a quota; the usage of users and groups is still counted. No quota is no error.
    pub async fn delete_quota(&self, key: QuotaKey) -> Result<()> {
        let write = match key {
            QuotaKey::Dir(_) => Write::DelQuota(key),
            _ if self.quota_record(key).await?.is_none() => return Ok(()),
            _ => Write::PutQuotaLimits(key, QuotaLimits::UNLIMITED),
        };
        self.commit_repeatable(&Commit { guards: Vec::new(), writes: vec![write] }).await?;
        self.learn_quota(key).await?;
        Ok(())
    }

    /// Reloads the quotas. Directories whose quota is new are to be counted again in a while ([`Meta::count_young_quotas`]).
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn follow_quotas(&self) -> Result<()> {
        let before = self.ledger.quota_dirs();
        self.reload_quotas().await?;
        let now = self.ledger.quota_dirs();
        let mut young = self.young_quotas.lock();
        young.retain(|dir, beats| {
            *beats += 1;
            now.contains(dir) && *beats <= COUNTED_UNTIL
        });
        young.extend(now.difference(&before).map(|dir| (*dir, 0)));
        Ok(())
    }

    /// Counts again below directories whose quota was new some heartbeats ago. By now every mount knows it, and what some did
    /// while they did not is in nobody's account. One client of the fleet counts; none while the official client is mounted
    /// somewhere.
    ///
    /// # Errors
    /// Those of the engine; what is not counted yet is due the next time.
    pub(crate) async fn count_young_quotas(&self) -> Result<()> {
        let due = |beats: u32| beats >= COUNTED_AT;
        let dirs: Vec<Ino> =
            self.young_quotas.lock().iter().filter(|(_, n)| due(**n)).map(|(dir, _)| *dir).collect();
        if dirs.is_empty() || !self.counts_for_the_fleet().await? {
            return Ok(());
        }
        for dir in dirs {
            if self.count_usage(dir).await? {
                self.learn_quota(QuotaKey::Dir(dir)).await?;
                self.young_quotas.lock().remove(&dir);
            }
        }
        Ok(())
    }

    /// Has no other living client an older session, and are all of this kind? The official client charges what it does later,
    /// and would charge again what is counted here.
    async fn counts_for_the_fleet(&self) -> Result<bool> {
        let engine = self.engine_now().await?;
        let sessions = self.sessions().await?;
        let dead = self.look_at(&sessions, engine);
        let mut living = sessions.iter().filter(|s| dead.iter().all(|(sid, _)| *sid != s.sid));
        let like_me = |info: &[u8]| String::from_utf8_lossy(info).contains(&self.cfg.version);
        let me = self.sid();
        Ok(me != 0 && living.all(|s| s.sid >= me && like_me(&s.info)))
    }

    /// Replaces the usage of a directory's quota by what is below it, at one moment; that is exact up to so many directories
    /// as one commit can guard. False, and nothing changed, if others change too much meanwhile.
    async fn count_usage(&self, dir: Ino) -> Result<bool> {
        let key = QuotaKey::Dir(dir);
        let mut tears = Tears::default();
        for _ in 0..COUNTS_MAX {
            let sum = self.sum_tree(dir).await?;
            if !tears.accept(&sum) {
                continue;
            }
            let (space, inodes) = sum.amount;
            let writes = vec![Write::PutQuotaUsage(key, space, inodes)];
            let commit = Commit { guards: sum.guards().collect(), writes };
            if let Outcome::Done(_) = self.commit_repeatable(&commit).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put_usage(&self, key: QuotaKey, space: i64, inodes: i64) -> Result<()> {
        let writes = vec![Write::PutQuotaUsage(key, space, inodes)];
        self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await?;
        Ok(())
    }

    /// Turns a setting on. `on` sets it and tells whether it was set before.
    async fn enable(&self, on: impl Fn(&mut Settings) -> bool) -> Result<bool> {
        let old = self.settings();
        let mut new = Settings::clone(&old);
        if on(&mut new) {
            return Ok(false);
        }
        Self::write_settings(self.store.as_ref(), &new, Some(&old)).await?;
        *self.settings.write() = std::sync::Arc::new(new);
        Ok(true)
    }

    /// Turns user and group quotas on, if they are off, and counts what everybody owns.
    pub async fn enable_owner_quotas(&self) -> Result<bool> {
        if !self.enable(|s| std::mem::replace(&mut s.user_group_quota, true)).await? {
            return Ok(false);
        }
        self.count_owners().await?;
        Ok(true)
    }

    /// Replaces the usage of every user and group by what is found.
    pub async fn count_owners(&self) -> Result<()> {
        for (key, (space, inodes)) in self.usage_of_owners().await? {
            let mut writes = Vec::new();
            if self.quota_record(key).await?.is_none() {
                writes.push(Write::PutQuotaLimits(key, QuotaLimits::UNLIMITED));
            }
            writes.push(Write::PutQuotaUsage(key, space, inodes));
            self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await?;
        }
        Ok(())
    }

    /// Compares recorded usage with what is there; `None`: of all users and groups. With `strict` a directory is walked instead of
    /// summed up from usage records. With `repair` what was found is recorded. Changes made meanwhile may look like
    /// differences.
    ///
    /// # Errors
    /// `ENODATA` if there is no such quota.
    pub async fn check_quota(
        &self,
        key: Option<QuotaKey>,
        strict: bool,
        repair: bool,
    ) -> Result<Vec<QuotaCheck>> {
        let mut checks = Vec::new();
        if let Some(key @ QuotaKey::Dir(dir)) = key {
            let recorded = self.quota_record(key).await?;
            if recorded.is_none() {
                return Err(Errno::ENODATA.into());
            }
            let (space, inodes) =
                if strict { self.walked(dir).await? } else { self.steady_sum(dir).await?.amount };
            checks.push(QuotaCheck { key, recorded, space, inodes });
        } else {
            if let Some(key) = key
                && self.quota(key).await?.is_none()
            {
                return Err(Errno::ENODATA.into());
            }
            let mut found = self.usage_of_owners().await?;
            let records = self.quota_records().await?;
            for k in records.keys().filter(|k| !matches!(k, QuotaKey::Dir(_))) {
                found.entry(*k).or_default();
            }
            for (k, (space, inodes)) in found.into_iter().filter(|(k, _)| key.is_none_or(|key| key == *k)) {
                checks.push(QuotaCheck { key: k, recorded: records.get(&k).copied(), space, inodes });
            }
        }
        if repair {
            for c in checks.iter().filter(|c| !c.is_consistent()) {
                if c.recorded.is_none() {
                    let writes = vec![Write::PutQuotaLimits(c.key, QuotaLimits::UNLIMITED)];
                    self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await?;
                }
                self.put_usage(c.key, c.space, c.inodes).await?;
            }
        }
        Ok(checks)
    }

    /// Bytes and inodes below a directory, found by a walk.
    async fn walked(&self, top: Ino) -> Result<Amount> {
        let mut sum = (0, 0);
        self.walk(top, &mut |_, attr| add(&mut sum, attr.map_or(4096, |a| a.charged_space() as i64), 1))
            .await?;
        Ok(sum)
    }

    /// What every user and group owns: each inode once, in the tree, in the trash, or kept for a session that has it open.
    async fn usage_of_owners(&self) -> Result<BTreeMap<QuotaKey, Amount>> {
        let mut found = BTreeMap::new();
        // Only what may be met twice is remembered.
        let mut linked: HashSet<Ino> = HashSet::new();
        let mut count = |ino: Ino, attr: &Attr| {
            // Nobody owns the hours of the trash.
            if ino.is_trash() || (attr.parent.0 == 0 && !linked.insert(ino)) {
                return;
            }
            for key in [QuotaKey::User(attr.uid), QuotaKey::Group(attr.gid)] {
                add(found.entry(key).or_default(), attr.charged_space() as i64, 1);
            }
        };
        for top in [Ino::ROOT, Ino::TRASH] {
            self.walk(top, &mut |ino, attr| {
                if let Some(a) = attr {
                    count(ino, a);
                }
            })
            .await?;
        }
        let mut sustained = BTreeSet::new();
        for session in self.sessions().await? {
            for item in self.scan(Scan::Sustained(session.sid), usize::MAX).await? {
                if let Scanned::Ino(ino) = item {
                    sustained.insert(ino);
                }
            }
        }
        for ino in sustained {
            if let Some(Value::Attr(Some(a))) = self.read(&[Read::Attr(ino)]).await?.into_iter().next()
                && a.nlink == 0
            {
                count(ino, &a);
            }
        }
        Ok(found)
    }

    /// Visits every entry below a directory, a file with several names once for each.
    async fn walk(&self, top: Ino, visit: &mut (dyn FnMut(Ino, Option<&Attr>) + Send)) -> Result<()> {
        let mut stack = vec![top];
        let mut seen = HashSet::new();
        while let Some(dir) = stack.pop() {
            if !seen.insert(dir) {
                return Err(Errno::ELOOP.into());
            }
            for e in self.all_entries(dir).await? {
                visit(e.edge.ino, e.attr.as_ref());
                if e.edge.kind == FileType::Directory {
                    stack.push(e.edge.ino);
                }
            }
        }
        Ok(())
    }

    /// Lowers what is free by the quotas from an inode upwards; the nearest says what is used (`docs/format/quotas.md#checks`).
    /// What has no place, or several (removed, in the trash, with more names than one), counts as in the presented root.
    pub(crate) async fn clamp_by_quotas(&self, from: Ino, mut stat: VolumeStat) -> Result<VolumeStat> {
        let mut used = None;
        let (mut at, mut placed) = (from, from == self.root);
        let mut seen = HashSet::new();
        for _ in 0..crate::ops::account::DEPTH_MAX {
            // What is seen twice lies in a circle, and nowhere.
            if !self.ledger.has_dir_quotas() || !seen.insert(at) {
                break;
            }
            if self.ledger.quota(QuotaKey::Dir(at)).is_some()
                && let Some(q) = self.learn_quota(QuotaKey::Dir(at)).await?
            {
                let left = |limit: i64, used: i64| limit.saturating_sub(used).max(0) as u64;
                if q.limits.max_space > 0 {
                    stat.avail_space = stat.avail_space.min(left(q.limits.max_space, q.used_space));
                }
                if q.limits.max_inodes > 0 {
                    stat.avail_inodes = stat.avail_inodes.min(left(q.limits.max_inodes, q.used_inodes));
                }
                used.get_or_insert((q.used_space.max(0) as u64, q.used_inodes.max(0) as u64));
            }
            if at == Ino::ROOT {
                break;
            }
            let parent = match self.beliefs.attr(at) {
                Some(a) => a.parent,
                None => match self.getattr_of(at).await {
                    Err(e) if e.errno() == Errno::ENOENT => Ino(0),
                    other => other?.parent,
                },
            };
            at = match parent {
                placeless if placeless.0 == 0 || placeless.is_trash() => {
                    if placed {
                        break;
                    }
                    placed = true;
                    self.root
                }
                parent => parent,
            };
        }
        if let Some((space, inodes)) = used {
            stat.used_space = space;
            stat.total_space = space.saturating_add(stat.avail_space);
            stat.used_inodes = inodes;
        }
        Ok(stat)
    }

    /// Attributes of an inode by its real number.
    pub(super) async fn getattr_of(&self, ino: Ino) -> Result<Attr> {
        match self.read(&[Read::Attr(ino)]).await?.into_iter().next() {
            Some(Value::Attr(Some(a))) => {
                self.beliefs.set_attr(ino, Some(a.clone()));
                Ok(a)
            }
            Some(Value::Attr(None)) => Err(Errno::ENOENT.into()),
            _ => Err(StoreError::another_question().into()),
        }
    }
}

/// Is this a quota, or only a count of what somebody uses?
fn is_set(key: QuotaKey, q: &Quota) -> bool {
    matches!(key, QuotaKey::Dir(_)) || q.limits.max_space > 0 || q.limits.max_inodes > 0
}
