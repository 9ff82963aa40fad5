//! What the engine has told of files that were opened of late (`--open-cache`).
//!
//! For a time they are opened again, and their attributes told, without asking the engine. What others change meanwhile is seen
//! when that time is over, or before, when anything else tells of it; what this mount changes is seen at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, ChunkView, Errno, OpenFlags, Version};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::content::file::File;
use crate::content::moment::Moment;
use crate::error::Result;
use crate::io::open::Met;
use crate::vfs::{OpenCache, Vfs};

/// Files above which those that are too old to be used are dropped.
const SWEPT_FROM: usize = 1024;

/// Pieces of content remembered of one file, 24 bytes each: lists of fragmented files may be long, and are asked for again.
const PIECES_MAX: usize = 128;

/// Chunks of a file that are known, by their index.
type Views = Arc<HashMap<u32, ChunkView>>;

/// Files by inode, as they were told.
pub(crate) struct Remembered {
    cfg: OpenCache,
    files: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_ino: HashMap<Ino, Kept>,
    /// So many are remembered when those that are too old are looked for.
    sweep_at: usize,
}

/// A file as the engine told it.
#[derive(Clone)]
struct Kept {
    attr: Attr,
    /// When it was asked.
    asked: Instant,
    views: Views,
}

impl Remembered {
    pub(crate) fn new(cfg: OpenCache) -> Self {
        Self { cfg, files: Mutex::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.cfg.valid.is_zero()
    }

    /// What was told not too long ago, and for how long it counts yet.
    fn fresh(&self, ino: Ino) -> Option<(Kept, Duration)> {
        if !self.is_on() {
            return None;
        }
        let files = self.files.lock();
        let kept = files.by_ino.get(&ino)?;
        let left = self.cfg.valid.checked_sub(kept.asked.elapsed()).filter(|left| !left.is_zero())?;
        Some((kept.clone(), left))
    }

    /// The engine, asked at a time, has told the attributes of a file that is or was open here. What is known of its content
    /// stays, if it is still that content.
    fn keep(&self, ino: Ino, attr: &Attr, asked: Instant, changed: impl Fn() -> bool) {
        let files = &mut *self.files.lock();
        // Under the lock: whoever changes it says so first, and forgets it then.
        if changed() {
            return;
        }
        let views = match files.by_ino.get(&ino) {
            Some(kept) if kept.asked > asked => return,
            Some(kept) if Version::of(&kept.attr) == Version::of(attr) => Arc::clone(&kept.views),
            _ => Views::default(),
        };
        files.shrink(self.cfg);
        files.by_ino.insert(ino, Kept { attr: attr.clone(), asked, views });
    }

    /// The engine, asked at a time, has told the attributes of any node.
    fn see(&self, ino: Ino, attr: &Attr, asked: Instant) {
        let mut files = self.files.lock();
        if let Some(kept) = files.by_ino.get_mut(&ino) {
            if kept.attr == *attr {
                kept.asked = kept.asked.max(asked);
            } else {
                // Somebody has changed it; which of the two is newer the next open finds out.
                files.by_ino.remove(&ino);
            }
        }
    }

    /// The lists of a file are others now; its content is the same.
    pub(crate) fn forget_views(&self, ino: Ino) {
        if let Some(kept) = self.files.lock().by_ino.get_mut(&ino) {
            kept.views = Views::default();
        }
    }

    /// What this mount changes is seen at once, also where [`Meta::believes`](ciderfs_meta::Meta::believes) has forgotten the node.
    pub(crate) fn forget(&self, ino: Ino) {
        if !self.is_on() {
            return;
        }
        self.files.lock().by_ino.remove(&ino);
    }

    /// What is known of the content of a file that is open here.
    fn keep_views(&self, ino: Ino, version: Version, views: impl FnOnce() -> HashMap<u32, ChunkView>) {
        let mut files = self.files.lock();
        let Some(kept) = files.by_ino.get_mut(&ino) else { return };
        if Version::of(&kept.attr) == version {
            kept.views = Arc::new(views());
        } else {
            files.by_ino.remove(&ino);
        }
    }
}

impl Table {
    /// Drops what is too old, now and then, and more if there is no room for another one.
    fn shrink(&mut self, OpenCache { valid, limit }: OpenCache) {
        let too_many = |n: usize| limit > 0 && n >= limit;
        if self.by_ino.len() < self.sweep_at.max(SWEPT_FROM) && !too_many(self.by_ino.len()) {
            return;
        }
        self.by_ino.retain(|_, kept| kept.asked.elapsed() < valid);
        if too_many(self.by_ino.len()) {
            let mut keep = true;
            self.by_ino.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        self.sweep_at = self.by_ino.len().saturating_mul(2);
    }
}

impl Vfs {
    /// Opens a file as it is remembered; `None` if the engine is to be asked. It is asked for every open that writes: what is
    /// written must not rest on an old length or mode, and the commit would ask it anyway.
    pub(crate) async fn open_from_memory(&self, c: &Caller, ino: Ino, how: OpenFlags) -> Result<Option<Met>> {
        if how.write || how.truncate {
            return Ok(None);
        }
        let since = Moment::now();
        let Some((kept, _)) = self.remembered.fresh(ino) else { return Ok(None) };
        let version = Version::of(&kept.attr);
        if !self.meta.open_as_known(c, ino, &kept.attr, how).await? {
            return Ok(None);
        }
        let (file, first_handle) = self.files.open(ino, &kept.attr);
        if first_handle {
            let views = kept.views.iter().map(|(indx, view)| (*indx, view.clone()));
            file.state.lock().extend_views(views);
        }
        // What this mount has changed meanwhile, or has met through another handle, is newer.
        if self.is_overtaken(ino, since) || !file.knows(version) {
            self.files.close(ino);
            self.meta.close(ino).await?;
            return Ok(None);
        }
        Ok(Some(Met { file, attr: kept.attr, version, gone: false }))
    }

    /// Attributes of a file as they are remembered, with what is not flushed yet, and for how long they count.
    pub(crate) fn attr_in_memory(&self, ino: Ino) -> Option<(Attr, Duration)> {
        let (kept, left) = self.remembered.fresh(ino)?;
        if !self.meta.believes(ino, &kept.attr) {
            return None;
        }
        let attr = match self.files.get(ino) {
            None => kept.attr,
            Some(file) => file.tell_remembered(&kept.attr)?,
        };
        Some((attr, left))
    }

    /// The engine was asked, at a time and a moment, and has told the attributes of a file that is open here.
    pub(crate) fn remember(&self, ino: Ino, attr: &Attr, asked: Instant, since: Moment) {
        // One without a name is opened for those only who hold it.
        if self.remembered.is_on() && attr.is_file() && attr.nlink > 0 && !attr.in_trash() {
            self.remembered.keep(ino, attr, asked, || self.is_overtaken(ino, since));
        }
    }

    /// The same of a node that nobody may have open.
    pub(crate) fn recall(&self, ino: Ino, attr: &Attr, asked: Instant) {
        if self.remembered.is_on() {
            self.remembered.see(ino, attr, asked);
        }
    }

    /// The engine has answered with an error: nothing that it told of a file that is gone counts any more.
    pub(crate) fn disbelieve(&self, ino: Ino, e: &ciderfs_meta::Error) {
        if self.remembered.is_on() && e.errno() == Errno::ENOENT {
            self.remembered.forget(ino);
        }
    }

    /// A handle is about to be closed: what is known of the content may serve the next open.
    pub(crate) fn remember_views(&self, file: &File) {
        if !self.remembered.is_on() {
            return;
        }
        let s = file.state.lock();
        self.remembered.keep_views(file.ino, s.version(), || few(s.views().collect()));
    }
}

/// As many chunks, from the first of the file, as have no more pieces than may be remembered.
fn few(mut views: Vec<(u32, &ChunkView)>) -> HashMap<u32, ChunkView> {
    views.sort_unstable_by_key(|(indx, _)| *indx);
    let mut pieces = 0;
    let fits = |(_, view): &(u32, &ChunkView)| {
        pieces += view.extents.len();
        pieces <= PIECES_MAX
    };
    views.into_iter().take_while(fits).map(|(indx, view)| (indx, view.clone())).collect()
}

#[cfg(test)]
mod tests {
    use ciderfs_format::{Extent, SliceId, Time};

    use super::*;
    use crate::tests::support::file_attr;

    fn attr(length: u64) -> Attr {
        file_attr(length, Time::default())
    }

    fn remembering(valid: Duration, limit: usize) -> Remembered {
        Remembered::new(OpenCache { valid, limit })
    }

    fn keep(r: &Remembered, ino: u64) {
        r.keep(Ino(ino), &attr(ino), Instant::now(), || false);
    }

    fn len(r: &Remembered) -> usize {
        r.files.lock().by_ino.len()
    }

    #[test]
    fn as_many_files_as_allowed_are_remembered() {
        let r = remembering(Duration::from_secs(1000), 10);
        for n in 0..1000 {
            keep(&r, n);
            assert!(len(&r) <= 10);
            assert!(r.fresh(Ino(n)).is_some(), "{n}");
        }
        let one = remembering(Duration::from_secs(1000), 1);
        (0..10).for_each(|n| keep(&one, n));
        assert!(len(&one) == 1 && one.fresh(Ino(9)).is_some());
        let unlimited = remembering(Duration::from_secs(1000), 0);
        (0..20_000).for_each(|n| keep(&unlimited, n));
        assert_eq!(len(&unlimited), 20_000);
        let off = remembering(Duration::ZERO, 10);
        keep(&off, 1);
        assert!(!off.is_on() && off.fresh(Ino(1)).is_none());
    }

    #[test]
    fn what_is_too_old_goes() {
        let r = remembering(Duration::from_nanos(1), 0);
        for n in 0..100_000 {
            keep(&r, n);
            assert!(len(&r) <= SWEPT_FROM);
        }
        assert!(r.fresh(Ino(99_999)).is_none());
    }

    #[test]
    fn what_was_asked_later_counts() {
        let r = remembering(Duration::from_secs(1000), 0);
        let early = Instant::now();
        let late = early + Duration::from_millis(1);
        r.keep(Ino(1), &attr(5), late, || false);
        r.keep(Ino(1), &attr(4), early, || false);
        assert_eq!(r.fresh(Ino(1)).unwrap().0.attr.length, 5);
        // Changed here since it was asked.
        r.keep(Ino(1), &attr(6), late, || true);
        assert_eq!(r.fresh(Ino(1)).unwrap().0.attr.length, 5);
        r.see(Ino(1), &attr(5), early);
        assert_eq!(r.fresh(Ino(1)).unwrap().0.asked, late);
        r.see(Ino(1), &attr(7), early);
        assert!(r.fresh(Ino(1)).is_none());
    }

    #[test]
    fn of_long_lists_few_are_remembered() {
        let piece = Extent { pos: 0, len: 1, id: SliceId(1), size: 1, off: 0 };
        let view = |pieces: usize| ChunkView { extents: vec![piece; pieces].into(), records: pieces };
        let kept = |pieces: &[usize]| {
            let views: Vec<ChunkView> = pieces.iter().map(|n| view(*n)).collect();
            let mut kept: Vec<u32> = few((0..).zip(&views).collect()).into_keys().collect();
            kept.sort_unstable();
            kept
        };
        assert_eq!(kept(&[1; 64]), (0..64).collect::<Vec<_>>());
        assert_eq!(kept(&[100, 28, 1]), [0, 1]);
        assert_eq!(kept(&[129, 1]), Vec::<u32>::new());
    }

    #[test]
    fn content_is_known_of_its_version_alone() {
        let r = remembering(Duration::from_secs(1000), 0);
        let view = || HashMap::from([(3, ChunkView { extents: Arc::from([]), records: 1 })]);
        let known = || r.fresh(Ino(1)).map(|(kept, _)| kept.views.len());
        keep(&r, 1);
        r.keep_views(Ino(1), Version::of(&attr(1)), view);
        assert_eq!(known(), Some(1));
        r.keep(Ino(1), &Attr { mode: 0o600, ..attr(1) }, Instant::now(), || false);
        assert_eq!(known(), Some(1));
        r.keep(Ino(1), &attr(2), Instant::now(), || false);
        assert_eq!(known(), Some(0));
        r.keep_views(Ino(1), Version::of(&attr(1)), view);
        assert_eq!(known(), None, "an open file has met another version");
    }
}
