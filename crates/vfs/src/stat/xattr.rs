//! Extended attributes and ACLs. Virtual files have none.

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::store::Name;
use ciderfs_meta::{Caller, Errno, Result, XattrSet};

use crate::closing::Change;
use crate::vfs::Vfs;

impl Vfs {
    /// The value of an attribute.
    pub async fn get_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<Bytes> {
        if ino.is_virtual() {
            return Err(Errno::ENODATA.into());
        }
        let result = self.meta.get_xattr(c, ino, name).await;
        if self.departs(ino, &result) { self.meta.get_xattr(c, ino, name).await } else { result }
    }

    /// Names of the attributes that the caller may see.
    pub async fn list_xattrs(&self, c: &Caller, ino: Ino) -> Result<Vec<Name>> {
        if ino.is_virtual() {
            return Ok(Vec::new());
        }
        let result = self.meta.list_xattrs(c, ino).await;
        if self.departs(ino, &result) { self.meta.list_xattrs(c, ino).await } else { result }
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
        let mut result = self.meta.set_xattr(c, ino, name, value.clone(), set).await;
        if self.departs(ino, &result) {
            result = self.meta.set_xattr(c, ino, name, value, set).await;
        }
        let attr = result?;
        self.done(ino, Change::Xattr(attr.as_ref())).await;
        Ok(())
    }

    /// Was that the answer about an open file that another client has removed? What is known of it is kept then, so that it
    /// can have attributes of its own, and the question is to be asked again.
    fn departs<T>(&self, ino: Ino, result: &Result<T>) -> bool {
        let gone = result.as_ref().is_err_and(|e| e.errno() == Errno::ENOENT);
        let Some(file) = self.files.get(ino).filter(|_| gone) else { return false };
        let last = file.state.lock().orphaned();
        self.meta.depart(ino, &last);
        true
    }

    /// Removes an attribute.
    pub async fn remove_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        let mut result = self.meta.remove_xattr(c, ino, name).await;
        if self.departs(ino, &result) {
            result = self.meta.remove_xattr(c, ino, name).await;
        }
        self.done(ino, Change::Xattr(None)).await;
        result
    }
}
