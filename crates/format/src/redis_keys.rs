//! Names of the Redis keys and of the fields inside them (`docs/format/redis-keys.md#keys`). The prefix belongs to keys only:
//! fields and members have none, except the lock keys listed in `locked<sid>`.

use std::fmt::Display;

use crate::Ino;

/// Inodes claimed by one `INCRBY nextinode`.
pub const INODE_BATCH: u64 = 1024;
/// Slice ids claimed by one `INCRBY nextchunk`.
pub const SLICE_BATCH: u64 = 4096;
/// The zset of sessions before 1.0; it never has a prefix, not even on a cluster.
pub const LEGACY_SESSIONS: &str = "sessions";

/// A counter, spelled as in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Highest inode handed out.
    NextInode,
    /// Highest slice id handed out.
    NextChunk,
    /// Last session id.
    NextSession,
    /// Last hourly trash directory.
    NextTrash,
    /// Last ACL id.
    AclMaxId,
    /// Last token id.
    KrbTokenMaxId,
    /// Bytes used by the volume.
    UsedSpace,
    /// Inodes used by the volume.
    TotalInodes,
    /// Time of the last clean-up of sessions.
    LastCleanupSessions,
    /// Time of the last clean-up of deleted files.
    LastCleanupFiles,
    /// Time of the last clean-up of the trash.
    LastCleanupTrash,
    /// Time of the last clean-up of slices.
    NextCleanupSlices,
    /// Time of the last clean-up of the change log.
    LastCleanupChangelog,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::NextInode,
        Self::NextChunk,
        Self::NextSession,
        Self::NextTrash,
        Self::AclMaxId,
        Self::KrbTokenMaxId,
        Self::UsedSpace,
        Self::TotalInodes,
        Self::LastCleanupSessions,
        Self::LastCleanupFiles,
        Self::LastCleanupTrash,
        Self::NextCleanupSlices,
        Self::LastCleanupChangelog,
    ];

    /// The key, without prefix. The first three are all lower case, the others are not.
    pub const fn redis_name(self) -> &'static str {
        match self {
            Self::NextInode => "nextinode",
            Self::NextChunk => "nextchunk",
            Self::NextSession => "nextsession",
            other => other.logical_name(),
        }
    }

    /// The name in the SQL and KV engines and in the change log.
    pub const fn logical_name(self) -> &'static str {
        match self {
            Self::NextInode => "nextInode",
            Self::NextChunk => "nextChunk",
            Self::NextSession => "nextSession",
            Self::NextTrash => "nextTrash",
            Self::AclMaxId => "aclMaxId",
            Self::KrbTokenMaxId => "krbTokenMaxId",
            Self::UsedSpace => "usedSpace",
            Self::TotalInodes => "totalInodes",
            Self::LastCleanupSessions => "lastCleanupSessions",
            Self::LastCleanupFiles => "lastCleanupFiles",
            Self::LastCleanupTrash => "lastCleanupTrash",
            Self::NextCleanupSlices => "nextCleanupSlices",
            Self::LastCleanupChangelog => "lastCleanupChangelog",
        }
    }
}

/// Whom a quota binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// A directory tree; fields are inodes.
    Dir,
    /// A user; fields are uids.
    User,
    /// A group; fields are gids.
    Group,
}

impl QuotaKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// Builds the keys of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Keys {
    /// Empty, or `{<db>}` on a cluster.
    pub prefix: String,
}

/// Methods for the keys that have one fixed name.
macro_rules! fixed {
    ($($(#[$doc:meta])* $method:ident = $name:literal;)*) => {
        $($(#[$doc])* pub fn $method(&self) -> String { self.key($name) })*
    };
}

impl Keys {
    /// Keys without prefix: standalone servers and Sentinel.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Keys on a cluster: the prefix keeps them in one slot.
    pub fn cluster(db: u32) -> Self {
        Self { prefix: format!("{{{db}}}") }
    }

    fn key(&self, rest: impl Display) -> String {
        format!("{}{rest}", self.prefix)
    }

    fixed! {
        /// String: the settings document.
        setting = "setting";
        /// Zset: session ids by expiry.
        all_sessions = "allSessions";
        /// Hash: session records by id.
        session_infos = "sessionInfos";
        /// Zset: [`delfile_member`] by time of deletion.
        delfiles = "delfiles";
        /// Hash: [`slice_ref_field`] to references minus one.
        slice_ref = "sliceRef";
        /// Hash: [`delayed_slices_field`] to list of slices.
        del_slices = "delSlices";
        /// Zset: roots of clones in the making, by time.
        detached_nodes = "detachedNodes";
        /// Hash: length of direct children by directory.
        dir_data_length = "dirDataLength";
        /// Hash: space of direct children by directory.
        dir_used_space = "dirUsedSpace";
        /// Hash: number of direct children by directory.
        dir_used_inodes = "dirUsedInodes";
        /// Hash: rules by ACL id.
        acl = "acl";
        /// List: lines of the change log.
        txn_log = "txnLog";
        /// String: number of lines ever written to the change log.
        txn_last_log = "txnLastLog";
        /// Hash: Kerberos tokens.
        krb_token = "krbToken";
    }

    /// String: attributes of an inode.
    pub fn node(&self, ino: Ino) -> String {
        self.key(format_args!("i{ino}"))
    }

    /// Hash: entries of a directory.
    pub fn dir(&self, ino: Ino) -> String {
        self.key(format_args!("d{ino}"))
    }

    /// Hash: parents of a file with several links.
    pub fn parents(&self, ino: Ino) -> String {
        self.key(format_args!("p{ino}"))
    }

    /// List: slices of a chunk.
    pub fn chunk(&self, ino: Ino, indx: u64) -> String {
        self.key(format_args!("c{ino}_{indx}"))
    }

    /// Pattern for `SCAN` that matches all chunks of a file (braces of the prefix have no meaning in patterns).
    pub fn chunk_pattern(&self, ino: Ino) -> String {
        self.key(format_args!("c{ino}_*"))
    }

    /// The inode and index in a chunk's key.
    pub fn parse_chunk(&self, key: &str) -> Option<(Ino, u64)> {
        let (ino, indx) = key.strip_prefix(&self.prefix)?.strip_prefix('c')?.split_once('_')?;
        Some((Ino(decimal(ino)?), decimal(indx)?))
    }

    /// String: target of a symbolic link.
    pub fn symlink(&self, ino: Ino) -> String {
        self.key(format_args!("s{ino}"))
    }

    /// Hash: extended attributes.
    pub fn xattr(&self, ino: Ino) -> String {
        self.key(format_args!("x{ino}"))
    }

    /// Hash: `flock` locks by [`crate::session::lock_owner_field`].
    pub fn flock(&self, ino: Ino) -> String {
        self.key(format_args!("lockf{ino}"))
    }

    /// Hash: `fcntl` locks by [`crate::session::lock_owner_field`].
    pub fn plock(&self, ino: Ino) -> String {
        self.key(format_args!("lockp{ino}"))
    }

    /// Set: inodes that a session keeps open after their last unlink.
    pub fn sustained(&self, sid: u64) -> String {
        self.key(format_args!("session{sid}"))
    }

    /// Set: lock keys, with prefix, in which a session has a field.
    pub fn locked(&self, sid: u64) -> String {
        self.key(format_args!("locked{sid}"))
    }

    /// Hash: limits of quotas.
    pub fn quota(&self, kind: QuotaKind) -> String {
        self.key(format_args!("{}Quota", kind.name()))
    }

    /// Hash: space used under quotas.
    pub fn quota_used_space(&self, kind: QuotaKind) -> String {
        self.key(format_args!("{}QuotaUsedSpace", kind.name()))
    }

    /// Hash: inodes used under quotas; its fields define which quotas exist.
    pub fn quota_used_inodes(&self, kind: QuotaKind) -> String {
        self.key(format_args!("{}QuotaUsedInodes", kind.name()))
    }

    /// Is the key one that a volume may have?
    pub fn is_ours(&self, key: &str) -> bool {
        let Some(rest) = key.strip_prefix(&self.prefix) else { return key == LEGACY_SESSIONS };
        let numbered = ["i", "d", "p", "s", "x", "lockf", "lockp", "session", "locked"];
        let of_quotas = || {
            [QuotaKind::Dir, QuotaKind::User, QuotaKind::Group].into_iter().flat_map(|kind| {
                [self.quota(kind), self.quota_used_space(kind), self.quota_used_inodes(kind)]
            })
        };
        let fixed = [
            self.setting(),
            self.all_sessions(),
            self.session_infos(),
            self.delfiles(),
            self.slice_ref(),
            self.del_slices(),
            self.detached_nodes(),
            self.dir_data_length(),
            self.dir_used_space(),
            self.dir_used_inodes(),
            self.acl(),
            self.txn_log(),
            self.txn_last_log(),
            self.krb_token(),
        ];
        numbered.iter().any(|name| rest.strip_prefix(name).and_then(decimal).is_some())
            || self.parse_chunk(key).is_some()
            || key == LEGACY_SESSIONS
            || fixed.iter().any(|name| name == key)
            || Counter::ALL.iter().any(|counter| self.counter(*counter) == key)
            || of_quotas().any(|name| name == key)
    }

    /// String: a counter.
    pub fn counter(&self, counter: Counter) -> String {
        self.key(counter.redis_name())
    }
}

/// Digits only: no sign, no blank.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Field of `sliceRef`.
pub fn slice_ref_field(id: u64, size: u32) -> String {
    format!("k{id}_{size}")
}

/// Slice id and size in a field of `sliceRef`.
pub fn parse_slice_ref_field(field: &str) -> Option<(u64, u32)> {
    let (id, size) = field.strip_prefix('k')?.split_once('_')?;
    Some((decimal(id)?, u32::try_from(decimal(size)?).ok()?))
}

/// Member of `delfiles`.
pub fn delfile_member(ino: Ino, length: u64) -> String {
    format!("{ino}:{length}")
}

/// Inode and length in a member of `delfiles`. Members of old clients with other than two parts give `None`.
pub fn parse_delfile_member(member: &str) -> Option<(Ino, u64)> {
    let (ino, length) = member.split_once(':')?;
    Some((Ino(decimal(ino)?), decimal(length)?))
}

/// Field of `delSlices`: the new slice and the time of the compaction, unix seconds.
pub fn delayed_slices_field(new_id: u64, unix: i64) -> String {
    format!("{new_id}_{unix}")
}

/// New slice and time in a field of `delSlices`.
pub fn parse_delayed_slices_field(field: &str) -> Option<(u64, i64)> {
    let (id, unix) = field.split_once('_')?;
    Some((decimal(id)?, i64::try_from(decimal(unix)?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The catalogue of `docs/format/redis-keys.md#keys`, on a standalone server and as db 3 of a cluster.
    #[test]
    fn catalogue() {
        for (keys, p) in [(Keys::plain(), ""), (Keys::cluster(3), "{3}")] {
            let (i, s) = (Ino(12), 7);
            let dir = QuotaKind::Dir;
            let got = [
                keys.setting(),
                keys.node(i),
                keys.dir(Ino::TRASH),
                keys.parents(i),
                keys.chunk(i, 3),
                keys.chunk_pattern(i),
                keys.symlink(i),
                keys.xattr(i),
                keys.flock(i),
                keys.plock(i),
                keys.all_sessions(),
                keys.session_infos(),
                keys.sustained(s),
                keys.locked(s),
                keys.delfiles(),
                keys.slice_ref(),
                keys.del_slices(),
                keys.detached_nodes(),
                keys.dir_data_length(),
                keys.dir_used_space(),
                keys.dir_used_inodes(),
                keys.quota(dir),
                keys.quota_used_space(QuotaKind::User),
                keys.quota_used_inodes(QuotaKind::Group),
                keys.acl(),
                keys.txn_log(),
                keys.txn_last_log(),
                keys.krb_token(),
            ];
            let want = "setting i12 d9223372032828243968 p12 c12_3 c12_* s12 x12 lockf12 lockp12 allSessions \
                        sessionInfos session7 locked7 delfiles sliceRef delSlices detachedNodes dirDataLength \
                        dirUsedSpace dirUsedInodes dirQuota userQuotaUsedSpace groupQuotaUsedInodes acl txnLog \
                        txnLastLog krbToken";
            let want: Vec<_> = want.split_whitespace().map(|k| format!("{p}{k}")).collect();
            assert_eq!(got[..], want[..]);
            for key in got.iter().filter(|key| !key.ends_with('*')) {
                assert!(keys.is_ours(key), "{key}");
            }
            for other in ["", "i", "i1x", "c1", "session:1", "cache", "I1", "{4}i1"] {
                assert!(!keys.is_ours(other), "{other}");
            }
            assert_eq!(keys.parse_chunk(&keys.chunk(i, 3)), Some((i, 3)));
            assert_eq!(keys.parse_chunk("c12_3").is_some(), p.is_empty());
        }
        let counters: Vec<_> = Counter::ALL.iter().map(|c| c.redis_name()).collect();
        assert_eq!(
            counters.join(" "),
            "nextinode nextchunk nextsession nextTrash aclMaxId krbTokenMaxId usedSpace totalInodes \
             lastCleanupSessions lastCleanupFiles lastCleanupTrash nextCleanupSlices lastCleanupChangelog"
        );
    }

    #[test]
    fn fields() {
        assert_eq!(slice_ref_field(12, 3_000_000), "k12_3000000");
        assert_eq!(delfile_member(Ino(7), 3), "7:3");
        assert_eq!(delayed_slices_field(11, 1_795_340_435), "11_1795340435");
        assert_eq!(parse_slice_ref_field("k1_4294967296"), None);
        assert_eq!(parse_slice_ref_field("1_2"), None);
        assert_eq!(parse_delfile_member("7"), None);
        assert_eq!(parse_delfile_member("7:3:1"), None);
        assert_eq!(parse_delayed_slices_field("11_-5"), None);
        assert_eq!(parse_delayed_slices_field("_"), None);
    }

    proptest! {
        #[test]
        fn round_trips(id: u64, n: u64, size: u32, time in 0..i64::MAX) {
            prop_assert_eq!(parse_slice_ref_field(&slice_ref_field(id, size)), Some((id, size)));
            prop_assert_eq!(parse_delfile_member(&delfile_member(Ino(id), n)), Some((Ino(id), n)));
            prop_assert_eq!(parse_delayed_slices_field(&delayed_slices_field(id, time)), Some((id, time)));
            let keys = Keys::plain();
            prop_assert_eq!(keys.parse_chunk(&keys.chunk(Ino(id), n)), Some((Ino(id), n)));
        }

        #[test]
        fn never_panics(text: String) {
            parse_slice_ref_field(&text);
            parse_delfile_member(&text);
            parse_delayed_slices_field(&text);
            Keys::cluster(0).parse_chunk(&text);
        }
    }
}
