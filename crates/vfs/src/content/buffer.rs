//! What is written here and not committed.

use std::collections::VecDeque;

use ciderfs_format::{Attr, Time};
use ciderfs_handover::Ticket;

use crate::content::pending::Pending;
use crate::io::locks::Losses;

/// Slices of a file that are not committed.
#[derive(Default)]
pub(crate) struct Buffer {
    /// In the order in which they were begun.
    slices: VecDeque<Pending>,
    /// So many of them, from the first, are in a commit under way: what the engine tells may hold them already.
    committing: usize,
    /// Appended data is not where it was believed to be when the kernel wrote it.
    moved: bool,
}

impl Buffer {
    pub(super) fn slices(&self) -> &VecDeque<Pending> {
        &self.slices
    }

    pub(super) fn slices_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.slices.iter_mut()
    }

    pub(super) fn slice_mut(&mut self, index: usize) -> &mut Pending {
        &mut self.slices[index]
    }

    /// Begins a slice. Returns its index.
    pub(super) fn push(&mut self, slice: Pending) -> usize {
        self.slices.push_back(slice);
        self.slices.len() - 1
    }

    /// The slice that a write can extend: the newest that accepts it, unless a newer one holds some of its bytes.
    pub(super) fn find(&self, losses: Losses, at: u64, bytes: u64, append: bool) -> Option<usize> {
        if append {
            // Behind a write by offset it would be committed before that one.
            let newest = self.slices.back()?;
            return (newest.losses == losses && newest.accepts(at, bytes, true))
                .then(|| self.slices.len() - 1);
        }
        for (index, p) in self.slices.iter().enumerate().rev() {
            if p.losses == losses && p.accepts(at, bytes, false) {
                return Some(index);
            }
            if p.overlaps(at, at + bytes) {
                return None;
            }
        }
        None
    }

    /// One past the last byte.
    pub(super) fn length(&self) -> u64 {
        self.slices.iter().map(Pending::end).max().unwrap_or(0)
    }

    fn mtime(&self) -> Option<Time> {
        self.slices.iter().map(|p| p.mtime).max()
    }

    /// Attributes with what is buffered painted over.
    pub(super) fn overlay(&self, attr: &Attr) -> Attr {
        let mut attr = attr.clone();
        attr.length = attr.length.max(self.length());
        if let Some(t) = self.mtime() {
            attr.mtime = t;
            attr.ctime = attr.ctime.max(t);
        }
        attr
    }

    /// A commit of so many slices, from the first, begins or, with 0, ends.
    pub(super) fn commit(&mut self, slices: usize) {
        self.committing = slices;
    }

    /// Does a commit that is under way decide where appended data goes?
    pub(super) fn is_placing(&self) -> bool {
        self.slices.iter().take(self.committing).any(|p| p.append)
    }

    /// Moves what goes to the end of the file behind the end that it has in the engine, and behind each other, as the commit
    /// will.
    pub(super) fn place_appends(&mut self, length: u64) {
        let mut end = length;
        for (n, p) in self.slices.iter_mut().enumerate() {
            if p.append && n >= self.committing && p.at != end {
                p.at = end;
                self.moved = true;
            }
            end = end.max(p.end());
        }
    }

    /// A commit of so many slices has ended. Returns their places in the log.
    pub(super) fn take(&mut self, slices: usize) -> Vec<Ticket> {
        self.committing = 0;
        self.slices.drain(..slices).flat_map(|p| p.logged).collect()
    }

    /// The commit has put data elsewhere than the kernel believes it to be.
    pub(super) fn note_moved(&mut self, moved: bool) {
        self.moved |= moved;
    }

    /// Was any moved, since somebody asked last?
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}
