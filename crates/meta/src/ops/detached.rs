//! Trees that are built without a name, and the end of those that never get one (`docs/format/inodes-and-attributes.md#clones`).
//!
//! Whoever removes one makes the trash its parent first: nobody can give it a name from then on, and no directory with a quota is
//! above it.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_rt::Instant;

use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Commit, Guard, Outcome, Read, Scan, Scanned, Write};
use crate::volume::Meta;

/// Whoever builds a tree marks it more often; the official client once, and takes them away at this age, too.
const ABANDONED: i64 = 24 * 3600;
/// Trees removed in one run of the job.
const TREES_MAX: usize = 1000;
/// Attempts against a client that goes on building.
const ATTEMPTS_MAX: usize = 20;

/// A tree that this client builds. It is removed if that ends before it has a name.
pub(super) struct Unfinished {
    meta: Arc<Meta>,
    top: Option<Ino>,
}

impl Unfinished {
    pub(super) fn new(meta: &Arc<Meta>, top: Ino) -> Self {
        Self { meta: Arc::clone(meta), top: Some(top) }
    }

    /// It has its name.
    pub(super) fn done(mut self) {
        self.top = None;
    }

    /// It will have none.
    pub(super) async fn remove(mut self) {
        if let Some(top) = self.top.take() {
            self.meta.drop_unfinished(top).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(top) = self.top
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let meta = Arc::clone(&self.meta);
            runtime.spawn(async move { meta.drop_unfinished(top).await });
        }
    }
}

impl Meta {
    /// Says that somebody is building a tree.
    pub(crate) async fn mark_detached(&self, top: Ino) -> Result<()> {
        // Only the parent is compared: it has none.
        let nameless = Attr { parent: Ino(0), ..crate::volume::synthetic_dir(top) };
        let commit = Commit {
            guards: vec![Guard::Attr { ino: top, expect: Some(nameless), mask: AttrMask::PARENT }],
            writes: vec![
                Write::PutDetached(top, self.fleet_now()),
                Write::PatchAttr(top, AttrPatch { ctime: Some(self.clock.now()), ..AttrPatch::default() }),
            ],
        };
        match self.commit_repeatable(&commit).await? {
            Outcome::Done(_) => Ok(()),
            // Somebody has taken it for abandoned.
            Outcome::Conflict(_) => Err(Errno::ENOENT.into()),
        }
    }

    async fn drop_unfinished(&self, top: Ino) {
        let removed = async {
            if self.disown(top, |parent| parent.0 == 0).await? {
                self.remove_disowned(top).await
            } else {
                Ok(())
            }
        };
        if let Err(e) = removed.await {
            tracing::warn!(
                "what was cloned so far (inode {top}) is left to the clean-up of the day after: {e}"
            );
        }
    }

    /// Removes trees that somebody began to build and will not complete.
    pub(crate) async fn clean_detached(&self, now: i64) -> Result<()> {
        for item in self.scan(Scan::Detached(now.saturating_sub(ABANDONED)), TREES_MAX).await? {
            let Scanned::Ino(top) = item else { continue };
            if let Err(e) = self.clean_one_detached(top).await {
                tracing::warn!("inode {top}, which somebody began to clone: {e}");
            }
        }
        self.drain_deletions().await;
        Ok(())
    }

    async fn clean_one_detached(&self, top: Ino) -> Result<()> {
        let parent = match self.getattr_of(top).await {
            Ok(a) => a.parent,
            Err(e) if e.errno() == Errno::ENOENT => return self.forget_mark(top).await,
            Err(e) => return Err(e),
        };
        // The official client notes from the beginning where a tree is to go: it may be there by now.
        let is_there = parent.0 != 0
            && parent != Ino::TRASH
            && self.all_entries(parent).await?.iter().any(|e| e.edge.ino == top);
        if is_there {
            return self.forget_mark(top).await;
        }
        tracing::info!("inode {top} was to become a clone, and nobody is at it any more: it is removed");
        if self.disown(top, |now| now == parent).await? { self.remove_disowned(top).await } else { Ok(()) }
    }

    async fn forget_mark(&self, top: Ino) -> Result<()> {
        let commit = Commit { guards: Vec::new(), writes: vec![Write::DelDetached(top)] };
        self.commit_repeatable(&commit).await.map(drop)
    }

    /// Keeps everybody from giving a tree a name, if its parent is as it must be; false if it is not.
    pub(crate) async fn disown(&self, top: Ino, is_right: impl Fn(Ino) -> bool) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let attr = match self.getattr_of(top).await {
                Err(e) if e.errno() == Errno::ENOENT => return Ok(true),
                other => other?,
            };
            if attr.parent == Ino::TRASH {
                return Ok(true);
            }
            if !is_right(attr.parent) {
                return Ok(false);
            }
            let patch = AttrPatch { parent: Some(Ino::TRASH), flags: Some(0), ..AttrPatch::default() };
            let commit = Commit {
                guards: vec![Guard::Attr { ino: top, expect: Some(attr), mask: AttrMask::PARENT }],
                writes: vec![Write::PatchAttr(top, patch)],
            };
            if let Outcome::Done(_) = self.commit_repeatable(&commit).await? {
                return Ok(true);
            }
        }
        Err(Errno::EBUSY.into())
    }

    async fn remove_disowned(&self, top: Ino) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            self.empty_dir(top, Instant::now() + Duration::from_secs(3600), true).await?;
            match self.remove_empty_top(top).await {
                // Whoever builds it has added something, for the last time.
                Err(e) if e.errno() == Errno::ENOTEMPTY => {}
                other => return other,
            }
        }
        Err(Errno::EBUSY.into())
    }

    async fn remove_empty_top(&self, top: Ino) -> Result<()> {
        self.run("Clone", |t| {
            t.want([Read::Attr(top)])?;
            t.write(Write::DelDetached(top));
            t.proof(Proof::Gone(top));
            if let Some(a) = t.attr_opt(top, AttrMask::IDENTITY)? {
                t.require_empty(top)?;
                t.write(Write::DelAttr(top));
                t.write(Write::DelXattrs(top));
                t.write(Write::DelDirStat(top));
                t.charge(Some((a.uid, a.gid)), -4096, -1);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}
