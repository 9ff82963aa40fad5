//! Extended attributes and ACLs. Virtual files have none.

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::store::Name;
use ciderfs_meta::{Caller, Errno, Result, XattrSet};

use crate::vfs::Vfs;

impl Vfs {
    /// The value of an attribute.
    pub async fn get_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<Bytes> {
        if ino.is_virtual() {
            return Err(Errno::ENODATA.into());
        }
        self.meta.get_xattr(c, ino, name).await
    }

    /// Names of the attributes that the caller may see.
    pub async fn list_xattrs(&self, c: &Caller, ino: Ino) -> Result<Vec<Name>> {
        if ino.is_virtual() {
            return Ok(Vec::new());
        }
        self.meta.list_xattrs(c, ino).await
    }

    /// Sets an attribute.
    pub async fn set_xattr(
        &self,
        c: &Caller,
        ino: Ino,
        name: &[u8],
        value: Bytes,
        set: XattrSet,
    ) -> Result<()> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        let attr = self.meta.set_xattr(c, ino, name, value, set).await?;
        if let (Some(attr), Some(file)) = (attr, self.files.get(ino)) {
            // An access ACL changes the mode too. The rest of these attributes may be older than what the file knows.
            let mut s = file.state.lock();
            (s.attr.mode, s.attr.access_acl) = (attr.mode, attr.access_acl);
        }
        Ok(())
    }

    /// Removes an attribute.
    pub async fn remove_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        self.meta.remove_xattr(c, ino, name).await
    }
}
