//! Where the objects of a volume are, and who may use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ciderfs_format::settings::Tier;
use ciderfs_format::{Secret, Settings, shown};
use ciderfs_object::{named_bucket, takes_region};

use crate::{Error, Result};

/// What one client does otherwise than the settings of the volume say, also when these change.
#[derive(Debug, Clone, Default)]
pub struct Override {
    /// The kind of object store.
    pub storage: Option<String>,
    /// The bucket as it was given, and the directory that it means to a storage of files.
    pub bucket: Option<(String, PathBuf)>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// Keys that are taken whatever the settings say.
    pub keys: Keys,
    /// Keys that are taken where the settings have none.
    pub other_keys: Keys,
    /// The storage class of what is written for files of tier 0.
    pub storage_class: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Most Mbps of uploads; 0 for no limit.
    pub upload_limit: Option<u64>,
    /// Most Mbps of downloads; 0 for no limit.
    pub download_limit: Option<u64>,
}

/// What an object store is asked with.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Names who asks.
    pub access_key: Option<String>,
    /// Proves it.
    pub secret_key: Option<Secret>,
    /// Goes with keys that end by themselves.
    pub session_token: Option<Secret>,
}

impl Override {
    /// The settings of this client, from those of the volume with their secrets decrypted.
    ///
    /// # Errors
    /// A bucket that cannot be understood, and what is no storage class or tag.
    pub fn apply(&self, settings: &mut Settings) -> Result<()> {
        if let Some(storage) = &self.storage {
            settings.storage.clone_from(storage);
        }
        if let Some((text, dir)) = &self.bucket {
            // As stored: it is taken as every client takes it.
            let bucket = if *text == settings.bucket {
                text.clone()
            } else {
                named_bucket(&settings.storage, None, text)?
            };
            settings.bucket = stored_bucket(&settings.storage, &bucket, dir)?;
        }
        if let Some(region) = &self.region {
            settings.bucket = with_region(&settings.storage, &settings.bucket, region);
        }
        if settings.access_key.is_empty() && settings.secret_key.is_empty() {
            self.other_keys.clone().put_into(settings);
        }
        self.keys.clone().put_into(settings);
        settings
            .override_class(self.storage_class.as_deref(), self.tag.as_deref())
            .map_err(|e| Error::Settings(e.to_string()))?;
        settings.set_limits(self.upload_limit, self.download_limit);
        Ok(())
    }
}

impl Keys {
    /// Takes them into settings with their secrets decrypted.
    pub fn put_into(self, settings: &mut Settings) {
        if let Some(key) = self.access_key {
            settings.access_key = key;
        }
        if let Some(key) = self.secret_key {
            settings.secret_key = key;
        }
        if let Some(token) = self.session_token {
            settings.session_token = token;
        }
    }
}

/// A bucket whose address names a region; one that names one already stays as it is, and so does a directory.
pub fn with_region(storage: &str, bucket: &str, region: &str) -> String {
    if !takes_region(storage) || region.is_empty() || bucket.contains("region=") {
        return bucket.to_owned();
    }
    let separator = if bucket.contains('?') { '&' } else { '?' };
    format!("{bucket}{separator}region={region}")
}

/// The bucket as it is stored: a directory absolute and with a slash at the end, as every client expects it. `dir` is what
/// the text means as a directory.
///
/// # Errors
/// An address where a directory is wanted, and a name that settings cannot hold.
pub fn stored_bucket(storage: &str, bucket: &str, dir: &Path) -> Result<String> {
    if !storage.eq_ignore_ascii_case("file") {
        return Ok(bucket.to_owned());
    }
    // Its login would become the name of a directory, which everybody is told.
    if bucket.contains("://") && !bucket.starts_with(['/', '.']) {
        return Err(Error::Settings(
            "--bucket is the address of a service: say --storage s3 or --storage minio, or name a directory"
                .into(),
        ));
    }
    // Settings are a document of text.
    let dir = dir.to_str().ok_or_else(|| {
        Error::Settings(format!(
            "--bucket: the settings of a volume cannot hold {}, which is not UTF-8; choose another directory",
            shown(dir)
        ))
    })?;
    Ok(format!("{}/", dir.trim_end_matches('/')))
}

/// All that says where objects are, who may use them, and what they are stored as.
pub fn object_place(s: &Settings) -> ([String; 3], [Secret; 2], BTreeMap<u8, Tier>) {
    (
        [&s.storage, &s.bucket, &s.access_key].map(String::clone),
        [&s.secret_key, &s.session_token].map(Secret::clone),
        s.all_tiers(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut s = Settings::new("v", "00000000-0000-4000-8000-000000000000", "s3", "http://h:1/b");
        s.access_key = "volume".into();
        s.secret_key = "volume".into();
        s
    }

    #[test]
    fn keys_of_the_environment_complete_a_volume_and_change_none() {
        let keys = |name: &str| Keys {
            access_key: Some(name.into()),
            secret_key: Some(name.into()),
            session_token: None,
        };
        let both = Override { keys: keys("given"), other_keys: keys("ambient"), ..Override::default() };
        let ambient = Override { keys: Keys::default(), ..both.clone() };
        let access = |over: &Override, mut s: Settings| {
            over.apply(&mut s).unwrap();
            assert_eq!(s.secret_key.expose(), s.access_key);
            s.access_key
        };
        let empty = || Settings { access_key: String::new(), secret_key: "".into(), ..settings() };
        assert_eq!(access(&both, settings()), "given");
        assert_eq!(access(&both, empty()), "given");
        assert_eq!(access(&ambient, settings()), "volume");
        assert_eq!(access(&ambient, empty()), "ambient");
    }

    #[test]
    fn class_tag_and_limits_of_a_client_come_before_those_of_the_volume() {
        let mut s = settings();
        s.set_tier(None, Some("GLACIER"), Some("k=v")).unwrap();
        s.set_limits(Some(10), Some(20));
        let own = |over: Override| {
            let mut s = s.clone();
            over.apply(&mut s).unwrap();
            (s.tier(0).storage_class, s.tier(0).tag, s.limits())
        };
        let volume = ("GLACIER".to_owned(), "k=v".to_owned(), (10, 20));
        assert_eq!(own(Override::default()), volume);
        let over =
            Override { storage_class: Some("STANDARD".into()), upload_limit: Some(0), ..Override::default() };
        assert_eq!(own(over), ("STANDARD".to_owned(), volume.1, (0, 20)));
        let over = Override { tag: Some("a=b".into()), download_limit: Some(5), ..Override::default() };
        assert_eq!(own(over), (volume.0, "a=b".to_owned(), (10, 5)));
        let bad = Override { tag: Some("no tag".into()), ..Override::default() };
        assert!(bad.apply(&mut s).unwrap_err().to_string().contains("KEY=VALUE"));
    }

    #[test]
    fn a_region_is_added_where_there_is_none() {
        for (storage, bucket, want) in [
            ("s3", "http://h/b", "http://h/b?region=eu"),
            ("s3", "http://h/b?ca-certs=/c", "http://h/b?ca-certs=/c&region=eu"),
            ("s3", "http://h/b?region=us", "http://h/b?region=us"),
            (
                "Wasabi",
                "https://b.s3.us-east-1.wasabisys.com",
                "https://b.s3.us-east-1.wasabisys.com?region=eu",
            ),
            ("gs", "gs://b", "gs://b"),
            ("file", "/b/", "/b/"),
        ] {
            assert_eq!(with_region(storage, bucket, "eu"), want);
        }
        assert_eq!(with_region("s3", "http://h/b", ""), "http://h/b");
    }
}
