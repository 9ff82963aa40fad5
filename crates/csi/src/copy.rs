//! Copies of whole trees in the metadata: no data moves, the copies share it.
//!
//! A tree is copied to a place where nobody looks, and gets its name when it is complete.

use std::sync::Arc;

use ciderfs_format::{Attr, FileType, Ino};
use ciderfs_meta::{
    Caller, CloneOptions, CloneProgress, Errno, Error, Meta, Result, SetAttr, SetTime, XattrSet,
};

use crate::volumes::MARK;

/// Commits under way at a time.
const AT_ONCE: usize = 8;
/// ACLs are attributes of these names.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Copies what is below a directory into another one, with owners, modes, times, attributes and hard links. What vanishes meanwhile is left out; each file is as it was at one moment.
///
/// # Errors
/// Those of the engine; no room.
pub async fn tree(meta: &Arc<Meta>, from: Ino, to: Ino, progress: &Arc<CloneProgress>) -> Result<()> {
    let root = Caller::root();
    let options = CloneOptions { preserve: true, umask: 0, at_once: AT_ONCE, without_xattrs: Some(MARK) };
    meta.clone_below(&root, from, to, &options, progress).await?;
    match meta.getattr(from).await {
        Ok(attr) => finish(meta, from, &attr, to).await,
        Err(e) if e.errno() == Errno::ENOENT => Ok(()),
        Err(e) => Err(e),
    }
}

/// Gives the top of a copy all that the source has besides content.
async fn finish(meta: &Meta, from: Ino, attr: &Attr, copy: Ino) -> Result<()> {
    let root = Caller::root();
    for name in meta.list_xattrs(&root, from).await? {
        if name.starts_with(MARK) || ACLS.contains(&&*name) {
            continue;
        }
        let value = match meta.get_xattr(&root, from, &name).await {
            Err(e) if e.errno() == Errno::ENODATA => continue,
            other => other?,
        };
        ignore_odd(meta.set_xattr(&root, copy, &name, value, XattrSet::default()).await)?;
    }
    let owner = SetAttr { uid: Some(attr.uid), gid: Some(attr.gid), ..SetAttr::default() };
    if (attr.uid, attr.gid) != (0, 0) {
        meta.setattr(&root, copy, &owner).await?;
    }
    for name in ACLS {
        if let Ok(value) = meta.get_xattr(&root, from, name).await {
            meta.set_xattr(&root, copy, name, value, XattrSet::default()).await?;
        }
    }
    let rest = SetAttr {
        mode: (attr.kind != FileType::Symlink).then_some(attr.mode),
        atime: Some(SetTime::At(attr.atime)),
        mtime: Some(SetTime::At(attr.mtime)),
        flags: (attr.flags != 0).then_some(attr.flags),
        ..SetAttr::default()
    };
    meta.setattr(&root, copy, &rest).await?;
    Ok(())
}

/// Attributes that only another client sets cannot be set here.
fn ignore_odd<T>(result: Result<T>) -> Result<()> {
    match result.map_err(|e: Error| (e.errno(), e)) {
        Err((Errno::EOPNOTSUPP | Errno::EPERM, _)) | Ok(_) => Ok(()),
        Err((_, e)) => Err(e),
    }
}
