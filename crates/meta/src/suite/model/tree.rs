//! What POSIX and the volume format say that a tree looks like after each operation.

use std::collections::{BTreeMap, BTreeSet};

use ciderfs_format::{Attr, CHUNK_SIZE, FileType, Ino};

use crate::error::Errno;
use crate::types::Allocate;

/// Bytes written and cut at a time. Not a divisor of anything.
pub(super) const UNIT: u32 = 1000;

/// An operation with all that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create {
        dir: Ino,
        name: &'static str,
        kind: FileType,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: &'static str,
    },
    Unlink {
        dir: Ino,
        name: &'static str,
    },
    Rmdir {
        dir: Ino,
        name: &'static str,
    },
    Rename {
        from: (Ino, &'static str),
        to: (Ino, &'static str),
        noreplace: bool,
    },
    Exchange {
        a: (Ino, &'static str),
        b: (Ino, &'static str),
    },
    Lookup {
        dir: Ino,
        name: &'static str,
    },
    Chmod {
        ino: Ino,
        mode: u16,
    },
    Write {
        ino: Ino,
        indx: u32,
        unit: u32,
        units: u32,
        id: u64,
    },
    Truncate {
        ino: Ino,
        length: u64,
    },
    /// Bytes from one (chunk, unit) to another.
    Allocate {
        ino: Ino,
        how: Allocate,
        from: (u32, u32),
        to: (u32, u32),
    },
    /// `units` units from one (file, chunk, unit) to another.
    Copy {
        from: (Ino, u32, u32),
        to: (Ino, u32, u32),
        units: u32,
    },
    /// Changes how the content is stored, not the content.
    Compact {
        ino: Ino,
        indx: u32,
        id: u64,
    },
    Open {
        ino: Ino,
    },
    Close {
        ino: Ino,
    },
}

/// What an operation that succeeded said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Ino(Ino),
    Removed(Ino, bool),
}

/// A node of the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) length: u64,
    pub(super) entries: BTreeMap<&'static str, Ino>,
    /// Of a directory.
    parent: Ino,
    /// (chunk, unit) to (slice, unit of it).
    pub(super) content: BTreeMap<(u32, u32), (u64, u32)>,
    opens: u32,
    /// Has or had several links.
    hard: bool,
    pub(super) trashed: bool,
    /// Open since a time when it was outside the trash.
    held: bool,
}

/// The reference.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Ino, Node>,
    /// Entries of the trash, if it is on.
    trash: Option<BTreeSet<(Ino, Ino, &'static str)>>,
    /// Is a file that is open kept when it loses its last name?
    pub(super) sustains: bool,
}

type Verdict = Result<Answer, Vec<Errno>>;

impl Tree {
    pub(super) fn new(trash: bool) -> Self {
        let mut root = Node::new(FileType::Directory, Ino::ROOT);
        root.mode = 0o777;
        Self { nodes: BTreeMap::from([(Ino::ROOT, root)]), trash: trash.then(BTreeSet::new), sustains: false }
    }

    /// Carries the operation out or says which errors it may fail with. `made`: the inode number of a new node.
    pub(super) fn apply(&mut self, op: Op, made: Ino) -> Verdict {
        match op {
            Op::Create { dir, name, kind } => self.create(dir, name, kind, made),
            Op::Link { ino, dir, name } => self.link(ino, dir, name),
            Op::Unlink { dir, name } => self.unlink(dir, name),
            Op::Rmdir { dir, name } => self.rmdir(dir, name),
            Op::Rename { from, to, noreplace } => self.rename(from, to, noreplace),
            Op::Exchange { a, b } => self.exchange(a, b),
            Op::Lookup { dir, name } => match self.entry(dir, name) {
                Some(ino) => Ok(Answer::Ino(ino)),
                None if self.is_file_like(dir) => Err(vec![Errno::ENOTDIR, Errno::ENOENT]),
                None => Err(vec![Errno::ENOENT]),
            },
            Op::Chmod { ino, mode } => match self.nodes.get_mut(&ino) {
                None => Err(vec![Errno::ENOENT]),
                Some(n) if n.trashed && !n.held => Err(vec![Errno::EPERM]),
                Some(n) => {
                    n.mode = mode;
                    Ok(Answer::Done)
                }
            },
            Op::Write { ino, indx, unit, units, id } => self.write(ino, indx, unit, units, id),
            Op::Allocate { ino, how, from, to } => self.allocate(ino, how, from, to),
            Op::Copy { from, to, units } => self.copy(from, to, units),
            Op::Truncate { ino, length } => self.truncate(ino, length),
            Op::Compact { .. } => Ok(Answer::Done),
            Op::Open { ino } => match self.nodes.get_mut(&ino) {
                Some(n) => {
                    n.opens += 1;
                    n.held |= !n.trashed;
                    Ok(Answer::Done)
                }
                None => Err(vec![Errno::ENOENT]),
            },
            Op::Close { ino } => {
                if let Some(n) = self.nodes.get_mut(&ino) {
                    n.opens -= 1;
                    n.held &= n.opens > 0;
                    if n.opens == 0 && n.nlink == 0 {
                        self.nodes.remove(&ino);
                    }
                }
                Ok(Answer::Done)
            }
        }
    }

    /// The node that a removal or a move would take.
    pub(super) fn subject(&self, op: Op) -> Option<Ino> {
        match op {
            Op::Unlink { dir, name } | Op::Rmdir { dir, name } | Op::Rename { from: (dir, name), .. } => {
                self.entry(dir, name)
            }
            _ => None,
        }
    }

    fn entry(&self, dir: Ino, name: &str) -> Option<Ino> {
        self.nodes.get(&dir)?.entries.get(name).copied()
    }

    fn is_file_like(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).is_some_and(|n| n.kind != FileType::Directory)
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("the reference knows its nodes")
    }

    /// Why a directory takes no new entry.
    fn receiving(&self, dir: Ino, errors: &mut Vec<Errno>) {
        match self.nodes.get(&dir) {
            None => errors.push(Errno::ENOENT),
            Some(n) if n.kind != FileType::Directory => errors.push(Errno::ENOTDIR),
            Some(n) if n.trashed => errors.push(Errno::ENOENT),
            Some(_) => {}
        }
    }

    fn create(&mut self, dir: Ino, name: &'static str, kind: FileType, made: Ino) -> Verdict {
        let mut errors = Vec::new();
        self.receiving(dir, &mut errors);
        if self.entry(dir, name).is_some() {
            errors.push(Errno::EEXIST);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.nodes.insert(made, Node::new(kind, dir));
        let is_dir = kind == FileType::Directory;
        let parent = self.node(dir);
        parent.entries.insert(name, made);
        parent.nlink += u32::from(is_dir);
        Ok(Answer::Ino(made))
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &'static str) -> Verdict {
        let mut errors = Vec::new();
        match self.nodes.get(&ino) {
            None => errors.push(Errno::ENOENT),
            Some(n) if n.kind == FileType::Directory => errors.push(Errno::EPERM),
            Some(n) if n.nlink == 0 => errors.push(Errno::ENOENT),
            Some(_) => {}
        }
        self.receiving(dir, &mut errors);
        if self.entry(dir, name).is_some() {
            errors.push(Errno::EEXIST);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let n = self.node(ino);
        n.nlink += 1;
        (n.hard, n.trashed) = (true, false);
        self.node(dir).entries.insert(name, ino);
        Ok(Answer::Done)
    }

    /// A node that is no directory loses a name.
    fn drop_leaf(&mut self, dir: Ino, name: &'static str, ino: Ino) -> bool {
        let sustains = self.sustains;
        let nlink = self.nodes[&ino].nlink;
        let names =
            self.nodes.iter().flat_map(|(d, n)| n.entries.iter().map(move |(name, to)| (*d, *name, *to)));
        let outside = names.filter(|(d, n, to)| *to == ino && (*d, *n) != (dir, name)).count();
        if let Some(trash) = &mut self.trash {
            let kept = trash.insert((dir, ino, name));
            self.node(ino).trashed = outside == 0;
            if kept || nlink == 1 {
                return false;
            }
        }
        let n = self.node(ino);
        n.nlink -= 1;
        if n.nlink > 0 {
            return false;
        }
        if !(sustains && n.kind == FileType::File && n.opens > 0) {
            self.nodes.remove(&ino);
        }
        true
    }

    /// An empty directory loses its name.
    fn drop_dir(&mut self, dir: Ino, name: &'static str, ino: Ino) -> bool {
        self.node(dir).nlink -= 1;
        match &mut self.trash {
            Some(trash) => {
                trash.insert((dir, ino, name));
                self.node(ino).trashed = true;
                false
            }
            None => {
                self.nodes.remove(&ino);
                true
            }
        }
    }

    fn unlink(&mut self, dir: Ino, name: &'static str) -> Verdict {
        let Some(ino) = self.entry(dir, name) else {
            return Err(if self.is_file_like(dir) { vec![Errno::ENOTDIR] } else { vec![Errno::ENOENT] });
        };
        if self.nodes[&ino].kind == FileType::Directory {
            return Err(vec![Errno::EPERM]);
        }
        self.node(dir).entries.remove(name);
        Ok(Answer::Removed(ino, self.drop_leaf(dir, name, ino)))
    }

    fn rmdir(&mut self, dir: Ino, name: &'static str) -> Verdict {
        let Some(ino) = self.entry(dir, name) else {
            return Err(
                vec![Errno::ENOENT, Errno::ENOTDIR][..1 + usize::from(self.is_file_like(dir))].to_vec()
            );
        };
        let n = &self.nodes[&ino];
        if n.kind != FileType::Directory {
            return Err(vec![Errno::ENOTDIR]);
        }
        if !n.entries.is_empty() {
            return Err(vec![Errno::ENOTEMPTY]);
        }
        self.node(dir).entries.remove(name);
        Ok(Answer::Removed(ino, self.drop_dir(dir, name, ino)))
    }

    fn is_within(&self, mut dir: Ino, top: Ino) -> bool {
        loop {
            if dir == top {
                return true;
            }
            match self.nodes.get(&dir) {
                Some(n) if n.parent != dir => dir = n.parent,
                _ => return false,
            }
        }
    }

    fn rename(&mut self, from: (Ino, &'static str), to: (Ino, &'static str), noreplace: bool) -> Verdict {
        let Some(ino) = self.entry(from.0, from.1) else {
            return Err(if self.is_file_like(from.0) {
                vec![Errno::ENOENT, Errno::ENOTDIR]
            } else {
                vec![Errno::ENOENT]
            });
        };
        let target = self.entry(to.0, to.1);
        if target.is_some() && noreplace {
            return Err(vec![Errno::EEXIST]);
        }
        if target == Some(ino) {
            return Ok(Answer::Done);
        }
        let mut errors = Vec::new();
        self.receiving(to.0, &mut errors);
        let is_dir = self.nodes[&ino].kind == FileType::Directory;
        if is_dir && self.is_within(to.0, ino) {
            errors.push(Errno::EINVAL);
        }
        if let Some(target) = target {
            let t = &self.nodes[&target];
            match (is_dir, t.kind == FileType::Directory) {
                (true, false) => errors.push(Errno::ENOTDIR),
                (false, true) => errors.push(Errno::EISDIR),
                (true, true) if !t.entries.is_empty() => errors.push(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.node(from.0).entries.remove(from.1);
        let answer = match target {
            Some(t) if is_dir => Answer::Removed(t, self.drop_dir(to.0, to.1, t)),
            Some(t) => Answer::Removed(t, self.drop_leaf(to.0, to.1, t)),
            None => Answer::Done,
        };
        self.node(to.0).entries.insert(to.1, ino);
        if is_dir {
            self.node(from.0).nlink -= 1;
            self.node(to.0).nlink += 1;
            self.node(ino).parent = to.0;
        }
        Ok(answer)
    }

    fn exchange(&mut self, a: (Ino, &'static str), b: (Ino, &'static str)) -> Verdict {
        let (Some(x), Some(y)) = (self.entry(a.0, a.1), self.entry(b.0, b.1)) else {
            return Err(vec![Errno::ENOENT]);
        };
        if x == y {
            return Ok(Answer::Done);
        }
        let mut errors = Vec::new();
        self.receiving(a.0, &mut errors);
        self.receiving(b.0, &mut errors);
        for (moved, dir) in [(x, b.0), (y, a.0)] {
            if self.nodes[&moved].kind == FileType::Directory && self.is_within(dir, moved) {
                errors.push(Errno::EINVAL);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (ino, from, to, name) in [(x, a.0, b.0, b.1), (y, b.0, a.0, a.1)] {
            self.node(to).entries.insert(name, ino);
            if self.nodes[&ino].kind == FileType::Directory {
                self.node(from).nlink -= 1;
                self.node(to).nlink += 1;
                self.node(ino).parent = to;
            }
        }
        Ok(Answer::Done)
    }

    fn write(&mut self, ino: Ino, indx: u32, unit: u32, units: u32, id: u64) -> Verdict {
        match self.nodes.get_mut(&ino) {
            None => Err(vec![Errno::ENOENT]),
            Some(n) if n.kind != FileType::File => Err(vec![Errno::EPERM]),
            Some(n) => {
                for i in 0..units {
                    n.content.insert((indx, unit + i), (id, i));
                }
                n.length = n.length.max(offset(indx, unit + units));
                Ok(Answer::Done)
            }
        }
    }

    fn truncate(&mut self, ino: Ino, length: u64) -> Verdict {
        match self.nodes.get_mut(&ino) {
            None => Err(vec![Errno::ENOENT]),
            Some(n) if n.kind == FileType::Directory => Err(vec![Errno::EISDIR]),
            Some(n) if n.kind != FileType::File => Err(vec![Errno::EPERM]),
            Some(n) => {
                n.content.retain(|(indx, unit), _| offset(*indx, *unit) < length);
                n.length = length;
                Ok(Answer::Done)
            }
        }
    }
}

impl Tree {
    fn allocate(&mut self, ino: Ino, how: Allocate, from: (u32, u32), to: (u32, u32)) -> Verdict {
        let (from, to) = (offset(from.0, from.1), offset(to.0, to.1));
        match self.nodes.get_mut(&ino) {
            _ if from >= to => Err(vec![Errno::EINVAL]),
            None => Err(vec![Errno::ENOENT]),
            Some(n) if n.kind != FileType::File => Err(vec![Errno::EPERM]),
            Some(n) => {
                if how.erases() {
                    n.content.retain(|(indx, unit), _| !(from..to).contains(&offset(*indx, *unit)));
                }
                if !how.keeps_size() {
                    n.length = n.length.max(to);
                }
                Ok(Answer::Done)
            }
        }
    }

    fn copy(&mut self, from: (Ino, u32, u32), to: (Ino, u32, u32), units: u32) -> Verdict {
        let (Some(s), Some(d)) = (self.nodes.get(&from.0), self.nodes.get(&to.0)) else {
            return Err(vec![Errno::ENOENT]);
        };
        if s.kind != FileType::File || d.kind != FileType::File {
            return Err(vec![Errno::EINVAL]);
        }
        let start = offset(from.1, from.2);
        let left = s.length.saturating_sub(start) / u64::from(UNIT);
        let units = units.min(left.min(1000) as u32);
        if units == 0 {
            return Ok(Answer::Done);
        }
        if (from.0, from.1) == (to.0, to.1) && from.2 < to.2 + units && to.2 < from.2 + units {
            return Err(vec![Errno::EINVAL]);
        }
        let copied: Vec<_> = (0..units).map(|i| s.content.get(&(from.1, from.2 + i)).copied()).collect();
        let d = self.node(to.0);
        for (i, unit) in (0..).zip(copied) {
            let at = (to.1, to.2 + i);
            match unit {
                Some(unit) => d.content.insert(at, unit),
                None => d.content.remove(&at),
            };
        }
        d.length = d.length.max(offset(to.1, to.2 + units));
        Ok(Answer::Done)
    }
}

/// Where a unit begins in a file.
pub(super) fn offset(indx: u32, unit: u32) -> u64 {
    u64::from(indx) * CHUNK_SIZE + u64::from(unit) * u64::from(UNIT)
}

impl Node {
    fn new(kind: FileType, parent: Ino) -> Self {
        let is_dir = kind == FileType::Directory;
        Self {
            kind,
            mode: if kind == FileType::Symlink { 0o777 } else { 0o755 },
            nlink: if is_dir { 2 } else { 1 },
            length: match kind {
                FileType::Directory => Attr::DIR_LENGTH,
                FileType::Symlink => 6,
                _ => 0,
            },
            entries: BTreeMap::new(),
            parent,
            content: BTreeMap::new(),
            opens: 0,
            hard: false,
            trashed: false,
            held: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens > 0
    }
}
