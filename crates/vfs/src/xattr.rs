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
        match self.meta.get_xattr(c, ino, name).await {
            Err(e) if e.errno() == Errno::ENOENT && self.depart_open(ino) => {
                self.meta.get_xattr(c, ino, name).await
            }
            other => other,
        }
    }

    /// Names of the attributes that the caller may see.
    pub async fn list_xattrs(&self, c: &Caller, ino: Ino) -> Result<Vec<Name>> {
        if ino.is_virtual() {
            return Ok(Vec::new());
        }
        match self.meta.list_xattrs(c, ino).await {
            Err(e) if e.errno() == Errno::ENOENT && self.depart_open(ino) => {
                self.meta.list_xattrs(c, ino).await
            }
            other => other,
        }
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
        let attr = match self.meta.set_xattr(c, ino, name, value.clone(), set).await {
            Err(e) if e.errno() == Errno::ENOENT && self.depart_open(ino) => {
                self.meta.set_xattr(c, ino, name, value, set).await?
            }
            other => other?,
        };
        if let (Some(attr), Some(file)) = (attr, self.files.get(ino)) {
            // An access ACL changes the mode too. The rest of these attributes may be older than what the file knows.
            let mut s = file.state.lock();
            (s.attr.mode, s.attr.access_acl) = (attr.mode, attr.access_acl);
        }
        Ok(())
    }

    /// Keeps what is known of an open file that another client has removed, so that it can have attributes of its own.
    fn depart_open(&self, ino: Ino) -> bool {
        let Some(file) = self.files.get(ino) else { return false };
        let last = file.state.lock().orphaned();
        self.meta.depart(ino, &last);
        true
    }

    /// Removes an attribute.
    pub async fn remove_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        match self.meta.remove_xattr(c, ino, name).await {
            Err(e) if e.errno() == Errno::ENOENT && self.depart_open(ino) => {
                self.meta.remove_xattr(c, ino, name).await
            }
            other => other,
        }
    }
}
