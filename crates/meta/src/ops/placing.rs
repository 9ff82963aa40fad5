//! Where the slices of a write go.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use ciderfs_format::Slice;
use ciderfs_format::slice::chunk_start;

use crate::types::{NewSlice, Place};

/// Slices with their places in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Records to append to the lists of chunks, in order.
    pub(super) lists: Vec<(u32, Vec<Slice>)>,
    /// The offset in the file of each slice, in bytes.
    pub(super) offsets: Vec<u64>,
    /// Length of the file with them.
    pub(super) length: u64,
}

/// Places slices, one after the other, in a file of this length. One that goes to the end may cross into the next chunk: then
/// both chunks refer to it.
pub(super) fn place(slices: &[NewSlice], length: u64) -> Placed {
    let mut placed = Placed { lists: Vec::new(), offsets: Vec::with_capacity(slices.len()), length };
    for new in slices {
        let at = match new.place {
            Place::Chunk(indx) => chunk_start(indx).saturating_add(u64::from(new.slice.pos)),
            Place::End => placed.length,
        };
        placed.offsets.push(at);
        for (indx, record) in new.slice.at_offset(at) {
            placed.add(indx, record);
        }
        placed.length = placed.length.max(at.saturating_add(u64::from(new.slice.len)));
    }
    placed
}

impl Placed {
    fn add(&mut self, indx: u32, record: Slice) {
        match self.lists.iter_mut().find(|(i, _)| *i == indx) {
            Some((_, list)) => list.push(record),
            None => self.lists.push((indx, vec![record])),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "tests")]

    use ciderfs_format::{CHUNK_SIZE, SliceId};

    use super::*;

    fn slice(id: u64, pos: u32, len: u32) -> Slice {
        Slice { pos, id: SliceId(id), size: len, off: 0, len }
    }

    #[test]
    fn slices_go_to_the_end_that_is_there() {
        let new = [
            NewSlice::at_end(slice(1, 77, 10)),
            NewSlice::at(0, slice(2, 300, 10)),
            NewSlice::at_end(slice(3, 0, 10)),
        ];
        let placed = place(&new, 100);
        assert_eq!(placed.offsets, [100, 300, 310]);
        assert_eq!(placed.lists, [(0, vec![slice(1, 100, 10), slice(2, 300, 10), slice(3, 310, 10)])]);
        assert_eq!(placed.length, 320);
        assert_eq!(place(&new, 1000).offsets, [1000, 300, 1010]);
    }

    #[test]
    fn a_slice_that_crosses_into_the_next_chunk() {
        let end = CHUNK_SIZE as u32;
        let placed = place(&[NewSlice::at_end(slice(9, 0, end))], 3 * CHUNK_SIZE - 5);
        let (head, tail) = (
            Slice { pos: end - 5, len: 5, ..slice(9, 0, end) },
            Slice { off: 5, len: end - 5, ..slice(9, 0, end) },
        );
        assert_eq!(placed.lists, [(2, vec![head]), (3, vec![tail])]);
        assert_eq!(placed.length, 4 * CHUNK_SIZE - 5);
    }

    #[test]
    fn inside_a_file_the_length_stays() {
        let part = Slice { off: 3, len: 4, ..slice(5, 10, 20) };
        let placed = place(&[NewSlice::at(1, part)], 1 << 40);
        assert_eq!(
            placed,
            Placed { lists: vec![(1, vec![part])], offsets: vec![CHUNK_SIZE + 10], length: 1 << 40 }
        );
    }
}
