//! The form in which programs read and write ACLs: Linux's extended attribute, version 2, in the byte order of the
//! machine (`docs/format/acls-and-xattrs.md#extended-attribute-of-an-acl`).

use super::{AclEntry, AclRule, UNDEFINED};

const VERSION: u8 = 2;
const HEADER: usize = 4;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Not an ACL: the system call gets `EINVAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AclSyntax {
    /// Wrong version or a length that is not 4 + 8 per entry.
    #[error("not a version 2 ACL")]
    Header,
    /// A tag that does not exist.
    #[error("unknown ACL tag {0:#x}")]
    Tag(u16),
    /// A permission above 7.
    #[error("ACL permission {0:#o} out of range")]
    Permission(u16),
    /// Owner, group, mask or other twice.
    #[error("ACL tag {0:#x} occurs twice")]
    Duplicate(u16),
    /// Named users or groups need a mask.
    #[error("ACL with named entries has no mask")]
    NoMask,
}

impl AclRule {
    /// The value of the extended attribute.
    pub fn to_xattr(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0];
        let mut put = |tag: u16, perm: u16, id: u32| {
            out.extend_from_slice(&tag.to_ne_bytes());
            out.extend_from_slice(&perm.to_ne_bytes());
            out.extend_from_slice(&id.to_ne_bytes());
        };
        put(USER_OBJ, self.owner, NO_ID);
        for e in &self.named_users {
            put(USER, e.perm, e.id);
        }
        put(GROUP_OBJ, self.group, NO_ID);
        for e in &self.named_groups {
            put(GROUP, e.perm, e.id);
        }
        if self.mask != UNDEFINED {
            put(MASK, self.mask, NO_ID);
        }
        put(OTHER, self.other, NO_ID);
        out
    }

    /// Reads the value of the extended attribute. One without entries is the empty rule.
    pub fn from_xattr(raw: &[u8]) -> Result<Self, AclSyntax> {
        let body = match raw.split_at_checked(HEADER) {
            Some(([VERSION, ..], body)) => body,
            _ => return Err(AclSyntax::Header),
        };
        let (entries, rest) = body.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(AclSyntax::Header);
        }
        let mut rule = Self::EMPTY;
        for &[t0, t1, p0, p1, id @ ..] in entries {
            let (tag, perm) = (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([p0, p1]));
            if perm > 7 {
                return Err(AclSyntax::Permission(perm));
            }
            let named = AclEntry { id: u32::from_ne_bytes(id), perm };
            let base = match tag {
                USER_OBJ => &mut rule.owner,
                GROUP_OBJ => &mut rule.group,
                MASK => &mut rule.mask,
                OTHER => &mut rule.other,
                USER => {
                    rule.named_users.push(named);
                    continue;
                }
                GROUP => {
                    rule.named_groups.push(named);
                    continue;
                }
                _ => return Err(AclSyntax::Tag(tag)),
            };
            if *base != UNDEFINED {
                return Err(AclSyntax::Duplicate(tag));
            }
            *base = perm;
        }
        if rule.mask == UNDEFINED && !rule.is_minimal() {
            return Err(AclSyntax::NoMask);
        }
        Ok(rule)
    }
}
