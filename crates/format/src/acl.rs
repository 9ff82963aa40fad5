//! POSIX ACL rules (`docs/format/acls-and-xattrs.md#acl-rules`): how they are stored, how they meet mode bits, what they permit.

use crate::FormatError;

mod xattr;

#[cfg(test)]
mod tests;

pub use xattr::AclSyntax;

/// Name of the extended attribute of the access ACL.
pub const XATTR_ACCESS: &str = "system.posix_acl_access";
/// Name of the extended attribute of a directory's default ACL.
pub const XATTR_DEFAULT: &str = "system.posix_acl_default";
/// A permission that a rule does not have.
pub const UNDEFINED: u16 = 0xFFFF;

/// Which of an inode's two ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AclKind {
    /// Decides about access to the inode itself. Number 1 in the change log.
    Access,
    /// What new children of a directory start with. Number 2 in the change log.
    Default,
}

/// Permission of a named user or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AclEntry {
    /// uid or gid.
    pub id: u32,
    /// 0 to 7.
    pub perm: u16,
}

/// A rule. Rules are immutable and shared by id; the order of entries is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AclRule {
    /// The owner: 0 to 7 or [`UNDEFINED`], like the next three.
    pub owner: u16,
    /// The owning group.
    pub group: u16,
    /// Upper bound for everybody but the owner and others.
    pub mask: u16,
    /// Everybody else.
    pub other: u16,
    /// Named users.
    pub named_users: Vec<AclEntry>,
    /// Named groups.
    pub named_groups: Vec<AclEntry>,
}

/// What setting an ACL changes in the inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclChange {
    /// The rule whose id the inode gets; `None` for id 0.
    pub rule: Option<AclRule>,
    /// The inode's mode afterwards, 12 bits.
    pub mode: u16,
}

/// What a new inode gets from its directory's default ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// The access rule; `None` for id 0.
    pub access: Option<AclRule>,
    /// The new inode's mode, 12 bits.
    pub mode: u16,
}

impl Default for AclRule {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl AclRule {
    /// The rule that says nothing; setting it removes an ACL.
    pub const EMPTY: Self = Self {
        owner: UNDEFINED,
        group: UNDEFINED,
        mask: UNDEFINED,
        other: UNDEFINED,
        named_users: Vec::new(),
        named_groups: Vec::new(),
    };

    /// The stored record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 6 * (self.named_users.len() + self.named_groups.len()));
        for perm in [self.owner, self.group, self.mask, self.other] {
            out.extend_from_slice(&perm.to_be_bytes());
        }
        for list in [&self.named_users, &self.named_groups] {
            // More than 2^32 entries do not fit into memory.
            out.extend_from_slice(&(list.len() as u32).to_be_bytes());
            out.extend_from_slice(&encode_entries(list));
        }
        out
    }

    /// Decodes the stored record.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let bad = || FormatError::Length { what: "ACL rule", got: raw.len(), expected: "16 + 6 per entry" };
        let (perms, mut rest) = raw.split_first_chunk::<8>().ok_or_else(bad)?;
        let mut list = || {
            let (count, tail) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
            let len = (u32::from_be_bytes(*count) as usize).checked_mul(ENTRY).ok_or_else(bad)?;
            let (entries, tail) = tail.split_at_checked(len).ok_or_else(bad)?;
            rest = tail;
            decode_entries(entries)
        };
        let (named_users, named_groups) = (list()?, list()?);
        if !rest.is_empty() {
            return Err(bad());
        }
        let perm = |i: usize| u16::from_be_bytes([perms[i], perms[i + 1]]);
        Ok(Self { owner: perm(0), group: perm(2), mask: perm(4), other: perm(6), named_users, named_groups })
    }

    /// Nothing is defined.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Says no more than mode bits can.
    pub fn is_minimal(&self) -> bool {
        self.mask == UNDEFINED && self.named_users.is_empty() && self.named_groups.is_empty()
    }

    /// The nine permission bits that mirror an access rule.
    pub fn mode_bits(&self) -> u16 {
        let class = if self.is_minimal() { self.group } else { self.mask };
        (self.owner & 7) << 6 | (class & 7) << 3 | self.other & 7
    }

    /// The rule after `chmod`. It is a new rule and needs an id of its own unless it is unchanged.
    #[must_use]
    pub fn with_mode(&self, mode: u16) -> Self {
        let mut new = self.clone();
        new.owner = mode >> 6 & 7;
        *(if self.is_minimal() { &mut new.group } else { &mut new.mask }) = mode >> 3 & 7;
        new.other = mode & 7;
        new
    }

    /// The rule with undefined owner, group and other taken from mode bits.
    fn filled(mut self, mode: u16) -> Self {
        for (perm, shift) in [(&mut self.owner, 6), (&mut self.group, 3), (&mut self.other, 0)] {
            if *perm == UNDEFINED {
                *perm = mode >> shift & 7;
            }
        }
        self
    }

    /// What a new inode with the requested mode gets in a directory whose default ACL is this rule. The umask has
    /// no effect. Directories also take over the default ACL itself; symbolic links take nothing.
    pub fn inherit(&self, mode: u16) -> Inherited {
        if self.is_minimal() {
            return Inherited { access: None, mode: mode & (0o7000 | self.mode_bits()) };
        }
        let access = Self {
            owner: mode >> 6 & 7 & self.owner,
            group: self.group,
            mask: mode >> 3 & 7 & self.mask,
            other: mode & 7 & self.other,
            named_users: self.named_users.clone(),
            named_groups: self.named_groups.clone(),
        };
        let mode = mode & 0o7000 | access.mode_bits();
        Inherited { access: Some(access), mode }
    }

    /// Does the rule permit all of `wanted` (4 read, 2 write, 1 execute)?
    ///
    /// Not for uid 0, who may everything, and not for inodes whose group-class mode bits are all zero, for which
    /// plain mode bits decide.
    pub fn permits(&self, caller: &Caller<'_>, owner_uid: u32, owner_gid: u32, wanted: u16) -> bool {
        let grants = |perm: u16| perm & wanted & 7 == wanted & 7;
        if caller.uid == owner_uid {
            return grants(self.owner);
        }
        if let Some(user) = self.named_users.iter().find(|u| u.id == caller.uid) {
            return grants(user.perm & self.mask);
        }
        let owning = caller.gids.contains(&owner_gid).then_some(self.group);
        let named = self.named_groups.iter().filter(|g| caller.gids.contains(&g.id)).map(|g| g.perm);
        let mut matched = false;
        for perm in owning.into_iter().chain(named) {
            if grants(perm & self.mask) {
                return true;
            }
            matched = true;
        }
        !matched && grants(self.other)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller<'a> {
    /// Effective user.
    pub uid: u32,
    /// Effective group and all others.
    pub gids: &'a [u32],
}

/// What setting `rule` does to an inode with `mode` (12 bits). `clear_setgid` is for callers who are neither root nor in
/// the file's group. Permission to set is checked by the caller of this function. An unchanged inode is not to be
/// written.
pub fn set(rule: AclRule, kind: AclKind, mode: u16, clear_setgid: bool) -> AclChange {
    let mode = if clear_setgid { mode & !0o2000 } else { mode };
    let replaced = |rule: &AclRule| mode & 0o7000 | rule.mode_bits();
    if rule.is_empty() {
        return AclChange { rule: None, mode };
    }
    let rule = rule.filled(mode);
    match kind {
        AclKind::Access if rule.is_minimal() => AclChange { mode: replaced(&rule), rule: None },
        AclKind::Access => AclChange { mode: replaced(&rule), rule: Some(rule) },
        AclKind::Default => AclChange { mode, rule: Some(rule) },
    }
}

/// Bytes of a stored entry.
const ENTRY: usize = 6;

/// A list of entries without count, as the SQL engines store it.
pub fn encode_entries(list: &[AclEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * ENTRY);
    for e in list {
        out.extend_from_slice(&e.id.to_be_bytes());
        out.extend_from_slice(&e.perm.to_be_bytes());
    }
    out
}

/// Decodes a list of entries without count.
pub fn decode_entries(raw: &[u8]) -> Result<Vec<AclEntry>, FormatError> {
    let (entries, rest) = raw.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Err(FormatError::Length {
            what: "ACL entry list",
            got: raw.len(),
            expected: "a multiple of 6",
        });
    }
    Ok(entries
        .iter()
        .map(|&[a, b, c, d, e, f]| AclEntry {
            id: u32::from_be_bytes([a, b, c, d]),
            perm: u16::from_be_bytes([e, f]),
        })
        .collect())
}
