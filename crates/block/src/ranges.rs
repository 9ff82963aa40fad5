//! Counts range downloads per block, so that a block that is read again and again is fetched whole.

use parking_lot::Mutex;

use crate::key::BlockId;

/// Range downloads of a block after which it is fetched whole.
pub(crate) const PROMOTE_AFTER: u8 = 3;
/// Blocks that are counted; one more in the same place pushes the older out.
const PLACES: usize = 1024;

/// A small table of recent blocks.
pub(crate) struct RangeCounts {
    places: Mutex<Vec<Option<(BlockId, u8)>>>,
}

impl RangeCounts {
    /// An empty table.
    pub fn new() -> Self {
        Self { places: Mutex::new(vec![None; PLACES]) }
    }

    /// Counts a range download of this block, unless it had enough of them: then it is to be fetched whole.
    pub fn may_range(&self, block: &BlockId) -> bool {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut((block.mix() % PLACES as u64) as usize) else { return false };
        match place {
            Some((b, n)) if b == block => {
                if *n >= PROMOTE_AFTER {
                    // From the start again, should the whole block be evicted.
                    *place = None;
                    return false;
                }
                *n += 1;
            }
            _ => *place = Some((*block, 1)),
        }
        true
    }
}
