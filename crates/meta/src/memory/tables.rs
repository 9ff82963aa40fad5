//! The maps and everything that only looks at them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Range};

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, Ino, Slice};

use super::apply::damaged;
use crate::store::{
    Counter, DirCursor, DirEntry, DirStat, Job, LockKind, LockOwner, Name, QuotaKey, Read, Scan, Scanned,
    StoreError, Value,
};

/// Every record of a volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub attrs: BTreeMap<Ino, Attr>,
    pub edges: BTreeMap<(Ino, Name), Edge>,
    pub symlinks: BTreeMap<Ino, Bytes>,
    pub xattrs: BTreeMap<(Ino, Name), Bytes>,
    pub parents: BTreeMap<(Ino, Ino), i64>,
    pub chunks: BTreeMap<(Ino, u32), Vec<Slice>>,
    /// True counts; a slice without a record has one user.
    pub refs: BTreeMap<(u64, u32), i64>,
    pub delayed: BTreeMap<(u64, i64), Vec<(u64, u32)>>,
    pub counters: HashMap<Counter, i64>,
    pub stamps: HashMap<Job, i64>,
    pub setting: Option<Bytes>,
    pub delfiles: BTreeMap<(Ino, u64), i64>,
    pub detached: BTreeMap<Ino, i64>,
    pub sustained: BTreeSet<(u64, Ino)>,
    pub dir_stats: BTreeMap<Ino, DirStat>,
    pub quotas: BTreeMap<QuotaKey, Quota>,
    pub sessions: BTreeMap<u64, (i64, Bytes)>,
    pub acls: BTreeMap<u32, Bytes>,
    pub flocks: BTreeMap<(Ino, LockOwner), bool>,
    pub plocks: BTreeMap<(Ino, LockOwner), Bytes>,
}

const FIRST_OWNER: LockOwner = (0, 0);
const LAST_OWNER: LockOwner = (u64::MAX, u64::MAX);

impl Tables {
    pub fn counter(&self, c: Counter) -> i64 {
        self.counters.get(&c).copied().unwrap_or(0)
    }

    pub fn entries(&self, dir: Ino) -> impl Iterator<Item = (&Name, &Edge)> {
        self.edges
            .range((dir, Vec::new())..)
            .take_while(move |((d, _), _)| *d == dir)
            .map(|((_, n), e)| (n, e))
    }

    fn xattrs_of(&self, ino: Ino) -> impl Iterator<Item = (&Name, &Bytes)> {
        let all = self.xattrs.range((ino, Vec::new())..).take_while(move |((i, _), _)| *i == ino);
        all.map(|((_, name), value)| (name, value))
    }

    pub fn read(&self, read: &Read) -> Value {
        match read {
            Read::Attr(ino) => Value::Attr(self.attrs.get(ino).cloned()),
            Read::Edge(dir, name) => Value::Edge(self.edges.get(&(*dir, name.clone())).copied()),
            Read::Lookup(dir, name) => Value::Lookup(
                self.edges.get(&(*dir, name.clone())).map(|e| (*e, self.attrs.get(&e.ino).cloned())),
            ),
            Read::DirEmpty(dir) => Value::Bool(self.entries(*dir).next().is_none()),
            Read::Slices(ino, indx) => {
                Value::Slices(self.chunks.get(&(*ino, *indx)).cloned().unwrap_or_default())
            }
            Read::Symlink(ino) => Value::Bytes(self.symlinks.get(ino).cloned()),
            Read::Xattr(ino, name) => Value::Bytes(self.xattrs.get(&(*ino, name.clone())).cloned()),
            Read::XattrNames(ino) => {
                Value::Names(self.xattrs_of(*ino).map(|(name, _)| name.clone()).collect())
            }
            Read::XattrSizes(ino, name) => {
                let others = self.xattrs_of(*ino).filter(|(n, _)| *n != name);
                let own = self.xattrs.get(&(*ino, name.clone()));
                Value::XattrSizes(
                    others.map(|(n, value)| (n.len() + value.len()) as u64).sum(),
                    own.map(|value| value.len() as u64),
                )
            }
            Read::Parents(ino) => Value::Parents(
                self.parents
                    .range((*ino, Ino(0))..=(*ino, Ino(u64::MAX)))
                    .filter(|(_, n)| **n > 0)
                    .map(|((_, p), n)| (*p, *n))
                    .collect(),
            ),
            Read::Counter(c) => Value::Int(self.counter(*c)),
            Read::Setting => Value::Bytes(self.setting.clone()),
            Read::SliceRefs(id, size) => Value::Int(self.refs.get(&(*id, *size)).copied().unwrap_or(1)),
            Read::DirStat(ino) => Value::DirStat(self.dir_stats.get(ino).copied()),
            Read::Quota(key) => Value::Quota(self.quotas.get(key).copied()),
            Read::Acl(id) => Value::Bytes(self.acls.get(id).cloned()),
            Read::Session(sid) => Value::Bool(self.sessions.contains_key(sid)),
            Read::Holds(ino, LockKind::Flock, o) => Value::Bool(self.flocks.contains_key(&(*ino, *o))),
            Read::Holds(ino, LockKind::Record, o) => Value::Bool(self.plocks.contains_key(&(*ino, *o))),
            Read::Flocks(ino) => Value::Flocks(
                self.flocks
                    .range((*ino, FIRST_OWNER)..=(*ino, LAST_OWNER))
                    .map(|((_, o), w)| (*o, *w))
                    .collect(),
            ),
            Read::Plocks(ino) => Value::Plocks(
                self.plocks
                    .range((*ino, FIRST_OWNER)..=(*ino, LAST_OWNER))
                    .map(|((_, o), r)| (*o, r.clone()))
                    .collect(),
            ),
        }
    }

    /// Pages in byte order of the names.
    pub fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        let from = match cursor {
            DirCursor::Start => Bound::Included((dir, Vec::new())),
            DirCursor::After(name) => Bound::Excluded((dir, name.clone())),
            DirCursor::End => return Ok((Vec::new(), DirCursor::End)),
            DirCursor::Scan(_) => {
                return Err(StoreError::Fatal("a directory cursor of another engine was used".into()));
            }
        };
        let limit = limit.max(1);
        let page: Vec<DirEntry> = self
            .edges
            .range((from, Bound::Unbounded))
            .take_while(|((d, _), _)| *d == dir)
            .take(limit)
            .map(|((_, name), edge)| DirEntry {
                name: name.clone(),
                edge: *edge,
                attr: if attrs { self.attrs.get(&edge.ino).cloned() } else { None },
            })
            .collect();
        let next = match page.last() {
            Some(last) if page.len() == limit => DirCursor::After(last.name.clone()),
            _ => DirCursor::End,
        };
        Ok((page, next))
    }

    /// The stored number is the next free one; the first inode is 2, the first slice id 1.
    pub fn allocate(&mut self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError> {
        let first: i64 = match counter {
            Counter::NextInode => 2,
            Counter::NextChunk => 1,
            other => {
                return Err(StoreError::Fatal(format!("{other:?} is not handed out in ranges")));
            }
        };
        let before = self.counter(counter);
        let start = before.max(first);
        let end = i64::try_from(count).ok().and_then(|n| start.checked_add(n)).filter(|_| before >= 0);
        let end = end.ok_or_else(|| damaged(counter))?;
        self.counters.insert(counter, end);
        Ok(start as u64..end as u64)
    }

    pub fn claim(&mut self, job: Job, now: i64, min_interval: i64) -> bool {
        let recent = now.saturating_sub(min_interval) + 1..=now.saturating_add(min_interval);
        let due = self.stamps.get(&job).is_none_or(|t| !recent.contains(t));
        if due {
            self.stamps.insert(job, now);
        }
        due
    }

    pub fn scan(&self, scan: &Scan, limit: usize) -> Vec<Scanned> {
        let session =
            |(sid, (expire, info)): (&u64, &(i64, Bytes))| Scanned::Session(*sid, *expire, info.clone());
        let quotas = |of_dirs: bool| {
            self.quotas
                .iter()
                .filter(move |(k, _)| matches!(k, QuotaKey::Dir(_)) == of_dirs)
                .map(|(k, q)| Scanned::Quota(*k, *q))
        };
        match scan {
            Scan::Sessions => self.sessions.iter().map(session).take(limit).collect(),
            Scan::StaleSessions(t) => {
                self.sessions.iter().filter(|(_, (expire, _))| expire <= t).map(session).take(limit).collect()
            }
            Scan::Sustained(sid) => self
                .sustained
                .range((*sid, Ino(0))..=(*sid, Ino(u64::MAX)))
                .map(|(_, ino)| Scanned::Ino(*ino))
                .take(limit)
                .collect(),
            Scan::Delfiles(t) => self
                .delfiles
                .iter()
                .filter(|(_, at)| *at <= t)
                .map(|((ino, len), at)| Scanned::Delfile(*ino, *len, *at))
                .take(limit)
                .collect(),
            Scan::Detached(t) => self
                .detached
                .iter()
                .filter(|(_, at)| *at <= t)
                .map(|(ino, _)| Scanned::Ino(*ino))
                .take(limit)
                .collect(),
            Scan::DeadSlices => self
                .refs
                .iter()
                .filter(|(_, n)| **n <= 0)
                .map(|((id, size), _)| Scanned::Slice(*id, *size))
                .take(limit)
                .collect(),
            Scan::DelayedSlices => self
                .delayed
                .iter()
                .map(|((id, at), list)| Scanned::Delayed(*id, *at, list.clone()))
                .take(limit)
                .collect(),
            Scan::Locked(sid) => {
                let holders = self.flocks.keys().chain(self.plocks.keys());
                let inodes: BTreeSet<Ino> =
                    holders.filter(|(_, o)| o.0 == *sid).map(|(ino, _)| *ino).collect();
                inodes.into_iter().map(Scanned::Ino).take(limit).collect()
            }
            Scan::Chunks(ino) => self
                .chunks
                .range((*ino, 0)..=(*ino, u32::MAX))
                .map(|((_, indx), _)| Scanned::Chunk(*indx))
                .take(limit)
                .collect(),
            Scan::DirQuotas => quotas(true).take(limit).collect(),
            Scan::OwnerQuotas => quotas(false).take(limit).collect(),
        }
    }
}
