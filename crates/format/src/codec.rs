//! Compression of block objects (`docs/format/objects.md#compression`). Nothing in a compressed object says how it was made or how
//! long it is: both come from the settings and the object's name.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};

#[cfg(test)]
mod tests;

/// Level of written zstd frames.
const ZSTD_LEVEL: i32 = 1;
/// Idle zstd contexts that are kept of each kind; a compressor holds about a megabyte.
const MAX_IDLE_CONTEXTS: usize = 16;

/// How the blocks of a volume are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Stored as they are.
    #[default]
    None,
    /// One raw LZ4 block, without frame or size.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// A block that cannot be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a name of a compression.
    #[error("unknown compression {0:?}: use none, lz4 or zstd")]
    Unknown(String),
    /// The stored bytes are damaged or belong to another algorithm.
    #[error("block does not decompress as {algorithm}: {detail}")]
    Corrupt {
        /// Name of the algorithm.
        algorithm: &'static str,
        /// The library's words.
        detail: String,
    },
    /// The block has another length than its name says.
    #[error("block has {got} bytes, its name says {expected}")]
    Length {
        /// The length found.
        got: usize,
        /// The length in the name.
        expected: usize,
    },
    /// The caller's buffer is shorter than [`Compression::bound`].
    #[error("buffer of {got} bytes is too small, {need} are needed")]
    Buffer {
        /// The buffer's length.
        got: usize,
        /// The length that is always enough.
        need: usize,
    },
    /// The compressor failed, which only lack of memory explains.
    #[error("{algorithm} compressor failed: {detail}")]
    Compressor {
        /// Name of the algorithm.
        algorithm: &'static str,
        /// The library's words.
        detail: String,
    },
}

impl FromStr for Compression {
    type Err = CodecError;

    /// Names are compared without case; an empty one means none.
    fn from_str(name: &str) -> Result<Self, CodecError> {
        match name.to_ascii_lowercase().as_str() {
            "" | "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            _ => Err(CodecError::Unknown(name.to_owned())),
        }
    }
}

impl Compression {
    /// The name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Do blocks change on their way to the store?
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// The most bytes that a stored block of `len` bytes may have. Official readers take no more than this.
    pub const fn bound(self, len: usize) -> usize {
        match self {
            Self::None => len,
            Self::Lz4 => len + len / 255 + 16,
            Self::Zstd => len + len / 256 + if len < 131_072 { (131_072 - len) / 2048 } else { 0 },
        }
    }

    /// Compresses a block into a new buffer. There is no way out for data that grows: it is stored grown.
    pub fn compress(self, plain: &[u8]) -> Result<Vec<u8>, CodecError> {
        if self.is_none() {
            return Ok(plain.to_vec());
        }
        let mut out = vec![0; self.work_bound(plain.len())];
        let n = self.compress_into(plain, &mut out)?;
        out.truncate(n);
        Ok(out)
    }

    /// Room that [`Compression::compress_into`] asks for: the bound, or the little more that the library wants.
    pub fn work_bound(self, len: usize) -> usize {
        match self {
            Self::Lz4 => self.bound(len).max(lz4_flex::block::get_maximum_output_size(len)),
            _ => self.bound(len),
        }
    }

    /// Compresses a block into the caller's buffer of at least [`Compression::work_bound`] bytes; returns how many
    /// are used.
    pub fn compress_into(self, plain: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        let need = self.work_bound(plain.len());
        if out.len() < need {
            return Err(CodecError::Buffer { got: out.len(), need });
        }
        match self {
            Self::None => {
                out[..plain.len()].copy_from_slice(plain);
                Ok(plain.len())
            }
            Self::Lz4 => {
                lz4_flex::block::compress_into(plain, out).map_err(|e| self.compressor_error(&e.to_string()))
            }
            Self::Zstd => {
                let mut context = match take(&COMPRESSORS) {
                    Some(c) => c,
                    // Content size on and checksum off are the library's defaults for whole buffers.
                    None => Compressor::new(ZSTD_LEVEL).map_err(|e| self.compressor_error(&e.to_string()))?,
                };
                let n = context
                    .compress_to_buffer(plain, out)
                    .map_err(|e| self.compressor_error(&e.to_string()))?;
                give(&COMPRESSORS, context);
                Ok(n)
            }
        }
    }

    /// Decompresses a stored block of `blen` bytes (from its name) into a new buffer.
    ///
    /// Like the official client it takes the first `blen` bytes of an uncompressed object that is longer.
    pub fn decompress(self, stored: &[u8], blen: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0; blen];
        self.decompress_into(stored, &mut out)?;
        Ok(out)
    }

    /// Decompresses a stored block into the caller's buffer, which must have exactly the block's length. After an
    /// error the buffer's content is undefined.
    pub fn decompress_into(self, stored: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let expected = out.len();
        let got = match self {
            Self::None => {
                let stored =
                    stored.get(..expected).ok_or(CodecError::Length { got: stored.len(), expected })?;
                out.copy_from_slice(stored);
                expected
            }
            Self::Lz4 => {
                lz4_flex::block::decompress_into(stored, out).map_err(|e| self.corrupt(&e.to_string()))?
            }
            Self::Zstd => {
                let mut context = match take(&DECOMPRESSORS) {
                    Some(d) => d,
                    None => Decompressor::new().map_err(|e| self.compressor_error(&e.to_string()))?,
                };
                // Takes several frames and skippable ones, refuses bytes after the last.
                let n =
                    context.decompress_to_buffer(stored, out).map_err(|e| self.corrupt(&e.to_string()))?;
                give(&DECOMPRESSORS, context);
                n
            }
        };
        if got == expected { Ok(()) } else { Err(CodecError::Length { got, expected }) }
    }

    fn corrupt(self, detail: &str) -> CodecError {
        CodecError::Corrupt { algorithm: self.name(), detail: detail.to_owned() }
    }

    fn compressor_error(self, detail: &str) -> CodecError {
        CodecError::Compressor { algorithm: self.name(), detail: detail.to_owned() }
    }
}

// Contexts are costly to set up and not to be shared, so idle ones wait here. One that failed is dropped.
static COMPRESSORS: Mutex<Vec<Compressor<'static>>> = Mutex::new(Vec::new());
static DECOMPRESSORS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

fn take<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give<T>(pool: &Mutex<Vec<T>>, context: T) {
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.len() < MAX_IDLE_CONTEXTS {
        pool.push(context);
    }
}
