//! Compression and decompression off the threads that serve requests.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::Compression;
use ciderfs_format::codec::CodecError;
use ciderfs_object::Buffers;
use tokio::sync::Semaphore;

use crate::BlockError;
use crate::budget::Permit;
use crate::covered::covered;

/// Blocks up to this size are handled in place: moving the work costs more than doing it.
const INLINE: usize = 64 << 10;

/// A bounded number of threads for work on whole blocks.
pub(crate) struct Cpu {
    slots: Arc<Semaphore>,
    buffers: Arc<Buffers>,
    compression: Compression,
}

impl Cpu {
    /// At most `threads` blocks are worked on at a time.
    pub fn new(threads: usize, buffers: Arc<Buffers>, compression: Compression) -> Self {
        Self { slots: Arc::new(Semaphore::new(threads)), buffers, compression }
    }

    /// Bytes that a permit for [`Cpu::compress`] must cover.
    pub fn compress_footprint(&self, len: usize) -> u64 {
        Buffers::footprint(self.compression.work_bound(len)) as u64
    }

    /// Compresses a block into a buffer covered by `permit`.
    pub async fn compress(
        &self,
        plain: Bytes,
        permit: Permit,
    ) -> Result<Result<Bytes, CodecError>, BlockError> {
        let (compression, buffers) = (self.compression, self.buffers.clone());
        self.run(plain.len(), move || {
            let mut out = buffers.get(compression.work_bound(plain.len()));
            let n = compression.compress_into(&plain, out.as_mut())?;
            out.truncate(n);
            Ok(covered(out.freeze(), permit))
        })
        .await
    }

    /// Decompresses a block of `len` bytes into a buffer covered by `permit`.
    pub async fn decompress(
        &self,
        stored: Bytes,
        len: usize,
        permit: Permit,
    ) -> Result<Result<Bytes, (CodecError, Permit)>, BlockError> {
        let (compression, buffers) = (self.compression, self.buffers.clone());
        self.run(len, move || {
            let mut out = buffers.get(len);
            match compression.decompress_into(&stored, out.as_mut()) {
                Ok(()) => Ok(covered(out.freeze(), permit)),
                Err(e) => Err((e, permit)),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        len: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockError> {
        if len <= INLINE {
            return Ok(work());
        }
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| BlockError::Closed)?;
        // The slot goes with the work: it goes on when the caller is cancelled.
        let work = move || {
            let _slot = slot;
            work()
        };
        ciderfs_rt::blocking(work).await.map_err(|_| BlockError::Closed)
    }
}
