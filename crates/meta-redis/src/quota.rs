//! Quotas: three hashes for each kind, of which the one with the used inodes says which quotas exist.

use ciderfs_format::quota::{Quota, QuotaLimits};
use ciderfs_format::redis_keys::{Keys, QuotaKind};
use ciderfs_meta::store::{QuotaKey, StoreError, Write};
use redis::Value as Reply;

use crate::encode::{Encoded, Reports};
use crate::reply::{self, Result};

pub(crate) fn kind(key: QuotaKey) -> QuotaKind {
    match key {
        QuotaKey::User(_) => QuotaKind::User,
        QuotaKey::Group(_) => QuotaKind::Group,
        QuotaKey::Dir(_) => QuotaKind::Dir,
    }
}

/// The field of a quota in its hashes.
pub(crate) fn field(key: QuotaKey) -> String {
    match key {
        QuotaKey::User(id) | QuotaKey::Group(id) => id.to_string(),
        QuotaKey::Dir(ino) => ino.to_string(),
    }
}

/// The quota of a field.
pub(crate) fn key(kind: QuotaKind, field: &[u8]) -> Result<QuotaKey> {
    Ok(match kind {
        QuotaKind::User => QuotaKey::User(reply::number(field)?),
        QuotaKind::Group => QuotaKey::Group(reply::number(field)?),
        QuotaKind::Dir => QuotaKey::Dir(ciderfs_format::Ino(reply::number(field)?)),
    })
}

/// Hashes of limits, used bytes and used inodes.
pub(crate) fn hashes(keys: &Keys, key: QuotaKey) -> [String; 3] {
    let kind = kind(key);
    [keys.quota(kind), keys.quota_used_space(kind), keys.quota_used_inodes(kind)]
}

/// A quota from its three fields. Missing limits are none.
pub(crate) fn row(limits: Reply, space: Reply, inodes: Reply) -> Result<Option<Quota>> {
    let Some(used_inodes) = reply::int(inodes)? else { return Ok(None) };
    let limits = match reply::bytes(limits)? {
        Some(raw) => QuotaLimits::decode(&raw)?,
        None => QuotaLimits::UNLIMITED,
    };
    Ok(Some(Quota { limits, used_space: reply::int(space)?.unwrap_or(0), used_inodes }))
}

/// A quota as the truth about a guard: one answer of three parts.
pub(crate) fn truth(v: Reply) -> Result<Option<Quota>> {
    let mut parts = reply::array(v)?.into_iter();
    let mut part = || parts.next().ok_or_else(|| StoreError::Corrupt("an answer is cut short".into()));
    row(part()?, part()?, part()?)
}

impl Encoded {
    /// Changes of quotas.
    pub(crate) fn quota(&mut self, keys: &Keys, write: &Write) -> Reports {
        match write {
            Write::DropDirStats => {
                for key in [keys.dir_used_space(), keys.dir_data_length(), keys.dir_used_inodes()] {
                    self.run("DEL", key, &[]);
                }
            }
            Write::PutQuotaLimits(key, limits) => {
                let [max, space, inodes] = hashes(keys, *key);
                let field = field(*key);
                self.run("HSET", max, &[field.as_ref(), &limits.encode()]);
                for used in [space, inodes] {
                    self.run("HSETNX", used, &[field.as_ref(), b"0"]);
                }
            }
            Write::PutQuotaUsage(key, space, inodes) => {
                self.arg("F");
                let [_, used_space, used_inodes] = hashes(keys, *key);
                self.key(used_inodes);
                self.key(used_space);
                self.arg(field(*key));
                self.num(inodes);
                self.num(space);
            }
            Write::AddQuota(key, space, inodes) => {
                self.arg("J");
                for hash in hashes(keys, *key) {
                    self.key(hash);
                }
                self.arg(field(*key));
                // What a missing quota starts with; nothing for directories, which are left without.
                let start = match key {
                    QuotaKey::Dir(_) => Vec::new(),
                    _ => QuotaLimits::UNLIMITED.encode().to_vec(),
                };
                self.arg(start);
                self.num(space);
                self.num(inodes);
                return Reports::Int(0);
            }
            Write::DelQuota(key) => {
                for hash in hashes(keys, *key) {
                    self.run("HDEL", hash, &[field(*key).as_ref()]);
                }
            }
            Write::DropOwnerQuotas => {
                for kind in [QuotaKind::User, QuotaKind::Group] {
                    for key in [keys.quota(kind), keys.quota_used_space(kind), keys.quota_used_inodes(kind)] {
                        self.run("DEL", key, &[]);
                    }
                }
            }
            _ => {}
        }
        Reports::Nothing
    }
}
