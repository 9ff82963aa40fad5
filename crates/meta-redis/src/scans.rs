//! Walks of maintenance. They may take many turns; each is short.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::redis_keys::{
    QuotaKind, parse_delayed_slices_field, parse_delfile_member, parse_slice_ref_field,
};
use ciderfs_meta::store::{Scan, Scanned, StoreError};
use redis::{Cmd, cmd};

use crate::quota;
use crate::reply::{self, Result};
use crate::store::RedisStore;

/// Elements asked for in one step of a scan.
const STEP: usize = 1000;

impl RedisStore {
    pub(crate) async fn walk(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>> {
        let keys = &self.keys;
        match scan {
            Scan::Sessions => self.sessions("+inf", limit).await,
            Scan::StaleSessions(at) => self.sessions(&at.to_string(), limit).await,
            Scan::Sustained(sid) => {
                self.members(keys.sustained(*sid), limit, |m| Ok(Some(Ino(reply::number(m)?)))).await
            }
            Scan::Locked(sid) => {
                let prefix = keys.prefix.len();
                self.members(keys.locked(*sid), limit, |m| {
                    let ino =
                        m.get(prefix..).and_then(|k| k.strip_prefix(b"lockf").or(k.strip_prefix(b"lockp")));
                    ino.map(|i| Ok(Ino(reply::number(i)?))).transpose()
                })
                .await
            }
            Scan::Delfiles(at) => self.delfiles(*at, limit).await,
            Scan::DeadSlices => self.dead_slices(limit).await,
            Scan::DelayedSlices => {
                let mut out = Vec::new();
                let mut cursor = 0;
                loop {
                    let (next, page) = self.hash_page(keys.del_slices(), cursor).await?;
                    for (field, value) in page {
                        let Some((id, at)) = text(&field).and_then(parse_delayed_slices_field) else {
                            continue;
                        };
                        let list = DelayedSlice::decode_list(&value)?;
                        out.push(Scanned::Delayed(id, at, list.iter().map(|d| (d.id, d.size)).collect()));
                    }
                    cursor = next;
                    if cursor == 0 || out.len() >= limit {
                        out.truncate(limit);
                        return Ok(out);
                    }
                }
            }
            Scan::Chunks(ino) => {
                let list = self.chunk_indexes(*ino).await?;
                Ok(list.into_iter().take(limit).map(Scanned::Chunk).collect())
            }
            Scan::DirQuotas => self.quotas(QuotaKind::Dir, limit).await,
            Scan::OwnerQuotas => {
                let mut out = self.quotas(QuotaKind::User, limit).await?;
                out.extend(self.quotas(QuotaKind::Group, limit.saturating_sub(out.len())).await?);
                Ok(out)
            }
        }
    }

    async fn quotas(&self, kind: QuotaKind, limit: usize) -> Result<Vec<Scanned>> {
        let mut out = BTreeMap::new();
        let mut cursor = 0;
        loop {
            let (next, page) = self.hash_page(self.keys.quota_used_inodes(kind), cursor).await?;
            if !page.is_empty() {
                let ask = |key: String| {
                    let mut ask = cmd("HMGET");
                    ask.arg(key);
                    for (field, _) in &page {
                        ask.arg(&field[..]);
                    }
                    ask
                };
                let limits = self.bulk(&ask(self.keys.quota(kind))).await?;
                let space = self.bulk(&ask(self.keys.quota_used_space(kind))).await?;
                let rows = reply::array(limits)?.into_iter().zip(reply::array(space)?);
                for ((field, inodes), (limits, space)) in page.iter().zip(rows) {
                    let inodes = redis::Value::BulkString(inodes.to_vec());
                    if let Some(row) = quota::row(limits, space, inodes)? {
                        out.insert(quota::key(kind, field)?, row);
                    }
                }
            }
            cursor = next;
            if cursor == 0 || out.len() >= limit {
                return Ok(out.into_iter().take(limit).map(|(key, row)| Scanned::Quota(key, row)).collect());
            }
        }
    }

    async fn sessions(&self, until: &str, limit: usize) -> Result<Vec<Scanned>> {
        let mut ask = cmd("ZRANGEBYSCORE");
        ask.arg(self.keys.all_sessions())
            .arg("-inf")
            .arg(until)
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(count(limit));
        let rows = reply::pairs(self.bulk(&ask).await?)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = cmd("HMGET");
        ask.arg(self.keys.session_infos());
        for (sid, _) in &rows {
            ask.arg(&sid[..]);
        }
        let infos = reply::array(self.bulk(&ask).await?)?;
        let mut out = Vec::with_capacity(rows.len());
        for ((sid, expire), info) in rows.into_iter().zip(infos) {
            let info = reply::bytes(info)?.unwrap_or_else(|| Bytes::from_static(b"{}"));
            out.push(Scanned::Session(reply::number(&sid)?, score(&expire)?, info));
        }
        Ok(out)
    }

    async fn members(
        &self,
        key: String,
        limit: usize,
        parse: impl Fn(&[u8]) -> Result<Option<Ino>>,
    ) -> Result<Vec<Scanned>> {
        let mut ask = cmd("SMEMBERS");
        ask.arg(key);
        let mut out = BTreeSet::new();
        for member in reply::strings(self.bulk(&ask).await?)? {
            out.extend(parse(&member)?);
        }
        Ok(out.into_iter().take(limit).map(Scanned::Ino).collect())
    }

    async fn delfiles(&self, at: i64, limit: usize) -> Result<Vec<Scanned>> {
        let mut out = Vec::new();
        let mut offset = 0;
        // Members of very old clients look different and are passed over.
        while out.len() < limit {
            let mut ask = cmd("ZRANGEBYSCORE");
            ask.arg(self.keys.delfiles())
                .arg("-inf")
                .arg(at)
                .arg("WITHSCORES")
                .arg("LIMIT")
                .arg(offset)
                .arg(STEP);
            let rows = reply::pairs(self.bulk(&ask).await?)?;
            let last = rows.len() < STEP;
            offset += rows.len();
            for (member, at) in rows {
                if let Some((ino, length)) = text(&member).and_then(parse_delfile_member) {
                    out.push(Scanned::Delfile(ino, length, score(&at)?));
                }
            }
            if last {
                break;
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// Dead slices; counts that mean what a missing one means are dropped on the way (`spec/meta-redis.md` 4.6).
    async fn dead_slices(&self, limit: usize) -> Result<Vec<Scanned>> {
        let mut out = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let (next, page) = self.hash_page(self.keys.slice_ref(), cursor).await?;
            let mut needless = Vec::new();
            for (field, n) in page {
                // A damaged count is left to whoever counts anew.
                let Ok(n) = reply::number::<i64>(&n) else { continue };
                match text(&field).and_then(parse_slice_ref_field) {
                    Some(slice) if n < 0 => {
                        out.insert(slice);
                    }
                    Some(_) if n == 0 => needless.push(field),
                    _ => {}
                }
            }
            if !needless.is_empty() && !self.read_only() {
                self.script_bulk(&self.scripts.forget, &[self.keys.slice_ref()], &needless).await?;
            }
            cursor = next;
            if cursor == 0 || out.len() >= limit {
                return Ok(out.into_iter().take(limit).map(|(id, size)| Scanned::Slice(id, size)).collect());
            }
        }
    }

    async fn hash_page(&self, key: String, cursor: u64) -> Result<(u64, Vec<(Bytes, Bytes)>)> {
        let mut ask = cmd("HSCAN");
        ask.arg(key).arg(cursor).arg("COUNT").arg(STEP);
        let (next, page) = self.page(&ask).await?;
        Ok((next, reply::pairs(page)?))
    }

    async fn page(&self, ask: &Cmd) -> Result<(u64, redis::Value)> {
        let mut both = reply::array(self.bulk(ask).await?)?.into_iter();
        let cursor = reply::bytes(both.next().unwrap_or_default())?.unwrap_or_default();
        Ok((reply::number(&cursor)?, both.next().unwrap_or_default()))
    }

    /// Indexes of the chunks of a file, by a walk over all keys.
    pub(crate) async fn chunk_indexes(&self, ino: Ino) -> Result<BTreeSet<u32>> {
        let mut out = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let mut ask = cmd("SCAN");
            ask.arg(cursor).arg("MATCH").arg(self.keys.chunk_pattern(ino)).arg("COUNT").arg(STEP);
            let (next, page) = self.page(&ask).await?;
            for key in reply::strings(page)? {
                if let Some((found, indx)) = text(&key).and_then(|k| self.keys.parse_chunk(k))
                    && found == ino
                {
                    out.extend(u32::try_from(indx).ok());
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(out);
            }
        }
    }
}

fn text(b: &[u8]) -> Option<&str> {
    std::str::from_utf8(b).ok()
}

/// Scores are doubles in text; ours are whole seconds.
fn score(b: &[u8]) -> Result<i64> {
    let v: f64 = reply::number(b)?;
    if v.is_finite() { Ok(v as i64) } else { Err(StoreError::Corrupt(format!("{v} is no time"))) }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(-1)
}
