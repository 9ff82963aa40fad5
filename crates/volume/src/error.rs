//! Why a volume could not be opened.

use ciderfs_block::BlockError;
use ciderfs_object::ObjectError;

/// Why a volume could not be opened. Texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata engine, or its address.
    #[error("{0}")]
    Engine(String),
    /// The engine, which does not answer now and may later.
    #[error("{0}")]
    Away(String),
    /// Metadata.
    #[error(transparent)]
    Meta(#[from] ciderfs_meta::Error),
    /// The settings of the volume, or what was to be otherwise.
    #[error("{0}")]
    Settings(String),
    /// The object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The object store that was tried: its address, and what it answered.
    #[error("{0}")]
    Unusable(String),
    /// Buffers and the disk cache.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Result of opening.
pub type Result<T> = std::result::Result<T, Error>;
