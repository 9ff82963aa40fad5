//! Removes what was deleted, in the background.
//!
//! A volume that is deleted is moved to `/.deleting` first: from then on it is gone for everybody. Whatever lies there is removed,
//! by whichever driver comes by, also after a restart. A lease keeps two drivers from doing the same; where it fails them, they
//! find things removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::store::{DirCursor, DirEntry, QuotaKey};
use ciderfs_meta::{Caller, Errno, Meta, Result, SetAttr, XattrSet};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use crate::engine::{Key, Opened};
use crate::snapshots;
use crate::volumes::{NOREPLACE, hidden_dir, is_gone};

/// Where deleted trees wait for their end.
pub const DELETING: &str = ".deleting";
/// The attribute of that directory that says who removes what is there, and until when.
const LEASE: &[u8] = b"trusted.ciderfs.csi.lease";
/// How long a lease holds.
const LEASE_TIME: Duration = Duration::from_secs(60);
/// Entries of a page, and how many of them are removed at a time.
const PAGE: usize = 500;
const AT_ONCE: usize = 16;
/// What stays of the name of a deleted tree, in characters.
const NAME_SHOWN: usize = 50;
/// After what could not be removed.
const PAUSE: Duration = Duration::from_secs(30);

/// Removes what was deleted, one task for each engine.
#[derive(Clone)]
pub struct Sweeper {
    /// Who we are in leases.
    holder: Arc<str>,
    /// Engines with a task, and whether something was deleted since it looked last.
    running: Arc<Mutex<BTreeMap<Key, bool>>>,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { holder: uuid::Uuid::new_v4().to_string().into(), running: Arc::default() }
    }
}

impl Sweeper {
    /// Sees to what was deleted in a file system, if nobody does.
    pub fn wake(&self, opened: &Opened) {
        if self.running.lock().insert(opened.key.clone(), true).is_some() {
            // The task that there is looks again.
            return;
        }
        let (this, opened) = (self.clone(), opened.clone());
        tokio::spawn(async move {
            while this.is_wanted(&opened.key) {
                let swept = async {
                    // Copies that failed are among what was deleted afterwards.
                    snapshots::collect(&opened.meta).await?;
                    sweep(&opened.meta, &this.holder).await
                };
                match Box::pin(swept).await {
                    Ok(true) => {}
                    Ok(false) => {
                        // Somebody else is at it, or has just died.
                        tokio::time::sleep(LEASE_TIME).await;
                        this.want(&opened.key);
                    }
                    Err(e) => {
                        tracing::warn!("{}: what was deleted could not be removed yet: {e}", opened.place);
                        tokio::time::sleep(PAUSE).await;
                        this.want(&opened.key);
                    }
                }
            }
        });
    }

    fn want(&self, key: &Key) {
        if let Some(again) = self.running.lock().get_mut(key) {
            *again = true;
        }
    }

    /// Is there more to do? If not, the task is over.
    fn is_wanted(&self, key: &Key) -> bool {
        let mut running = self.running.lock();
        if running.get(key) == Some(&true) {
            running.insert(key.clone(), false);
            return true;
        }
        running.remove(key);
        false
    }
}

/// Removes all that was deleted; false where somebody else does.
///
/// # Errors
/// Those of the engine.
pub async fn sweep(meta: &Meta, holder: &str) -> Result<bool> {
    let root = Caller::root();
    let dir = match meta.lookup(&root, Ino::ROOT, DELETING.as_bytes()).await {
        Err(e) if is_gone(&e) => return Ok(true),
        other => other?.0,
    };
    loop {
        let entries = some_entries(meta, dir).await?;
        if entries.is_empty() {
            release(meta, dir).await;
            return Ok(true);
        }
        for entry in entries {
            let mut lease = Lease { meta, dir, holder, renewed: 0 };
            if !lease.hold().await? {
                return Ok(false);
            }
            remove(meta, dir, &entry.name, &mut lease).await?;
        }
    }
}

/// Entries of a directory; none if it is empty.
async fn some_entries(meta: &Meta, dir: Ino) -> Result<Vec<DirEntry>> {
    let mut cursor = DirCursor::Start;
    // A page may be empty although more follows.
    while cursor != DirCursor::End {
        let page = meta.list_dir(&Caller::root(), dir, &cursor, PAGE, false).await?;
        if !page.entries.is_empty() {
            return Ok(page.entries);
        }
        cursor = page.next;
    }
    Ok(Vec::new())
}

async fn release(meta: &Meta, dir: Ino) {
    // Nobody depends on it.
    let _ = meta.remove_xattr(&Caller::root(), dir, LEASE).await;
}

/// The right to remove what is there.
struct Lease<'a> {
    meta: &'a Meta,
    dir: Ino,
    holder: &'a str,
    /// Unix seconds.
    renewed: u64,
}

impl Lease<'_> {
    /// Takes or keeps it; false if somebody else has it.
    async fn hold(&mut self) -> Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if now.abs_diff(self.renewed) < LEASE_TIME.as_secs() / 4 {
            return Ok(true);
        }
        let root = Caller::root();
        match self.meta.get_xattr(&root, self.dir, LEASE).await {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let (holder, until) = text.split_once(' ').unwrap_or_default();
                let until: u64 = until.parse().unwrap_or(0);
                // One that lies too far ahead is of a clock that was wrong.
                let holds = until > now && until <= now + LEASE_TIME.as_secs();
                if holder != self.holder && holds {
                    return Ok(false);
                }
            }
            Err(e) if e.errno() == Errno::ENODATA => {}
            Err(e) => return Err(e),
        }
        let text = format!("{} {}", self.holder, now + LEASE_TIME.as_secs());
        self.meta.set_xattr(&root, self.dir, LEASE, text.into(), XattrSet::default()).await?;
        self.renewed = now;
        Ok(true)
    }
}

/// Removes a tree.
async fn remove(meta: &Meta, dir: Ino, name: &[u8], lease: &mut Lease<'_>) -> Result<()> {
    let root = Caller::root();
    let top = match meta.lookup(&root, dir, name).await {
        Err(e) if is_gone(&e) => return Ok(()),
        other => other?,
    };
    if !top.1.is_dir() {
        return unlink(meta, dir, name).await;
    }
    let mut open = vec![(dir, name.to_vec(), top.0)];
    while let Some((parent, name, ino)) = open.last().cloned() {
        lease.hold().await?;
        let entries = match some_entries(meta, ino).await {
            Err(e) if is_gone(&e) => {
                open.pop();
                continue;
            }
            other => other?,
        };
        if entries.is_empty() {
            rmdir(meta, parent, &name).await?;
            open.pop();
            continue;
        }
        let (dirs, files): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|e| e.edge.kind == FileType::Directory);
        stream::iter(files)
            .map(|e| async move { unlink(meta, ino, &e.name).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        if let Some(first) = dirs.into_iter().next() {
            open.push((ino, first.name, first.edge.ino));
        }
    }
    Ok(())
}

async fn unlink(meta: &Meta, dir: Ino, name: &[u8]) -> Result<()> {
    let root = Caller::root();
    match meta.unlink(&root, dir, name).await {
        Err(e) if is_gone(&e) => Ok(()),
        Err(e) if e.errno() == Errno::EPERM => {
            unprotect(meta, dir, name).await?;
            meta.unlink(&root, dir, name).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

async fn rmdir(meta: &Meta, dir: Ino, name: &[u8]) -> Result<()> {
    let root = Caller::root();
    match meta.rmdir(&root, dir, name).await {
        Err(e) if is_gone(&e) || e.errno() == Errno::ENOTEMPTY => Ok(()),
        Err(e) if e.errno() == Errno::EPERM => {
            unprotect(meta, dir, name).await?;
            meta.rmdir(&root, dir, name).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

/// Takes flags (`chattr +i`) from an entry and its directory.
async fn unprotect(meta: &Meta, dir: Ino, name: &[u8]) -> Result<()> {
    let root = Caller::root();
    let none = SetAttr { flags: Some(0), ..SetAttr::default() };
    let (ino, attr) = meta.lookup(&root, dir, name).await?;
    if attr.flags != 0 {
        meta.setattr(&root, ino, &none).await?;
    }
    if meta.getattr(dir).await?.flags != 0 {
        meta.setattr(&root, dir, &none).await?;
    }
    Ok(())
}

/// Moves a tree to where it is removed: from then on it is gone. Its quota goes first, so that none stays behind.
///
/// # Errors
/// Those of the engine; `ENOENT`.
pub async fn discard(meta: &Meta, dir: Ino, name: &str) -> Result<()> {
    let root = Caller::root();
    let (ino, attr) = meta.lookup(&root, dir, name.as_bytes()).await?;
    if attr.is_dir() {
        meta.delete_quota(QuotaKey::Dir(ino)).await?;
    }
    if attr.flags != 0 {
        unprotect(meta, dir, name.as_bytes()).await?;
    }
    let trees = hidden_dir(meta, DELETING).await?;
    let start: String = name.chars().take(NAME_SHOWN).collect();
    let place = format!("{start}.{ino}");
    meta.rename(&root, dir, name.as_bytes(), trees, place.as_bytes(), NOREPLACE).await.map(|_| ())
}
