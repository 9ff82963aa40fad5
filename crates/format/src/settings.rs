//! The volume's settings document, `Format` in the official client (`docs/format/settings.md`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::Compression;
use crate::envelope::Algorithm;
use crate::secret::Secret;
use crate::shown::{is_secret_name, shown_address, shown_bucket};
use crate::version::{self, VersionError};

mod json;
mod secrets;
#[cfg(test)]
mod tests;
mod tiers;

pub(crate) use json::escape_html;
pub use tiers::parse_mbps;

/// Newest `MetaVersion` that this code understands.
pub const MAX_META_VERSION: u32 = 1;
/// Smallest block, in bytes.
pub const MIN_BLOCK_SIZE: u32 = 64 << 10;
/// Largest block, in bytes.
pub const MAX_BLOCK_SIZE: u32 = 16 << 20;
/// Default block, in bytes.
pub const DEFAULT_BLOCK_SIZE: u32 = 4 << 20;
/// Most buckets that a volume may be spread over.
pub const MAX_SHARDS: u32 = 256;
/// Bytes of the document. With keys and certificates it has some ten thousand.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Highest storage tier.
pub const MAX_TIER: u8 = 3;
/// Stands in the place of a secret that was taken out, for example by a dump.
pub const REMOVED: &str = "removed";

/// A settings document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not JSON, or a field of the wrong type.
    #[error("the volume's settings cannot be read: {0}")]
    Json(String),
    /// Not such a document, whatever it is.
    #[error("the volume's settings have {0} bytes, at most {MAX_DOCUMENT} are possible: is this a volume?")]
    Length(usize),
    /// A field has a value that the format does not allow.
    #[error("invalid volume setting {field}: {detail}")]
    Field {
        /// Name of the field in the document.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Written by a newer generation of clients.
    #[error("the volume uses metadata version {0}, this client knows {MAX_META_VERSION}: upgrade the client")]
    MetaVersion(u32),
    /// This client is too old or too new for the volume.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A secret is the literal `removed`.
    #[error("{field} was removed from the volume's settings: set it again with the `config` command")]
    SecretRemoved {
        /// Name of the field in the document.
        field: &'static str,
    },
    /// A secret does not decrypt.
    #[error("{field} cannot be decrypted: {detail}")]
    Secret {
        /// Name of the field in the document.
        field: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// The volume needs an algorithm that is not implemented.
    #[error("{0} is not supported by this client")]
    Unsupported(&'static str),
}

/// A storage tier: what the objects of its files are stored as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tier {
    /// 0 to 3; 0 is the volume's default.
    #[serde(rename = "ID")]
    pub id: u8,
    /// Storage class of the object store; empty for the store's default.
    #[serde(rename = "StorageClass")]
    pub storage_class: String,
    /// Object tag, `key=value`; empty for none.
    #[serde(rename = "Tag")]
    pub tag: String,
}

/// The settings of a volume. Fields are in the order of the document; empty optional ones are left out.
///
/// [`Default`] is what absent keys mean, not what a new volume gets: see [`Settings::new`].
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    /// Volume name and prefix of all objects.
    pub name: String,
    /// Identity of the volume, 36 characters.
    #[serde(rename = "UUID")]
    pub uuid: String,
    /// Object store driver; compared without case.
    pub storage: String,
    /// Default storage class of volumes without tiers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub storage_class: String,
    /// Storage tiers by id. Use [`Settings::tier`], which knows the defaults.
    #[serde(with = "json::tiers")]
    pub tiers: BTreeMap<u8, Tier>,
    /// Endpoint, bucket or path.
    pub bucket: String,
    /// Access key of the object store.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_key: String,
    /// Secret key of the object store; encrypted while `key_encrypted`.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub secret_key: Secret,
    /// Session token of the object store; encrypted while `key_encrypted`.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub session_token: Secret,
    /// Block size in KiB as stored; see [`Settings::block_size`].
    #[serde(rename = "BlockSize")]
    pub block_size_kib: u32,
    /// Compression as stored; see [`Settings::compression`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// Number of buckets when above 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub shards: u32,
    /// Object keys start with a hash byte instead of the millions of the id.
    #[serde(skip_serializing_if = "is_false")]
    pub hash_prefix: bool,
    /// Limit of used bytes, 0 for none.
    #[serde(skip_serializing_if = "is_zero64")]
    pub capacity: u64,
    /// Limit of inodes, 0 for none.
    #[serde(skip_serializing_if = "is_zero64")]
    pub inodes: u64,
    /// PEM text of the private key; encrypted while `key_encrypted`. Empty on volumes without encryption.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub encrypt_key: Secret,
    /// Cipher of objects and secrets; see [`Settings::encryption`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub encrypt_algo: String,
    /// The secrets are encrypted with a key made from the UUID.
    #[serde(skip_serializing_if = "is_false")]
    pub key_encrypted: bool,
    /// Default upload limit per client, Mbps, 0 for none.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub upload_limit: i64,
    /// Default download limit per client, Mbps, 0 for none.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub download_limit: i64,
    /// Days that removed files and replaced slices are kept; 0 switches the trash off.
    pub trash_days: u32,
    /// Generation of the metadata layout.
    #[serde(skip_serializing_if = "is_zero")]
    pub meta_version: u32,
    /// Oldest client that may mount; empty for any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub min_client_version: String,
    /// Newest client that may mount; empty for any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub max_client_version: String,
    /// Usage statistics per directory are kept.
    #[serde(skip_serializing_if = "is_false")]
    pub dir_stats: bool,
    /// Usage per user and group is kept.
    #[serde(skip_serializing_if = "is_false")]
    pub user_group_quota: bool,
    /// POSIX ACLs are on; cannot be taken back.
    #[serde(rename = "EnableACL")]
    pub enable_acl: bool,
    /// Ranger service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ranger_rest_url: String,
    /// Ranger service name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ranger_service: String,
    /// Every mutation is logged.
    #[serde(skip_serializing_if = "is_false")]
    pub change_log: bool,
    /// Seconds that log lines are kept.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub change_log_max_age: i64,
    /// Lines of log that are kept, 0 for any number.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub change_log_max_lines: i64,
    /// Kerberos configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kerb_conf: String,
    /// Keys that this code does not know. They survive a read-modify-write by us, though the official client
    /// drops them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Settings {
    /// The defaults of a new volume.
    pub fn new(name: &str, uuid: &str, storage: &str, bucket: &str) -> Self {
        Self {
            name: name.to_owned(),
            uuid: uuid.to_owned(),
            storage: storage.to_owned(),
            tiers: BTreeMap::from([(0, Tier::default())]),
            bucket: bucket.to_owned(),
            block_size_kib: DEFAULT_BLOCK_SIZE >> 10,
            compression: "none".to_owned(),
            encrypt_algo: Algorithm::Aes256Gcm.name().to_owned(),
            trash_days: 1,
            meta_version: MAX_META_VERSION,
            min_client_version: version::MIN_BASE.to_owned(),
            dir_stats: true,
            ..Self::default()
        }
    }

    /// Reads a document and checks what everything else relies on: block size, shards, compression, UUID.
    ///
    /// A `null` is the same as an absent key. Versions are checked by [`Settings::check_mountable`].
    pub fn parse(raw: &[u8]) -> Result<Self, SettingsError> {
        if raw.len() > MAX_DOCUMENT {
            return Err(SettingsError::Length(raw.len()));
        }
        let this = json::parse(raw)?;
        this.validate()?;
        Ok(this)
    }

    /// The document as stored: one `"Key": value` per line, no indentation, like the official client writes it.
    pub fn to_json(&self) -> Result<String, SettingsError> {
        let document = json::print(self, b"")?;
        if document.len() > MAX_DOCUMENT {
            return Err(SettingsError::Length(document.len()));
        }
        Ok(document)
    }

    /// The document for people and scripts: two spaces of indentation, secrets shown as `removed`.
    pub fn to_display_json(&self) -> Result<String, SettingsError> {
        json::print(&self.without_secrets(), b"  ")
    }

    /// A copy whose secrets are the literal `removed`, and whose addresses show no password.
    pub fn without_secrets(&self) -> Self {
        let mut copy = self.clone();
        for secret in [&mut copy.encrypt_key, &mut copy.secret_key, &mut copy.session_token] {
            if !secret.is_empty() {
                *secret = REMOVED.into();
            }
        }
        copy.bucket = self.shown_bucket();
        copy.ranger_rest_url = shown_address(&copy.ranger_rest_url);
        // Those of newer clients, as far as they are called so.
        for (name, value) in &mut copy.extra {
            if is_secret_name(name) && !value.is_null() {
                *value = REMOVED.into();
            }
        }
        copy
    }

    /// The place of the objects for texts: a directory as it is, any other address without a password.
    pub fn shown_bucket(&self) -> String {
        if self.storage.eq_ignore_ascii_case("file") {
            self.bucket.clone()
        } else {
            shown_bucket(&self.storage, &self.bucket)
        }
    }

    /// Checks the fields that make up the layout of data, and the UUID, which names directories, sockets and locks.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let field = |field, detail: String| Err(SettingsError::Field { field, detail });
        let bs = u64::from(self.block_size_kib) << 10;
        if !bs.is_power_of_two() || bs < u64::from(MIN_BLOCK_SIZE) || bs > u64::from(MAX_BLOCK_SIZE) {
            return field(
                "BlockSize",
                format!("{} KiB is not a power of two from 64 to 16384", self.block_size_kib),
            );
        }
        if self.shards > MAX_SHARDS {
            return field("Shards", format!("{} is more than {MAX_SHARDS}", self.shards));
        }
        if !is_uuid(&self.uuid) {
            return field(
                "UUID",
                format!("{:?} is not one, like 5f1c3a86-0000-4000-8000-000000000001", self.uuid),
            );
        }
        self.compression()?;
        Ok(())
    }

    /// May this client mount the volume? Checks `MetaVersion` and the range of client versions.
    pub fn check_mountable(&self) -> Result<(), SettingsError> {
        self.check_meta_version()?;
        Ok(version::check_client(&self.min_client_version, &self.max_client_version)?)
    }

    /// The part of the check that is repeated on every heartbeat.
    pub fn check_meta_version(&self) -> Result<(), SettingsError> {
        if self.meta_version > MAX_META_VERSION {
            return Err(SettingsError::MetaVersion(self.meta_version));
        }
        Ok(())
    }

    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        self.block_size_kib << 10
    }

    /// How blocks are compressed.
    pub fn compression(&self) -> Result<Compression, SettingsError> {
        self.compression.parse().map_err(|_| SettingsError::Field {
            field: "Compression",
            detail: format!("{:?} is not one of none, lz4, zstd", self.compression),
        })
    }

    /// The cipher of objects; `None` when the volume is not encrypted.
    pub fn encryption(&self) -> Result<Option<Algorithm>, SettingsError> {
        if self.encrypt_key.is_empty() {
            return Ok(None);
        }
        Algorithm::parse(&self.encrypt_algo)
            .map(Some)
            .map_err(|e| SettingsError::Field { field: "EncryptAlgo", detail: e.to_string() })
    }

    /// Removed files go to the trash.
    pub fn trash_enabled(&self) -> bool {
        self.trash_days > 0
    }

    /// The objects are spread over several buckets; number of them, 1 for none.
    pub fn shard_count(&self) -> u32 {
        self.shards.max(1)
    }

    /// Raises the oldest allowed client to `to` unless it is newer already. Used when a feature is switched on
    /// (ACL 1.2.0-A, Ranger 1.3.0-A, tiers and Kerberos 1.4.0-A).
    pub fn raise_min_client(&mut self, to: &str) {
        let newer = match (version::Version::parse(&self.min_client_version), version::Version::parse(to)) {
            (Some(have), Some(want)) => have < want,
            _ => true,
        };
        if newer {
            to.clone_into(&mut self.min_client_version);
        }
    }
}

/// Without the secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_display_json().unwrap_or_default())
    }
}

/// Is this a permitted volume name: 3 to 63 lower-case letters, digits and inner hyphens?
pub fn validate_name(name: &str) -> Result<(), SettingsError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let ok = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&c| plain(c) || c == b'-')
        && bytes.first().is_some_and(|&c| plain(c))
        && bytes.last().is_some_and(|&c| plain(c));
    if ok {
        return Ok(());
    }
    Err(SettingsError::Field {
        field: "Name",
        detail: format!(
            "{name:?} must have 3 to 63 characters, lower-case letters, digits and hyphens, with no hyphen at the ends"
        ),
    })
}

/// Groups of 8, 4, 4, 4 and 12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(|g| g.bytes().all(|b| b.is_ascii_hexdigit()).then_some(g.len()));
    groups.eq([8, 4, 4, 4, 12].map(Some))
}

/// The block size, in bytes, that a request for `bytes` gives: the power of two at or below it, from 64 KiB to
/// 16 MiB.
pub fn round_block_size(bytes: u64) -> u32 {
    let clamped = bytes.clamp(u64::from(MIN_BLOCK_SIZE), u64::from(MAX_BLOCK_SIZE)) as u32;
    1 << clamped.ilog2()
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_zero64(n: &u64) -> bool {
    *n == 0
}

fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}
