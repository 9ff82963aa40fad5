//! Volumes: directories with a mark.
//!
//! The mark is an extended attribute that only root may change, so no pod can. A volume whose directory is named by a pattern is
//! found by its id in `/.volumes`, where the mark is that of an empty directory; several of them may share one directory.
//! Directories of the official driver have no mark; they are volumes as far as their name says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use ciderfs_format::{FileType, Ino};
use ciderfs_meta::store::{DirCursor, QuotaKey};
use ciderfs_meta::{Caller, Errno, Error, Meta, NewNode, Result, XattrSet};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::ids;
use crate::sweep::discard;

/// The attribute that marks a volume.
pub const MARK: &[u8] = b"trusted.ciderfs.csi";
/// On a copy whose volume is listed: the id of that.
const COPY_FOR: &[u8] = b"trusted.ciderfs.csi.copy";
/// On a directory by a pattern that was made for a volume, its own inode: it goes with the last volume that uses it. One that was
/// there before has no such note, and stays; a clone has that of another.
const MADE: &[u8] = b"trusted.ciderfs.csi.made";
/// Volumes by their ids, where the directory has another name.
pub const VOLUMES: &str = ".volumes";
/// A rename that replaces nothing (`RENAME_NOREPLACE`).
pub const NOREPLACE: u32 = 1;
/// Entries of a page.
const PAGE: usize = 1000;
/// Marks read at a time.
const AT_ONCE: usize = 32;

/// What a volume was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A snapshot, by its id in the words of the interface.
    Snapshot(String),
    /// Another volume.
    Volume(String),
}

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The name that was asked for.
    pub name: String,
    /// The quota in bytes, 0 for none.
    pub capacity: i64,
    /// The directory, where the id does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// A volume that was found.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its directory from the root, without a slash at either end.
    pub path: String,
    /// The inode, unless the directory is missing.
    pub dir: Option<Ino>,
    /// What the mark says; one of the official driver has none.
    pub mark: Option<Mark>,
    /// Where the mark is.
    marked: Ino,
}

impl Volume {
    /// Is it found by its entry in [`VOLUMES`]?
    pub fn is_listed(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.path.is_some())
    }
}

/// Is it the answer for what is not there (any more)?
pub fn is_gone(e: &Error) -> bool {
    matches!(e.errno(), Errno::ENOENT | Errno::ENOTDIR)
}

/// A directory of our own in the root, made if it is missing. Nobody but root looks into it.
///
/// # Errors
/// Those of the engine.
pub async fn hidden_dir(meta: &Meta, name: &str) -> Result<Ino> {
    match make_dir(meta, Ino::ROOT, name, 0o700).await {
        Err(e) if e.errno() == Errno::EEXIST => {
            let (ino, attr) = meta.lookup(&Caller::root(), Ino::ROOT, name.as_bytes()).await?;
            if attr.is_dir() { Ok(ino) } else { Err(Errno::ENOTDIR.into()) }
        }
        other => other,
    }
}

/// Makes a directory.
///
/// # Errors
/// `EEXIST`, those of the engine.
pub async fn make_dir(meta: &Meta, parent: Ino, name: &str, mode: u16) -> Result<Ino> {
    let node = NewNode { kind: FileType::Directory, mode, umask: 0, rdev: 0, target: b"" };
    Ok(meta.create(&Caller::root(), parent, name.as_bytes(), &node).await?.0)
}

/// The directory of a name in another one, if there is one.
///
/// # Errors
/// Those of the engine.
pub async fn dir_in(meta: &Meta, parent: Ino, name: &str) -> Result<Option<Ino>> {
    match meta.lookup(&Caller::root(), parent, name.as_bytes()).await {
        Ok((ino, attr)) => Ok(attr.is_dir().then_some(ino)),
        Err(e) if is_gone(&e) || e.errno() == Errno::ENAMETOOLONG => Ok(None),
        Err(e) => Err(e),
    }
}

/// The directory at a path from the root, if there is one.
///
/// # Errors
/// Those of the engine.
pub async fn dir_at(meta: &Meta, path: &str) -> Result<Option<Ino>> {
    match meta.dir_at(path.as_bytes(), false).await {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What an attribute of ours says; nothing if it is missing or nonsense.
///
/// # Errors
/// Those of the engine.
pub async fn read_mark<T: for<'a> Deserialize<'a>>(meta: &Meta, ino: Ino) -> Result<Option<T>> {
    match meta.get_xattr(&Caller::root(), ino, MARK).await {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(e) if e.errno() == Errno::ENODATA || is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets the attribute.
///
/// # Errors
/// Those of the engine.
pub async fn write_mark<T: Serialize>(meta: &Meta, ino: Ino, mark: &T) -> Result<()> {
    let text = serde_json::to_vec(mark).unwrap_or_default();
    meta.set_xattr(&Caller::root(), ino, MARK, Bytes::from(text), XattrSet::default()).await.map(|_| ())
}

/// Notes for which volume a tree was copied.
///
/// # Errors
/// Those of the engine.
pub async fn mark_copy(meta: &Meta, dir: Ino, id: &str) -> Result<()> {
    let id = Bytes::copy_from_slice(id.as_bytes());
    meta.set_xattr(&Caller::root(), dir, COPY_FOR, id, XattrSet::default()).await.map(|_| ())
}

/// Notes that a directory was made for a volume.
///
/// # Errors
/// Those of the engine.
pub async fn mark_made(meta: &Meta, dir: Ino) -> Result<()> {
    let text = Bytes::from(dir.to_string());
    meta.set_xattr(&Caller::root(), dir, MADE, text, XattrSet::default()).await.map(|_| ())
}

async fn was_made(meta: &Meta, dir: Ino) -> Result<bool> {
    match meta.get_xattr(&Caller::root(), dir, MADE).await {
        Ok(of) => Ok(of == dir.to_string().as_bytes()),
        Err(e) if e.errno() == Errno::ENODATA || is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Was a tree copied for this volume?
///
/// # Errors
/// Those of the engine.
pub async fn is_copy_for(meta: &Meta, dir: Ino, id: &str) -> Result<bool> {
    match meta.get_xattr(&Caller::root(), dir, COPY_FOR).await {
        Ok(of) => Ok(of == id.as_bytes()),
        Err(e) if e.errno() == Errno::ENODATA => Ok(false),
        Err(e) => Err(e),
    }
}

/// Finds a volume.
///
/// # Errors
/// Those of the engine.
pub async fn find(meta: &Meta, id: &str) -> Result<Option<Volume>> {
    if !ids::is_usable(id) {
        return Ok(None);
    }
    let own = dir_in(meta, Ino::ROOT, id).await?;
    if let Some(dir) = own
        && let Some(mark) = read_mark::<Mark>(meta, dir).await?
    {
        return Ok(Some(Volume { id: id.into(), path: id.into(), dir: own, mark: Some(mark), marked: dir }));
    }
    if let Some(list) = dir_in(meta, Ino::ROOT, VOLUMES).await?
        && let Some(entry) = dir_in(meta, list, id).await?
        && let Some(volume) = listed(meta, id, entry).await?
    {
        return Ok(Some(volume));
    }
    let foreign = own.filter(|_| ids::is_of_a_claim(id));
    Ok(foreign.map(|dir| Volume { id: id.into(), path: id.into(), dir: own, mark: None, marked: dir }))
}

async fn listed(meta: &Meta, id: &str, entry: Ino) -> Result<Option<Volume>> {
    let Some(mark) = read_mark::<Mark>(meta, entry).await? else { return Ok(None) };
    let Some(path) = mark.path.clone() else { return Ok(None) };
    let dir = dir_at(meta, &path).await?;
    Ok(Some(Volume { id: id.into(), path, dir, mark: Some(mark), marked: entry }))
}

/// The quota of a volume, 0 for none.
///
/// # Errors
/// Those of the engine.
pub async fn capacity(meta: &Meta, volume: &Volume) -> Result<i64> {
    match (&volume.mark, volume.dir) {
        (Some(mark), _) => Ok(mark.capacity),
        (None, Some(dir)) => {
            let quota = meta.quota(QuotaKey::Dir(dir)).await?;
            Ok(quota.map_or(0, |q| q.limits.max_space).max(0))
        }
        (None, None) => Ok(0),
    }
}

/// Gives a directory the quota of a volume. One that several share has the largest.
///
/// # Errors
/// Those of the engine.
pub async fn set_quota(meta: &Meta, dir: Ino, capacity: i64, shares: bool) -> Result<()> {
    if capacity <= 0 {
        return Ok(());
    }
    let old = meta.quota(QuotaKey::Dir(dir)).await?.map(|q| q.limits.max_space);
    let enough = |old: i64| old == capacity || (shares && old > capacity);
    if !old.is_some_and(enough) {
        meta.set_quota(QuotaKey::Dir(dir), Some(capacity), None).await?;
    }
    Ok(())
}

/// Lists a volume whose directory has another name than its id: the directory is spoken for from then on.
///
/// # Errors
/// Those of the engine.
pub async fn list_as(meta: &Meta, id: &str, mark: &Mark) -> Result<()> {
    let list = hidden_dir(meta, VOLUMES).await?;
    let entry = match make_dir(meta, list, id, 0o700).await {
        Err(e) if e.errno() == Errno::EEXIST => meta.lookup(&Caller::root(), list, id.as_bytes()).await?.0,
        other => other?,
    };
    write_mark(meta, entry, mark).await
}

/// Another size.
///
/// # Errors
/// Those of the engine.
pub async fn resize(meta: &Meta, volume: &Volume, capacity: i64) -> Result<()> {
    if let Some(dir) = volume.dir {
        set_quota(meta, dir, capacity, volume.is_listed()).await?;
    }
    match &volume.mark {
        Some(mark) => write_mark(meta, volume.marked, &Mark { capacity, ..mark.clone() }).await,
        None => Ok(()),
    }
}

/// Removes a volume: its directory is gone for everybody afterwards, and what was in it is removed in the background. A directory
/// that another volume needs stays, and so does one by a pattern that was there before.
///
/// # Errors
/// Those of the engine.
pub async fn remove(meta: &Meta, volume: &Volume) -> Result<()> {
    let is_needed = is_needed_by_others(meta, volume).await?;
    if is_needed {
        tracing::warn!("{}: another volume uses /{}: the directory stays", volume.id, volume.path);
    } else if let Some(dir) = volume.dir {
        if volume.is_listed() && !was_made(meta, dir).await? {
            tracing::warn!(
                "{}: nothing shows that /{} was made for a volume of this driver: it stays with all that is in it. Remove it yourself if \
                 nobody needs it",
                volume.id,
                volume.path
            );
            return unlist(meta, &volume.id).await;
        }
        let (above, name) = volume.path.rsplit_once('/').unwrap_or(("", &volume.path));
        let parent = meta.dir_at(above.as_bytes(), false).await?;
        match discard(meta, parent, name).await {
            Err(e) if is_gone(&e) => {}
            other => other?,
        }
    }
    if !volume.is_listed() {
        return if is_needed { unmark(meta, volume.marked).await } else { Ok(()) };
    }
    unlist(meta, &volume.id).await
}

/// Takes a volume from the list.
///
/// # Errors
/// Those of the engine.
pub async fn unlist(meta: &Meta, id: &str) -> Result<()> {
    let list = hidden_dir(meta, VOLUMES).await?;
    match meta.rmdir(&Caller::root(), list, id.as_bytes()).await {
        Err(e) if is_gone(&e) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Does another volume use the directory, or a part of it?
async fn is_needed_by_others(meta: &Meta, volume: &Volume) -> Result<bool> {
    let (top, _) = volume.path.split_once('/').unwrap_or((&volume.path, ""));
    if top != volume.id
        && let Some(dir) = dir_in(meta, Ino::ROOT, top).await?
        && (read_mark::<Mark>(meta, dir).await?.is_some() || ids::is_of_a_claim(top))
    {
        return Ok(true);
    }
    let others = listed_ones(meta).await?;
    Ok(others.iter().any(|other| other.id != volume.id && touches(&other.path, &volume.path)))
}

async fn unmark(meta: &Meta, ino: Ino) -> Result<()> {
    match meta.remove_xattr(&Caller::root(), ino, MARK).await {
        Err(e) if e.errno() == Errno::ENODATA => Ok(()),
        other => other,
    }
}

/// Is one of the directories in the other, or the same?
fn touches(a: &str, b: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_in(a, b) || is_in(b, a)
}

/// All volumes, by their ids: those with a mark, and what [`find`] takes for one of the official driver.
///
/// # Errors
/// Those of the engine.
pub async fn all(meta: &Meta) -> Result<BTreeMap<String, Volume>> {
    let dirs = dirs_in(meta, Ino::ROOT).await?.into_iter().filter(|(id, _)| ids::is_usable(id));
    let marks = stream::iter(dirs)
        .map(async |(id, dir)| Ok::<_, Error>((read_mark::<Mark>(meta, dir).await?, id, dir)))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let own = marks.into_iter().filter(|(mark, id, _)| mark.is_some() || ids::is_of_a_claim(id));
    let own = own.map(|(mark, id, dir)| Volume { path: id.clone(), id, dir: Some(dir), mark, marked: dir });
    // These come last: what is in the list counts, whatever lies in the root under the id.
    let listed = listed_ones(meta).await?;
    Ok(own.chain(listed).map(|volume| (volume.id.clone(), volume)).collect())
}

/// The ids of listed volumes whose directories are a directory, lie in it or around it.
///
/// # Errors
/// Those of the engine.
pub async fn listed_within(meta: &Meta, path: &str) -> Result<Vec<String>> {
    let others = listed_ones(meta).await?.into_iter();
    Ok(others.filter(|other| touches(&other.path, path)).map(|other| other.id).collect())
}

/// The volumes whose directories have other names than their ids.
async fn listed_ones(meta: &Meta) -> Result<Vec<Volume>> {
    let Some(list) = dir_in(meta, Ino::ROOT, VOLUMES).await? else { return Ok(Vec::new()) };
    let found = stream::iter(dirs_in(meta, list).await?)
        .map(async |(id, entry)| listed(meta, &id, entry).await)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Directories in a directory; names that are no text are none of ours.
///
/// # Errors
/// Those of the engine.
pub async fn dirs_in(meta: &Meta, dir: Ino) -> Result<BTreeMap<String, Ino>> {
    let mut out = BTreeMap::new();
    let mut cursor = DirCursor::Start;
    while cursor != DirCursor::End {
        let page = match meta.list_dir(&Caller::root(), dir, &cursor, PAGE, false).await {
            Err(e) if is_gone(&e) => break,
            other => other?,
        };
        cursor = page.next;
        let dirs = page.entries.into_iter().filter(|e| e.edge.kind == FileType::Directory);
        out.extend(dirs.filter_map(|e| Some((String::from_utf8(e.name).ok()?, e.edge.ino))));
    }
    Ok(out)
}

/// Has a directory nothing in it?
///
/// # Errors
/// Those of the engine.
pub async fn is_empty(meta: &Meta, dir: Ino) -> Result<bool> {
    let mut cursor = DirCursor::Start;
    while cursor != DirCursor::End {
        let page = meta.list_dir(&Caller::root(), dir, &cursor, 2, false).await?;
        if !page.entries.is_empty() {
            return Ok(false);
        }
        cursor = page.next;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_touch() {
        for (a, b, expect) in [
            ("a", "a", true),
            ("a/b", "a", true),
            ("a", "a/b/c", true),
            ("ab", "a", false),
            ("a/b", "a/c", false),
            ("pvc-1", "pvc-10", false),
        ] {
            assert_eq!(touches(a, b), expect, "{a} {b}");
        }
    }
}
