//! What each write does to the maps.

use ciderfs_format::quota::{Quota, QuotaLimits};
use ciderfs_format::{Ino, Slice};

use super::tables::Tables;
use crate::store::{Counter, DirStat, Output, QuotaKey, StoreError, Write};

/// Can this write be refused?
pub(super) fn can_fail(w: &Write) -> bool {
    matches!(w, Write::ReplaceSlices { .. }) || is_number(w)
}

/// Does it hand out a number? The same one twice would be worse than none.
fn is_number(w: &Write) -> bool {
    matches!(w, Write::AddCounter(Counter::NextSession | Counter::NextTrash, _))
}

/// A counter that cannot say which number is free.
pub(super) fn damaged(c: Counter) -> StoreError {
    StoreError::Corrupt(format!("the counter {c:?} is damaged: it must be above all numbers in use"))
}

impl Tables {
    /// Applies one write.
    pub fn apply(&mut self, write: &Write) -> Result<Output, StoreError> {
        match write {
            Write::PutAttr(ino, attr) => {
                self.attrs.insert(*ino, attr.clone());
            }
            Write::PatchAttr(ino, patch) => {
                return Ok(Output::Attr(self.attrs.get_mut(ino).map(|attr| {
                    patch.apply(attr);
                    attr.clone()
                })));
            }
            Write::DelAttr(ino) => {
                self.attrs.remove(ino);
            }
            Write::PutEdge(dir, name, edge) => {
                self.edges.insert((*dir, name.clone()), *edge);
            }
            Write::DelEdge(dir, name) => {
                self.edges.remove(&(*dir, name.clone()));
            }
            Write::PutSymlink(ino, target) => {
                self.symlinks.insert(*ino, target.clone());
            }
            Write::DelSymlink(ino) => {
                self.symlinks.remove(ino);
            }
            Write::PutXattr(ino, name, value) => {
                self.xattrs.insert((*ino, name.clone()), value.clone());
            }
            Write::DelXattr(ino, name) => {
                self.xattrs.remove(&(*ino, name.clone()));
            }
            Write::DelXattrs(ino) => self.xattrs.retain(|(i, _), _| i != ino),
            Write::AddParent(ino, parent, n) => {
                let links = self.parents.entry((*ino, *parent)).or_insert(0);
                *links = links.saturating_add(*n);
            }
            Write::DelParents(ino) => self.parents.retain(|(i, _), _| i != ino),
            Write::NewSliceRef(id, size) => {
                *self.refs.entry((*id, *size)).or_insert(0) += 1;
            }
            Write::DropSliceRef(id, size) => {
                self.refs.remove(&(*id, *size));
            }
            Write::PutDelayedSlices(id, at, list) => {
                self.delayed.insert((*id, *at), list.clone());
            }
            Write::DelDelayedSlices(id, at) => {
                self.delayed.remove(&(*id, *at));
            }
            Write::PutDelfile(ino, length, at) => {
                self.delfiles.insert((*ino, *length), *at);
            }
            Write::DelDelfile(ino, length) => {
                self.delfiles.remove(&(*ino, *length));
            }
            Write::PutDetached(ino, at) => {
                self.detached.insert(*ino, *at);
            }
            Write::DelDetached(ino) => {
                self.detached.remove(ino);
            }
            Write::PutSustained(sid, ino) => {
                self.sustained.insert((*sid, *ino));
            }
            Write::DelSustained(sid, ino) => {
                self.sustained.remove(&(*sid, *ino));
            }
            Write::InitDirStat(ino) => {
                self.dir_stats.insert(*ino, DirStat::default());
            }
            Write::PutDirStat(ino, stat) => {
                self.dir_stats.insert(*ino, *stat);
            }
            Write::DelDirStat(ino) => {
                self.dir_stats.remove(ino);
                self.quotas.remove(&QuotaKey::Dir(*ino));
            }
            Write::DropDirStats => self.dir_stats.clear(),
            Write::PutQuotaLimits(key, limits) => {
                let none = Quota { limits: *limits, used_space: 0, used_inodes: 0 };
                self.quotas.entry(*key).or_insert(none).limits = *limits;
            }
            Write::PutQuotaUsage(key, space, inodes) => {
                if let Some(q) = self.quotas.get_mut(key) {
                    (q.used_space, q.used_inodes) = (*space, *inodes);
                }
            }
            Write::DelQuota(key) => {
                self.quotas.remove(key);
            }
            Write::DropOwnerQuotas => self.quotas.retain(|k, _| matches!(k, QuotaKey::Dir(_))),
            Write::PutSetting(doc) => self.setting = Some(doc.clone()),
            Write::DelSetting => self.setting = None,
            Write::InitCounters => {
                for (counter, first) in [(Counter::NextInode, 2), (Counter::NextChunk, 1)] {
                    self.counters.entry(counter).or_insert(first);
                }
            }
            Write::DelSession(sid) => {
                self.sessions.remove(sid);
            }
            Write::PutAcl(id, rule) => {
                self.acls.insert(*id, rule.clone());
            }
            Write::PutFlock(ino, owner, lock) => match lock {
                Some(write) => {
                    self.flocks.insert((*ino, *owner), *write);
                }
                None => {
                    self.flocks.remove(&(*ino, *owner));
                }
            },
            Write::PutPlock(ino, owner, records) => match records {
                Some(r) if !r.is_empty() => {
                    self.plocks.insert((*ino, *owner), r.clone());
                }
                _ => {
                    self.plocks.remove(&(*ino, *owner));
                }
            },
            reporting => return self.apply_reporting(reporting),
        }
        Ok(Output::None)
    }

    /// The writes that report something.
    fn apply_reporting(&mut self, write: &Write) -> Result<Output, StoreError> {
        Ok(match write {
            Write::AppendSlices(ino, indx, list) => {
                if list.is_empty() {
                    return Ok(Output::Int(self.chunks.get(&(*ino, *indx)).map_or(0, |l| l.len() as i64)));
                }
                let chunk = self.chunks.entry((*ino, *indx)).or_default();
                chunk.extend_from_slice(list);
                Output::Int(chunk.len() as i64)
            }
            Write::AppendSliceIfExists(ino, range, slice) => {
                if !range.is_empty() {
                    for (_, chunk) in self.chunks.range_mut((*ino, range.start)..(*ino, range.end)) {
                        chunk.push(*slice);
                    }
                }
                Output::None
            }
            Write::ReplaceSlices { ino, indx, drop, insert } => self.replace(*ino, *indx, *drop, insert)?,
            Write::TakeSlices(ino, indx) => {
                let list = self.chunks.remove(&(*ino, *indx)).unwrap_or_default();
                let taken = list.iter().filter(|s| s.id > 0).map(|s| {
                    let left = self.add_ref(s.id, s.size, -1);
                    (Slice { id: s.id, size: s.size, ..Slice::default() }, left)
                });
                Output::Slices(taken.collect())
            }
            Write::AddSliceRef(id, size, n) => Output::Int(self.add_ref(*id, *size, *n)),
            Write::AddCounter(counter, n) => {
                let value = self.counters.entry(*counter).or_insert(0);
                *value = match value.checked_add(*n) {
                    Some(sum) => sum,
                    None if is_number(write) => return Err(damaged(*counter)),
                    None => value.saturating_add(*n),
                };
                Output::Int(*value)
            }
            Write::AddDirStat(ino, d) => match self.dir_stats.get_mut(ino) {
                Some(s) => {
                    s.length = s.length.saturating_add(d.length);
                    s.space = s.space.saturating_add(d.space);
                    s.inodes = s.inodes.saturating_add(d.inodes);
                    Output::Int(1)
                }
                None => Output::Int(0),
            },
            Write::AddQuota(key, space, inodes) => {
                let none = Quota { limits: QuotaLimits::UNLIMITED, used_space: 0, used_inodes: 0 };
                let row = match key {
                    QuotaKey::Dir(_) => self.quotas.get_mut(key),
                    _ => Some(self.quotas.entry(*key).or_insert(none)),
                };
                match row {
                    Some(q) => {
                        q.used_space = q.used_space.saturating_add(*space);
                        q.used_inodes = q.used_inodes.saturating_add(*inodes);
                        Output::Int(1)
                    }
                    None => Output::Int(0),
                }
            }
            Write::PutSession(sid, expire, info) => {
                let before = self.sessions.insert(*sid, (*expire, info.clone()));
                Output::Int(i64::from(before.is_some()))
            }
            Write::TellAttr(ino) => Output::Attr(self.attrs.get(ino).cloned()),
            _ => Output::None,
        })
    }

    fn add_ref(&mut self, id: u64, size: u32, n: i64) -> i64 {
        let refs = self.refs.entry((id, size)).or_insert(1);
        *refs = refs.saturating_add(n);
        *refs
    }

    fn replace(&mut self, ino: Ino, indx: u32, drop: usize, insert: &[Slice]) -> Result<Output, StoreError> {
        let old = self.chunks.get(&(ino, indx)).map_or(&[][..], Vec::as_slice);
        let rest = old.get(drop..).ok_or_else(|| {
            StoreError::Corrupt(format!("chunk {indx} of inode {ino} has {} records, not {drop}", old.len()))
        })?;
        let list = [insert, rest].concat();
        if list.is_empty() {
            self.chunks.remove(&(ino, indx));
        } else {
            self.chunks.insert((ino, indx), list);
        }
        Ok(Output::None)
    }
}
