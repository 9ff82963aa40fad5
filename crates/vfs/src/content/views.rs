//! Lists of a file's chunks, as they were read.

use std::collections::HashMap;
use std::sync::Arc;

use ciderfs_meta::ChunkView;

/// Resolved chunks kept per open file.
const VIEWS_MAX: usize = 64;

/// What was read of the lists of a file, all of it of the version that is believed.
#[derive(Default)]
pub(crate) struct Views {
    /// Resolved chunks.
    by_chunk: HashMap<u32, ChunkView>,
    /// The first chunk, fetched along with an open, until somebody reads.
    first: Option<ChunkView>,
    /// Indexes of the chunks that have lists, ascending, if known.
    chunks: Option<Arc<[u32]>>,
}

impl Views {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn get(&self, indx: u32) -> Option<&ChunkView> {
        self.by_chunk.get(&indx)
    }

    pub(super) fn keep(&mut self, indx: u32, view: ChunkView) {
        if self.by_chunk.len() >= VIEWS_MAX {
            self.by_chunk.clear();
        }
        self.by_chunk.insert(indx, view);
    }

    pub(super) fn keep_first(&mut self, view: ChunkView) {
        self.first = Some(view);
    }

    pub(super) fn take_first(&mut self) -> Option<ChunkView> {
        self.first.take()
    }

    /// All chunks that are at hand.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &ChunkView)> {
        let first = self.first.iter().map(|first| (0, first));
        first.chain(self.by_chunk.iter().map(|(indx, view)| (*indx, view)))
    }

    pub(super) fn extend(&mut self, views: impl Iterator<Item = (u32, ChunkView)>) {
        self.by_chunk.extend(views);
    }

    pub(super) fn chunks(&self) -> Option<&Arc<[u32]>> {
        self.chunks.as_ref()
    }

    pub(super) fn keep_chunks(&mut self, chunks: Arc<[u32]>) {
        self.chunks = Some(chunks);
    }
}
