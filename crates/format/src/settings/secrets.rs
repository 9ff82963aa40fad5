//! Encryption of the secrets in the settings (`docs/format/settings.md#secrets`). It only keeps them from casual eyes: the
//! key is made from the UUID in the same document.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::{REMOVED, Settings, SettingsError};
use crate::secret::Secret;

/// The secrets by name, in the order in which nonces are used up.
const FIELDS: [&str; 3] = ["EncryptKey", "SecretKey", "SessionToken"];

impl Settings {
    /// Is there anything to hide?
    pub fn has_secrets(&self) -> bool {
        !(self.encrypt_key.is_empty() && self.secret_key.is_empty() && self.session_token.is_empty())
    }

    /// Encrypts the secrets for storing, each with its own fresh random nonce, and sets `key_encrypted`. Does
    /// nothing when they are encrypted already or there are none.
    ///
    /// # Errors
    /// A secret that is the literal `removed`; an SM4 volume. Nothing has changed then.
    pub fn encrypt_secrets(&mut self, nonces: [[u8; NONCE_LEN]; 3]) -> Result<(), SettingsError> {
        if self.key_encrypted || !self.has_secrets() {
            return Ok(());
        }
        let key = self.secret_key_cipher()?;
        let mut done = self.secrets().map(Secret::clone);
        for ((field, secret), nonce) in FIELDS.iter().zip(&mut done).zip(nonces) {
            if secret.is_empty() {
                continue;
            }
            if secret.expose() == REMOVED {
                return Err(SettingsError::SecretRemoved { field });
            }
            let failed = |_| SettingsError::Secret { field, detail: "encryption failed" };
            let mut body = secret.expose().as_bytes().to_vec();
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
                .map_err(failed)?;
            *secret = STANDARD.encode([&nonce[..], &body].concat()).into();
        }
        self.put_secrets(done, true);
        Ok(())
    }

    /// Decrypts the secrets for use and clears `key_encrypted`. Does nothing when they are plain.
    ///
    /// # Errors
    /// A secret that is the literal `removed`, does not decrypt, or belongs to an SM4 volume. Nothing has changed
    /// then.
    pub fn decrypt_secrets(&mut self) -> Result<(), SettingsError> {
        if !self.key_encrypted {
            return Ok(());
        }
        let mut done = self.secrets().map(Secret::clone);
        for (field, secret) in FIELDS.iter().zip(&mut done) {
            if secret.is_empty() {
                continue;
            }
            if secret.expose() == REMOVED {
                return Err(SettingsError::SecretRemoved { field });
            }
            let key = self.secret_key_cipher()?;
            let failed = |detail| SettingsError::Secret { field, detail };
            let raw = STANDARD.decode(secret.expose().as_bytes()).map_err(|_| failed("it is not base64"))?;
            let (nonce, body) =
                raw.split_first_chunk::<NONCE_LEN>().ok_or_else(|| failed("it is too short"))?;
            let mut body = body.to_vec();
            let plain = key
                .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut body)
                .map_err(|_| failed("it does not belong to this volume's UUID, or it is damaged"))?;
            let plain = String::from_utf8(plain.to_vec()).map_err(|_| failed("it is not text"))?;
            *secret = plain.into();
        }
        self.put_secrets(done, false);
        Ok(())
    }

    fn secret_key_cipher(&self) -> Result<LessSafeKey, SettingsError> {
        if self.encrypt_algo.eq_ignore_ascii_case("sm4gcm") {
            return Err(SettingsError::Unsupported("encryption algorithm sm4gcm"));
        }
        let key = Md5::digest(self.uuid.as_bytes());
        let key = UnboundKey::new(&AES_128_GCM, &key)
            .map_err(|_| SettingsError::Unsupported("AES-128-GCM of the crypto library"))?;
        Ok(LessSafeKey::new(key))
    }

    fn secrets(&self) -> [&Secret; 3] {
        [&self.encrypt_key, &self.secret_key, &self.session_token]
    }

    fn put_secrets(&mut self, [encrypt_key, secret_key, session_token]: [Secret; 3], encrypted: bool) {
        (self.encrypt_key, self.secret_key, self.session_token) = (encrypt_key, secret_key, session_token);
        self.key_encrypted = encrypted;
    }
}
