//! Copies of whole trees in the metadata: no data moves, the copies share it.
//!
//! A tree is copied to a place where nobody looks, and gets its name when it is complete.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciderfs_format::{Attr, FileType, Ino};
use ciderfs_meta::store::{DirCursor, DirEntry};
use ciderfs_meta::{Caller, Errno, Error, Meta, NewNode, Result, SetAttr, SetTime, XattrSet};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::volumes::MARK;

/// Entries of a page, and how many of them are copied at a time.
const PAGE: usize = 500;
const AT_ONCE: usize = 16;
/// Bytes of a file asked for at a time; the engine's batches are smaller.
const STEP: u64 = 1 << 40;
/// ACLs are attributes of these names.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Copies what is below a directory into another one, with owners, modes, times, attributes and hard links. `done` counts what was
/// copied. What vanishes meanwhile is left out.
///
/// # Errors
/// Those of the engine; no room.
pub async fn tree(meta: &Arc<Meta>, from: Ino, to: Ino, done: &AtomicU64) -> Result<()> {
    let root = Caller::root();
    let mut linked: HashMap<Ino, Ino> = HashMap::new();
    let mut waiting = vec![(from, to)];
    let mut finished = Vec::new();
    while let Some((from, to)) = waiting.pop() {
        let mut cursor = DirCursor::Start;
        let mut seen = ciderfs_meta::SeenNames::default();
        while cursor != DirCursor::End {
            let page = match meta.list_dir(&root, from, &cursor, PAGE, true).await {
                Err(e) if e.errno() == Errno::ENOENT => break,
                other => other?,
            };
            cursor = page.next;
            let mut fresh: Vec<DirEntry> = page.entries;
            fresh.retain(|entry| seen.insert(&entry.name));
            // Further names of one file wait for the first.
            let (shared, own): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_shared);
            let dirs = stream::iter(own)
                .map(|entry| copied(meta, entry, to, done))
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?;
            waiting.extend(dirs.into_iter().flatten());
            for entry in shared {
                match linked.get(&entry.edge.ino) {
                    Some(copy) => {
                        meta.link(&root, *copy, to, &entry.name).await?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {
                        let (old, name) = (entry.edge.ino, entry.name.clone());
                        copied(meta, entry, to, done).await?;
                        if let Ok((copy, _)) = meta.lookup(&root, to, &name).await {
                            linked.insert(old, copy);
                        }
                    }
                }
            }
        }
        finished.push((from, to));
    }
    // From the leaves up: what is put into a directory changes its times.
    for (from, to) in finished.into_iter().rev() {
        match meta.getattr(from).await {
            Ok(attr) => finish(meta, from, &attr, to).await?,
            Err(e) if e.errno() == Errno::ENOENT => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_shared(entry: &DirEntry) -> bool {
    entry.edge.kind != FileType::Directory && entry.attr.as_ref().is_some_and(|a| a.nlink > 1)
}

/// Copies an entry; of a directory no more than itself, which is told.
async fn copied(meta: &Arc<Meta>, entry: DirEntry, to: Ino, done: &AtomicU64) -> Result<Option<(Ino, Ino)>> {
    match Box::pin(node(meta, &entry, to)).await {
        // It was removed meanwhile.
        Err(e) if e.errno() == Errno::ENOENT && meta.getattr(entry.edge.ino).await.is_err() => Ok(None),
        Err(e) => Err(e),
        Ok(copy) => {
            done.fetch_add(1, Ordering::Relaxed);
            Ok((entry.edge.kind == FileType::Directory).then_some((entry.edge.ino, copy)))
        }
    }
}

async fn node(meta: &Arc<Meta>, entry: &DirEntry, to: Ino) -> Result<Ino> {
    let (root, from) = (Caller::root(), entry.edge.ino);
    let attr = meta.getattr(from).await?;
    let target =
        if attr.kind == FileType::Symlink { meta.readlink(from).await? } else { bytes::Bytes::new() };
    let new =
        NewNode { kind: attr.kind, mode: attr.mode & 0o777, umask: 0, rdev: attr.rdev, target: &target };
    let (copy, _) = meta.create(&root, to, &entry.name, &new).await?;
    if attr.is_file() {
        let mut at = 0;
        loop {
            let step = meta.copy_range(&root, (from, at), (copy, at), STEP).await?;
            at += step.bytes;
            if step.bytes == 0 || step.rest == 0 {
                break;
            }
        }
    }
    if !attr.is_dir() {
        finish(meta, from, &attr, copy).await?;
    }
    Ok(copy)
}

/// Gives a copy all that its node has besides content.
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
