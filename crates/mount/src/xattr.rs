//! Requests for extended attributes.

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_fuse::Op;
use ciderfs_meta::{Caller, Errno, XattrSet};

use crate::handler::{Answer, Answered, Bridge};

/// Which extended attributes a mount has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrOptions {
    /// Any at all.
    pub enabled: bool,
    /// `security.capability`.
    pub capability: bool,
    /// `security.selinux`, the label of SELinux.
    pub selinux: bool,
}

impl Default for XattrOptions {
    fn default() -> Self {
        Self { enabled: true, capability: true, selinux: true }
    }
}

impl XattrOptions {
    /// Is an attribute of that name left out?
    fn hides(self, name: &[u8]) -> bool {
        (!self.capability && name == b"security.capability") || self.has_no_labels(name)
    }

    /// Is that the label of SELinux, and does this mount have none? Said so, programs ask about one file and not about each.
    fn has_no_labels(self, name: &[u8]) -> bool {
        !self.selinux && name == b"security.selinux"
    }
}

impl Bridge {
    /// Answers GETXATTR, LISTXATTR, SETXATTR and REMOVEXATTR.
    pub(crate) async fn xattr(&self, c: &Caller, ino: Ino, op: Op<'_>) -> Answer<Answered> {
        match op {
            Op::Getxattr { name, .. } if self.xattr.has_no_labels(name) => Err(Errno::EOPNOTSUPP.into()),
            Op::Getxattr { name, .. } if self.xattr.hides(name) => Err(Errno::ENODATA.into()),
            Op::Getxattr { name, size } => fit(self.vfs.get_xattr(c, ino, name).await?, size),
            Op::Listxattr { size } => {
                let mut out = Vec::new();
                for name in self.vfs.list_xattrs(c, ino).await? {
                    if !self.xattr.hides(&name) {
                        out.extend_from_slice(&name);
                        out.push(0);
                    }
                }
                fit(Bytes::from(out), size)
            }
            Op::Setxattr { name, .. } | Op::Removexattr { name } if self.xattr.hides(name) => {
                Err(Errno::EOPNOTSUPP.into())
            }
            Op::Setxattr { name, value, flags, acl_kill_sgid } => {
                let set = match flags as i32 {
                    f if f & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 => {
                        return Err(Errno::EINVAL.into());
                    }
                    f => XattrSet {
                        create: f & libc::XATTR_CREATE != 0,
                        replace: f & libc::XATTR_REPLACE != 0,
                        clear_setgid: acl_kill_sgid,
                    },
                };
                self.vfs.set_xattr(c, ino, name, Bytes::copy_from_slice(value), set).await?;
                Ok(Answered::Empty)
            }
            Op::Removexattr { name } => {
                self.vfs.remove_xattr(c, ino, name).await?;
                Ok(Answered::Empty)
            }
            _ => Err(Errno::ENOSYS.into()),
        }
    }
}

/// A value for a buffer of `size` bytes; 0 asks how long it is.
fn fit(value: Bytes, size: u32) -> Answer<Answered> {
    match size {
        // Values and lists are far below 4 GiB.
        0 => Ok(Answered::XattrSize(value.len() as u32)),
        size if value.len() > size as usize => Err(Errno::ERANGE.into()),
        _ => Ok(Answered::Xattr(value)),
    }
}
