//! Walks of maintenance. They may take many turns; each is short.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::redis_keys::{
    QuotaKind, parse_delayed_slices_field, parse_delfile_member, parse_slice_ref_field,
};
use ciderfs_meta::store::{Scan, Scanned, StoreError};
use redis::cmd;

use crate::limits;
use crate::quota;
use crate::reply::{self, Result};
use crate::store::RedisStore;

/// Elements asked for in one step of a scan.
const STEP: usize = 1000;
/// The same of what may be long.
const LONG_STEP: usize = 10;

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
            Scan::Detached(at) => self.detached(*at, limit).await,
            Scan::DeadSlices => self.dead_slices(limit).await,
            Scan::DelayedSlices => {
                let mut out = Vec::new();
                let mut cursor = 0;
                let mut rows = self.left_out.scan("replaced data that the trash keeps");
                loop {
                    let (next, page) = self.hash_page(keys.del_slices(), cursor, limits::VALUE).await?;
                    for (field, value) in page {
                        let row = delayed(field, value);
                        out.extend(rows.keep(row).flatten());
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
        let mut rows = self.left_out.scan(match kind {
            QuotaKind::Dir => "quotas of directories",
            QuotaKind::User => "quotas of users",
            QuotaKind::Group => "quotas of groups",
        });
        loop {
            let (next, page) =
                self.hash_page(self.keys.quota_used_inodes(kind), cursor, limits::SMALL).await?;
            let mut found = Vec::with_capacity(page.len());
            for (field, inodes) in page {
                let field = reply::needed(field);
                let key = field.and_then(|field| Ok((quota::key(kind, &field)?, field, inodes)));
                found.extend(rows.keep(key));
            }
            // A server may send a small hash whole, whatever was asked for.
            for found in found.chunks(STEP) {
                let fields: Vec<Vec<u8>> = found.iter().map(|(_, field, _)| field.to_vec()).collect();
                let limits = self.fields(self.keys.quota(kind), &fields, limits::SMALL).await?;
                let space = self.fields(self.keys.quota_used_space(kind), &fields, limits::SMALL).await?;
                for (((key, _, inodes), limits), space) in found.iter().zip(limits).zip(space) {
                    let row = quota::row(limits, space, inodes.clone());
                    out.extend(rows.keep(row).flatten().map(|row| (*key, row)));
                }
            }
            cursor = next;
            if cursor == 0 || out.len() >= limit {
                return Ok(out.into_iter().take(limit).map(|(key, row)| Scanned::Quota(key, row)).collect());
            }
        }
    }

    async fn sessions(&self, until: &str, limit: usize) -> Result<Vec<Scanned>> {
        let args = ["-inf", until, "WITHSCORES", "LIMIT", "0", &count(limit).to_string()];
        let ids = self.list(self.keys.all_sessions(), limits::SMALL, "ZRANGEBYSCORE", &args).await?;
        let mut rows = self.left_out.scan("sessions");
        let mut found = Vec::new();
        for (sid, expire) in reply::twos(ids)? {
            let row = || -> Result<_> {
                Ok((reply::number::<u64>(&reply::needed(sid)?)?, score(&reply::needed(expire)?)?))
            };
            found.extend(rows.keep(row()));
        }
        let mut out = Vec::with_capacity(found.len());
        for part in found.chunks(LONG_STEP) {
            let fields: Vec<Vec<u8>> = part.iter().map(|(sid, _)| sid.to_string().into_bytes()).collect();
            let infos = self.fields(self.keys.session_infos(), &fields, limits::VALUE).await?;
            for ((sid, expire), info) in part.iter().zip(infos) {
                // What a session tells about itself is for people: one that tells nonsense still has its locks.
                let info = rows.keep(reply::bytes(info)).flatten();
                let info = info.unwrap_or_else(|| Bytes::from_static(b"{}"));
                out.push(Scanned::Session(*sid, *expire, info));
            }
        }
        Ok(out)
    }

    async fn members(
        &self,
        key: String,
        limit: usize,
        parse: impl Fn(&[u8]) -> Result<Option<Ino>>,
    ) -> Result<Vec<Scanned>> {
        let members = self.list(key, limits::SMALL, "SMEMBERS", &[""; 0]).await?;
        let mut rows = self.left_out.scan("files that sessions hold");
        let mut out = BTreeSet::new();
        for member in reply::array(members)? {
            let row = reply::needed(member).and_then(|m| parse(&m));
            out.extend(rows.keep(row).flatten());
        }
        Ok(out.into_iter().take(limit).map(Scanned::Ino).collect())
    }

    async fn delfiles(&self, at: i64, limit: usize) -> Result<Vec<Scanned>> {
        let mut out = Vec::new();
        let mut offset = 0;
        let mut passed = self.left_out.scan("removed files");
        // Members of very old clients look different and are passed over.
        while out.len() < limit {
            let (until, from, step) = (at.to_string(), offset.to_string(), STEP.to_string());
            let args = ["-inf", &until, "WITHSCORES", "LIMIT", &from, &step];
            let rows = self.list(self.keys.delfiles(), limits::SMALL, "ZRANGEBYSCORE", &args).await?;
            let rows = reply::twos(rows)?;
            let last = rows.len() < STEP;
            offset += rows.len();
            for (member, at) in rows {
                let row = || -> Result<_> {
                    let member = reply::needed(member)?;
                    let Some((ino, length)) = text(&member).and_then(parse_delfile_member) else {
                        return Ok(None);
                    };
                    Ok(Some(Scanned::Delfile(ino, length, score(&reply::needed(at)?)?)))
                };
                out.extend(passed.keep(row()).flatten());
            }
            if last {
                break;
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    async fn detached(&self, at: i64, limit: usize) -> Result<Vec<Scanned>> {
        let mut passed = self.left_out.scan("directories without a name");
        let (until, most) = (at.to_string(), limit.min(STEP).to_string());
        let args = ["-inf", &until, "LIMIT", "0", &most];
        let rows = self.list(self.keys.detached_nodes(), limits::SMALL, "ZRANGEBYSCORE", &args).await?;
        let rows = reply::array(rows)?.into_iter();
        Ok(rows
            .filter_map(|member| {
                let ino = reply::needed(member).and_then(|m| reply::number(&m));
                passed.keep(ino).map(|ino| Scanned::Ino(Ino(ino)))
            })
            .collect())
    }

    /// Dead slices; counts that mean what a missing one means are dropped on the way (`docs/format/chunks-and-slices.md#references`).
    async fn dead_slices(&self, limit: usize) -> Result<Vec<Scanned>> {
        let mut out = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let (next, page) = self.hash_page(self.keys.slice_ref(), cursor, limits::SMALL).await?;
            let mut needless = Vec::new();
            for (field, n) in page {
                // A damaged count is left to whoever counts anew.
                let (Ok(field), Ok(Some(n))) = (reply::needed(field), reply::int(n)) else { continue };
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

    /// A command that lists, whose elements have at most `most` bytes; see `scripts/scan.lua`.
    async fn list(
        &self,
        key: String,
        most: usize,
        command: &str,
        args: &[impl AsRef<[u8]>],
    ) -> Result<redis::Value> {
        let mut words = vec![most.to_string().into_bytes(), command.into()];
        words.extend(args.iter().map(|arg| arg.as_ref().to_vec()));
        self.script_bulk(&self.scripts.scan, &[key], &words).await
    }

    /// Values of fields of a hash, at most [`STEP`] of them.
    async fn fields(&self, key: String, fields: &[Vec<u8>], most: usize) -> Result<Vec<redis::Value>> {
        reply::array(self.list(key, most, "HMGET", fields).await?)
    }

    async fn hash_page(
        &self,
        key: String,
        cursor: u64,
        most: usize,
    ) -> Result<(u64, Vec<(redis::Value, redis::Value)>)> {
        let args = [&cursor.to_string(), "COUNT", &STEP.to_string()];
        let (next, page) = paged(self.list(key, most, "HSCAN", &args).await?)?;
        Ok((next, reply::twos(page)?))
    }

    /// Indexes of the chunks of a file, by a walk over all keys.
    pub(crate) async fn chunk_indexes(&self, ino: Ino) -> Result<BTreeSet<u32>> {
        let mut out = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let mut ask = cmd("SCAN");
            ask.arg(cursor).arg("MATCH").arg(self.keys.chunk_pattern(ino)).arg("COUNT").arg(STEP);
            let (next, page) = paged(self.bulk(&ask).await?)?;
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

/// A cursor and what was found.
fn paged(answer: redis::Value) -> Result<(u64, redis::Value)> {
    let mut both = reply::array(answer)?.into_iter();
    let cursor = reply::bytes(both.next().unwrap_or_default())?.unwrap_or_default();
    Ok((reply::number(&cursor)?, both.next().unwrap_or_default()))
}

/// A field of delayed slices. Those of another form are no record of ours.
fn delayed(field: redis::Value, value: redis::Value) -> Result<Option<Scanned>> {
    let field = reply::needed(field)?;
    let Some((id, at)) = text(&field).and_then(parse_delayed_slices_field) else { return Ok(None) };
    let list = DelayedSlice::decode_list(&reply::needed(value)?)?;
    Ok(Some(Scanned::Delayed(id, at, list.iter().map(|d| (d.id, d.size)).collect())))
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
