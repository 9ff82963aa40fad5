//! Encryption of objects (`spec/data-path.md` 2.4).

/// The cipher of a volume's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// AES-256-GCM, also the meaning of an empty setting.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 with 96-bit nonces.
    ChaCha20Poly1305,
}

/// Not an algorithm that this client has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an algorithm that this client has.
    #[error(
        "encryption algorithm {0:?} is not supported by this client: it has aes256gcm-rsa and chacha20-rsa"
    )]
    Algorithm(String),
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
}
