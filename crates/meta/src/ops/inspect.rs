//! Looking at nodes from outside the file system: usage of trees, paths, locks.

use std::collections::HashSet;

use ciderfs_format::{Attr, Edge, Ino, SessionId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use super::rights::{DEPTH_MAX, Ways};
use super::rules::{R, X};
use crate::error::{Errno, Result};
use crate::seen::SeenNames;
use crate::store::{DirCursor, DirEntry, LockOwner, Read, Scan, Scanned, StoreError, Value};
use crate::types::Caller;
use crate::volume::Meta;

/// Entries of a page.
const PAGE: usize = 1000;
/// Directories of a tree listed at a time.
const DIRS_AT_ONCE: usize = 8;

/// Paths told of a node, and directories with links to it that are looked at.
const PATHS_MAX: usize = 1000;

/// A walk over a tree.
struct Walk<'a> {
    caller: &'a Caller,
    recursive: bool,
    usage: Mutex<TreeUsage>,
    /// Directories that were met.
    seen: Mutex<HashSet<Ino>>,
}

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeUsage {
    /// Bytes of regular files.
    pub length: u64,
    /// Bytes charged: whole blocks of 4 KiB, one at least for each node.
    pub size: u64,
    /// Nodes other than directories, once per link.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
}

impl TreeUsage {
    fn add(&mut self, attr: &Attr) {
        self.size = self.size.saturating_add(attr.charged_space());
        if attr.is_dir() {
            self.dirs += 1;
        } else {
            self.files += 1;
        }
        if attr.is_file() {
            self.length = self.length.saturating_add(attr.length);
        }
    }
}

/// Holders of locks on an inode: flocks (`true` is a write lock) and record locks (24-byte records).
pub type Locks = (Vec<(LockOwner, bool)>, Vec<(LockOwner, bytes::Bytes)>);

/// What a session keeps for its processes.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Files without a name that it has open.
    pub sustained: Vec<Ino>,
    /// Locks, by inode, without those of other sessions.
    pub locks: Vec<(Ino, Locks)>,
}

impl Meta {
    /// What a session keeps.
    pub async fn holdings(&self, sid: SessionId) -> Result<Holdings> {
        let inos = |items: Vec<Scanned>| -> Vec<Ino> {
            items
                .into_iter()
                .filter_map(|i| if let Scanned::Ino(ino) = i { Some(ino) } else { None })
                .collect()
        };
        let sustained = inos(self.scan(Scan::Sustained(sid), usize::MAX).await?);
        let mut locks = Vec::new();
        for ino in inos(self.scan(Scan::Locked(sid), usize::MAX).await?) {
            let (mut flocks, mut records) = self.locks(ino).await?;
            flocks.retain(|((s, _), _)| *s == sid);
            records.retain(|((s, _), _)| *s == sid);
            locks.push((ino, (flocks, records)));
        }
        Ok(Holdings { sustained, locks })
    }

    /// Usage of a node, of a directory with its entries, or of the whole tree, as far as the caller may look into it.
    /// `progress` is told how much was found.
    ///
    /// # Errors
    /// `ENOENT`.
    pub async fn tree_usage(
        &self,
        c: &Caller,
        ino: Ino,
        recursive: bool,
        progress: &(dyn Fn(TreeUsage) + Send + Sync),
    ) -> Result<TreeUsage> {
        let attr = self.getattr(ino).await?;
        let mut level = if self.looks_into(c, &attr).await? { vec![self.real(ino)] } else { Vec::new() };
        let walk = Walk { caller: c, recursive, usage: Mutex::default(), seen: Mutex::default() };
        walk.usage.lock().add(&attr);
        walk.seen.lock().extend(&level);
        while !level.is_empty() {
            let below = stream::iter(level.into_iter().map(|dir| self.add_usage(&walk, dir, progress)))
                .buffer_unordered(DIRS_AT_ONCE);
            level = below.try_concat().await?;
        }
        Ok(walk.usage.into_inner())
    }

    /// Adds a directory's entries, as far as the caller may see them there; returns the directories among them to go on with.
    async fn add_usage(
        &self,
        walk: &Walk<'_>,
        dir: Ino,
        progress: &(dyn Fn(TreeUsage) + Send + Sync),
    ) -> Result<Vec<Ino>> {
        let (mut below, mut cursor, mut given) = (Vec::new(), DirCursor::Start, SeenNames::default());
        while cursor != DirCursor::End {
            let (mut entries, next) = self.retry(|| self.store.list_dir(dir, &cursor, PAGE, true)).await?;
            if dir.is_trash_hour() {
                Ways::new(self, walk.caller).retain_shown(&mut entries).await?;
            }
            let is_whole = cursor == DirCursor::Start && next == DirCursor::End;
            cursor = next;
            for e in entries {
                let Some(attr) = e.attr else { continue };
                // A page may repeat names of earlier ones; on a damaged volume a tree may lead into itself.
                if !(is_whole || given.insert(&e.name))
                    || (attr.is_dir() && !walk.seen.lock().insert(e.edge.ino))
                {
                    continue;
                }
                walk.usage.lock().add(&attr);
                if walk.recursive && self.looks_into(walk.caller, &attr).await? {
                    below.push(e.edge.ino);
                }
            }
            let usage = *walk.usage.lock();
            progress(usage);
        }
        Ok(below)
    }

    /// May the caller list a directory with attributes? False for what is none.
    async fn looks_into(&self, c: &Caller, attr: &Attr) -> Result<bool> {
        if !attr.is_dir() {
            return Ok(false);
        }
        match self.permit(&Caller { check: true, ..c.clone() }, attr, R | X).await {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Errno::EACCES => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) async fn all_entries(&self, dir: Ino) -> Result<Vec<DirEntry>> {
        let (mut out, mut cursor) = (Vec::new(), DirCursor::Start);
        while cursor != DirCursor::End {
            let (mut entries, next) = self.retry(|| self.store.list_dir(dir, &cursor, PAGE, true)).await?;
            out.append(&mut entries);
            cursor = next;
        }
        // A page may repeat names of earlier ones.
        out.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        out.dedup_by(|a, b| a.name == b.name);
        Ok(out)
    }

    /// Every path of a node by which the caller may come to it from the root of this mount, sorted. A name in a directory that
    /// the caller may search but not read is `?`. Empty if there is none; not all if there are more than 1,000.
    ///
    /// # Errors
    /// `ENOENT`; `ELOOP` on a damaged volume.
    pub async fn paths(&self, c: &Caller, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let ino = self.real(ino);
        let mut ways = Ways::new(self, c);
        let mut out = Vec::new();
        // Partial paths, from below, with the node that the next name must lead to.
        let mut open = vec![(ino, Vec::<Vec<u8>>::new())];
        // Nodes on the way of the path at hand: none comes twice.
        let mut way: Vec<Ino> = Vec::new();
        while let Some((node, names)) = open.pop() {
            if out.len() >= PATHS_MAX {
                break;
            }
            way.truncate(names.len());
            if names.len() > DEPTH_MAX || way.contains(&node) {
                return Err(Errno::ELOOP.into());
            }
            way.push(node);
            if node == self.real(Ino::ROOT) {
                let mut path: Vec<u8> =
                    names.iter().rev().flat_map(|n| [b"/", n.as_slice()].concat()).collect();
                if path.is_empty() {
                    path.push(b'/');
                }
                out.push(path);
                continue;
            }
            if node == Ino::ROOT {
                // Above what is mounted.
                continue;
            }
            if node == Ino::TRASH {
                open.push((Ino::ROOT, [names, vec![self.trash_name().to_vec()]].concat()));
                continue;
            }
            for (parent, name) in self.names_of(&mut ways, node).await? {
                open.push((parent, [names.clone(), vec![name]].concat()));
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    /// The entries that lead the caller to a node.
    async fn names_of(&self, ways: &mut Ways<'_>, node: Ino) -> Result<Vec<(Ino, Vec<u8>)>> {
        let mut values = self.read(&[Read::Attr(node), Read::Parents(node)]).await?.into_iter();
        let Some(Value::Attr(Some(attr))) = values.next() else { return Err(Errno::ENOENT.into()) };
        let parents = match values.next() {
            _ if attr.parent.0 != 0 => vec![attr.parent],
            Some(Value::Parents(list)) => list.into_iter().map(|(dir, _)| dir).collect(),
            _ => Vec::new(),
        };
        let few = parents.into_iter().take(PATHS_MAX);
        let (trash, dirs): (Vec<Ino>, Vec<Ino>) = few.partition(|dir| dir.is_trash());
        let mut out = Vec::new();
        for dir in ways.leading(dirs).await? {
            if ways.tells_names(dir).await? {
                out.extend(self.names_in(dir, node).await?.into_iter().map(|name| (dir, name)));
            } else {
                out.push((dir, b"?".to_vec()));
            }
        }
        for hour in trash {
            for name in self.names_in(hour, node).await? {
                let edge = Edge { kind: attr.kind, ino: node };
                let mut shown = vec![DirEntry { name, edge, attr: Some(attr.clone()) }];
                if hour.is_trash_hour() {
                    ways.retain_shown(&mut shown).await?;
                }
                out.extend(shown.into_iter().map(|e| (hour, e.name)));
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    /// The names that a node has in a directory.
    async fn names_in(&self, dir: Ino, node: Ino) -> Result<Vec<Vec<u8>>> {
        let (mut out, mut cursor) = (Vec::new(), DirCursor::Start);
        while cursor != DirCursor::End {
            let (entries, next) = self.retry(|| self.store.list_dir(dir, &cursor, PAGE, false)).await?;
            out.extend(entries.into_iter().filter(|e| e.edge.ino == node).map(|e| e.name));
            cursor = next;
        }
        Ok(out)
    }

    /// Who holds locks on an inode, in the whole fleet.
    pub async fn locks(&self, ino: Ino) -> Result<Locks> {
        let ino = self.real(ino);
        let mut values = self.read(&[Read::Flocks(ino), Read::Plocks(ino)]).await?.into_iter();
        match (values.next(), values.next()) {
            (Some(Value::Flocks(flocks)), Some(Value::Plocks(plocks))) => Ok((flocks, plocks)),
            _ => Err(StoreError::another_question().into()),
        }
    }
}
