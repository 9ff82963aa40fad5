//! Encryption of objects (`docs/format/objects.md#encryption`): each object carries its data key, wrapped with the volume's RSA key.
//!
//! Nonces and data keys come from the caller, who must take them from a good random source and never use a nonce
//! twice under one data key. The padding of RSA-OAEP is the one place where randomness is made here: the crypto
//! library draws it itself.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey};

mod key;
mod legacy;
#[cfg(test)]
mod tests;

pub use key::{KeyError, PASSPHRASE_ENV, PrivateKey};

/// Bytes of a data key.
pub const DATA_KEY_LEN: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = aead::NONCE_LEN;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;
/// The OAEP label.
const LABEL: &[u8] = b"keys";
/// Bytes before the wrapped key: its length u16, the nonce's length u8.
const HEADER_LEN: usize = 3;
/// Unwrapped data keys that are remembered; one takes about 400 bytes.
const MAX_CACHED_KEYS: usize = 4096;

/// The cipher of a volume's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// AES-256-GCM, also the meaning of an empty setting.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 with 96-bit nonces.
    ChaCha20Poly1305,
}

/// An object that cannot be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an algorithm that this client has.
    #[error(
        "encryption algorithm {0:?} is not supported by this client: it has aes256gcm-rsa and chacha20-rsa"
    )]
    Algorithm(String),
    /// The object ends before its own header says.
    #[error("encrypted object is too short: {got} bytes, at least {need} expected")]
    Truncated {
        /// Bytes of the object.
        got: usize,
        /// Bytes that its header asks for.
        need: usize,
    },
    /// A nonce of a length that no algorithm uses.
    #[error("encrypted object has a nonce of {0} bytes, expected {NONCE_LEN}")]
    Nonce(usize),
    /// The data key does not unwrap.
    #[error(
        "the object's data key does not decrypt: it was written with another private key, or it is damaged"
    )]
    Unwrap,
    /// The data key has the wrong length, as with another algorithm.
    #[error(
        "the object's data key has {0} bytes, expected {DATA_KEY_LEN}: it was written with another algorithm"
    )]
    DataKey(usize),
    /// The content does not authenticate.
    #[error("the object does not decrypt: it is damaged, or was written with another algorithm")]
    Tag,
    /// The output buffer does not have the length of the content.
    #[error("buffer of {got} bytes for an object of {expected}")]
    Buffer {
        /// Bytes of the buffer.
        got: usize,
        /// Bytes of the content.
        expected: usize,
    },
    /// The crypto library refused to encrypt.
    #[error("encryption failed")]
    Seal,
}

impl Algorithm {
    /// Reads the setting.
    pub fn parse(name: &str) -> Result<Self, EnvelopeError> {
        match name.to_ascii_lowercase().as_str() {
            "" | "aes256gcm-rsa" => Ok(Self::Aes256Gcm),
            "chacha20-rsa" => Ok(Self::ChaCha20Poly1305),
            _ => Err(EnvelopeError::Algorithm(name.to_owned())),
        }
    }

    /// The name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256gcm-rsa",
            Self::ChaCha20Poly1305 => "chacha20-rsa",
        }
    }

    fn cipher(self, data_key: &[u8; DATA_KEY_LEN]) -> Result<LessSafeKey, EnvelopeError> {
        let algorithm = match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, data_key).map(LessSafeKey::new).map_err(|_| EnvelopeError::Seal)
    }
}

/// A data key, ready for sealing, together with its wrapped form.
pub struct WrappedKey {
    wrapped: Arc<[u8]>,
    cipher: LessSafeKey,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey").finish_non_exhaustive()
    }
}

/// Seals and opens the objects of one volume. Shared between threads.
pub struct Envelope {
    algorithm: Algorithm,
    unwrap: OaepPrivateDecryptingKey,
    wrap: OaepPublicEncryptingKey,
    known: Mutex<KnownKeys>,
}

/// Unwrapped data keys by their wrapped form, the oldest going first. Unwrapping costs about a millisecond, which
/// repeated reads and objects sharing a key need not pay.
#[derive(Default)]
struct KnownKeys {
    keys: HashMap<Arc<[u8]>, [u8; DATA_KEY_LEN]>,
    age: VecDeque<Arc<[u8]>>,
}

impl KnownKeys {
    fn insert(&mut self, wrapped: Arc<[u8]>, key: [u8; DATA_KEY_LEN]) {
        if self.keys.insert(Arc::clone(&wrapped), key).is_some() {
            return;
        }
        self.age.push_back(wrapped);
        if self.age.len() > MAX_CACHED_KEYS
            && let Some(oldest) = self.age.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The parts of a sealed object.
struct Parts<'a> {
    wrapped: &'a [u8],
    nonce: [u8; NONCE_LEN],
    content: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(sealed: &'a [u8]) -> Result<Self, EnvelopeError> {
        let truncated = |need| EnvelopeError::Truncated { got: sealed.len(), need };
        let (&[k0, k1, n], rest) =
            sealed.split_first_chunk::<HEADER_LEN>().ok_or_else(|| truncated(HEADER_LEN))?;
        let (k, n) = (usize::from(u16::from_be_bytes([k0, k1])), usize::from(n));
        if n != NONCE_LEN {
            return Err(EnvelopeError::Nonce(n));
        }
        let short = || truncated(HEADER_LEN + k + NONCE_LEN + TAG_LEN);
        let (wrapped, rest) = rest.split_at_checked(k).ok_or_else(short)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(short)?;
        let (content, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(short)?;
        Ok(Self { wrapped, nonce: *nonce, content, tag })
    }
}

impl Envelope {
    /// For a volume with this key and cipher.
    pub fn new(key: PrivateKey, algorithm: Algorithm) -> Self {
        let PrivateKey { unwrap, wrap } = key;
        Self { algorithm, unwrap, wrap, known: Mutex::default() }
    }

    /// Bytes that sealing adds: 287 with RSA-2048.
    pub fn overhead(&self) -> usize {
        HEADER_LEN + self.wrap.ciphertext_size() + NONCE_LEN + TAG_LEN
    }

    /// Wraps a fresh random data key, for [`Envelope::seal_with`].
    pub fn wrap_key(&self, data_key: [u8; DATA_KEY_LEN]) -> Result<WrappedKey, EnvelopeError> {
        let cipher = self.algorithm.cipher(&data_key)?;
        let mut buf = vec![0; self.wrap.ciphertext_size()];
        let wrapped: Arc<[u8]> = self
            .wrap
            .encrypt(&OAEP_SHA256_MGF1SHA256, &data_key, &mut buf, Some(LABEL))
            .map_err(|_| EnvelopeError::Seal)
            .map(|wrapped| Arc::from(&*wrapped))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&wrapped), data_key);
        Ok(WrappedKey { wrapped, cipher })
    }

    /// Seals an object under a data key of its own, as the official client does. Key and nonce must be fresh and
    /// random.
    pub fn seal(
        &self,
        plain: &[u8],
        data_key: [u8; DATA_KEY_LEN],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, EnvelopeError> {
        self.seal_with(&self.wrap_key(data_key)?, plain, nonce)
    }

    /// Seals an object under a data key that others share; official clients read such objects. The nonce must be
    /// fresh and random; keep to at most 2^20 objects per key.
    pub fn seal_with(
        &self,
        key: &WrappedKey,
        plain: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let wrapped_len = u16::try_from(key.wrapped.len()).map_err(|_| EnvelopeError::Seal)?;
        let head = HEADER_LEN + key.wrapped.len() + NONCE_LEN;
        let mut out = Vec::with_capacity(head + plain.len() + TAG_LEN);
        out.extend_from_slice(&wrapped_len.to_be_bytes());
        out.push(NONCE_LEN as u8);
        out.extend_from_slice(&key.wrapped);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = key
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                out.get_mut(head..).ok_or(EnvelopeError::Seal)?,
            )
            .map_err(|_| EnvelopeError::Seal)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Bytes of content in a sealed object, without decrypting it.
    pub fn plain_len(sealed: &[u8]) -> Result<usize, EnvelopeError> {
        Parts::split(sealed).map(|p| p.content.len())
    }

    /// Opens a sealed object. Lengths of key and nonce are taken from the object.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = vec![0; Self::plain_len(sealed)?];
        self.open_into(sealed, &mut out)?;
        Ok(out)
    }

    /// Opens a sealed object into a buffer of exactly [`Envelope::plain_len`] bytes, whose content is undefined
    /// after an error.
    pub fn open_into(&self, sealed: &[u8], out: &mut [u8]) -> Result<(), EnvelopeError> {
        let parts = Parts::split(sealed)?;
        if out.len() != parts.content.len() {
            return Err(EnvelopeError::Buffer { got: out.len(), expected: parts.content.len() });
        }
        let data_key = self.data_key(parts.wrapped)?;
        self.algorithm
            .cipher(&data_key)?
            .open_separate_gather(
                Nonce::assume_unique_for_key(parts.nonce),
                Aad::empty(),
                parts.content,
                parts.tag,
                out,
            )
            .map_err(|_| EnvelopeError::Tag)
    }

    fn data_key(&self, wrapped: &[u8]) -> Result<[u8; DATA_KEY_LEN], EnvelopeError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known().keys.get(wrapped) {
            return Ok(*key);
        }
        // The lock is not held meanwhile: at worst two readers unwrap the same key.
        let mut buf = vec![0; self.unwrap.min_output_size()];
        let key = self
            .unwrap
            .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut buf, Some(LABEL))
            .map_err(|_| EnvelopeError::Unwrap)?;
        let key: [u8; DATA_KEY_LEN] = (*key).try_into().map_err(|_| EnvelopeError::DataKey(key.len()))?;
        known().insert(Arc::from(wrapped), key);
        Ok(key)
    }
}
