//! The volume's private key out of a PEM file (`docs/format/objects.md#private-keys`).

use std::fmt;

use aws_lc_rs::rsa::{OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey};
use pem::PemError;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{AnyRef, Encode};
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef};

use super::legacy;

/// The variable from which programs take the passphrase.
pub const PASSPHRASE_ENV: &str = "JFS_RSA_PASSPHRASE";

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SM2_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A private key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM text.
    #[error("the encryption key is not a PEM file: {0}")]
    Pem(String),
    /// Some other PEM text.
    #[error("the encryption key file starts with {0:?}, which is not a private key")]
    NotAKey(String),
    /// Encrypted, but no passphrase was given.
    #[error(
        "the encryption key is protected by a passphrase: put it into the environment variable {PASSPHRASE_ENV}"
    )]
    PassphraseNeeded,
    /// The passphrase does not fit.
    #[error(
        "the encryption key does not decrypt: check the passphrase in the environment variable {PASSPHRASE_ENV}"
    )]
    WrongPassphrase,
    /// Protected in a way that is not implemented.
    #[error(
        "the encryption key is protected with {0}, which is not supported; convert it with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
    )]
    Protection(String),
    /// Not an RSA key.
    #[error("{0} keys are not supported by this client: use an RSA key of 2048 to 8192 bits")]
    Type(String),
    /// Damaged, too small or too large.
    #[error("the encryption key is not a valid RSA key of 2048 to 8192 bits: {0}")]
    Invalid(String),
}

/// An RSA private key.
pub struct PrivateKey {
    pub(super) unwrap: OaepPrivateDecryptingKey,
    pub(super) wrap: OaepPublicEncryptingKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(RSA-{})", self.unwrap.key_size_bits())
    }
}

impl PrivateKey {
    /// Loads the first key of a PEM text: PKCS#1 (also with the old `DEK-Info` protection) or PKCS#8 (also
    /// protected by PBES2). The passphrase is ignored when the key is not protected.
    pub fn load(pem: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let block = pem::parse(pem).map_err(|e| {
            KeyError::Pem(match e {
                // It would be quoted, and may be a line of the key.
                PemError::InvalidHeader(_) => "invalid header".to_owned(),
                PemError::InvalidData(_) => "invalid data".to_owned(),
                other => other.to_string(),
            })
        })?;
        let passphrase = || passphrase.filter(|p| !p.is_empty()).ok_or(KeyError::PassphraseNeeded);
        let header = |name| block.headers().get(name).map(str::trim);

        if header("Proc-Type").is_some_and(|v| v.contains("ENCRYPTED")) {
            let info = header("DEK-Info").unwrap_or_default();
            let der = legacy::decrypt(block.contents(), info, passphrase()?)?;
            // One wrong passphrase in 256 leaves valid padding behind.
            return Self::from_der(&der, block.tag()).map_err(|e| match e {
                KeyError::Type(_) => e,
                _ => KeyError::WrongPassphrase,
            });
        }
        match block.tag() {
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase()?;
                let info = EncryptedPrivateKeyInfoRef::try_from(block.contents())
                    .map_err(|e| KeyError::Protection(format!("an unknown scheme ({e})")))?;
                let der = info.decrypt(passphrase).map_err(|_| KeyError::WrongPassphrase)?;
                Self::from_der(der.as_bytes(), block.tag())
            }
            tag if tag.ends_with("PRIVATE KEY") => Self::from_der(block.contents(), tag),
            tag => Err(KeyError::NotAKey(tag.to_owned())),
        }
    }

    /// Size of the modulus in bytes, which is the length of wrapped keys.
    pub fn modulus_len(&self) -> usize {
        self.unwrap.key_size_bytes()
    }

    /// Takes PKCS#8 or PKCS#1, whatever the label says.
    fn from_der(der: &[u8], tag: &str) -> Result<Self, KeyError> {
        let pkcs1 = match PrivateKeyInfoRef::try_from(der) {
            Ok(info) if info.algorithm.oid == RSA => info.private_key.as_bytes(),
            Ok(info) => return Err(KeyError::Type(type_name(&info))),
            Err(_) if tag == "EC PRIVATE KEY" => return Err(KeyError::Type("elliptic-curve".to_owned())),
            Err(_) if tag == "OPENSSH PRIVATE KEY" => return Err(KeyError::Type("OpenSSH".to_owned())),
            Err(_) => der,
        };
        let invalid = |e: &dyn fmt::Display| KeyError::Invalid(e.to_string());
        // The crypto library reads PKCS#8 only, and not every variant of it.
        let algorithm = AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) };
        let octets: &OctetStringRef = OctetStringRef::new(pkcs1).map_err(|e| invalid(&e))?;
        let der = PrivateKeyInfoRef::new(algorithm, octets).to_der().map_err(|e| invalid(&e))?;
        let key = PrivateDecryptingKey::from_pkcs8(&der).map_err(|e| invalid(&e))?;
        let wrap = OaepPublicEncryptingKey::new(key.public_key()).map_err(|e| invalid(&e))?;
        let unwrap = OaepPrivateDecryptingKey::new(key).map_err(|e| invalid(&e))?;
        Ok(Self { unwrap, wrap })
    }
}

fn type_name(info: &PrivateKeyInfoRef<'_>) -> String {
    match info.algorithm.oid {
        ED25519 => "Ed25519".to_owned(),
        EC if info.algorithm.parameters_oid() == Ok(SM2_CURVE) => "SM2".to_owned(),
        EC => "elliptic-curve".to_owned(),
        other => other.to_string(),
    }
}
