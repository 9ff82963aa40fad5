//! Where the objects of a volume are, and who may use them.

use std::path::{Path, PathBuf};

use ciderfs_format::{Secret, Settings, shown};
use ciderfs_object::named_bucket;

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
    /// A bucket that cannot be understood.
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
    let has_regions = ["s3", "minio"].iter().any(|kind| storage.eq_ignore_ascii_case(kind));
    if !has_regions || region.is_empty() || bucket.contains("region=") {
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

/// All that says where objects are and who may use them.
pub fn object_place(s: &Settings) -> ([String; 3], [Secret; 2]) {
    (
        [&s.storage, &s.bucket, &s.access_key].map(String::clone),
        [&s.secret_key, &s.session_token].map(Secret::clone),
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
    fn a_region_is_added_where_there_is_none() {
        for (storage, bucket, want) in [
            ("s3", "http://h/b", "http://h/b?region=eu"),
            ("s3", "http://h/b?ca-certs=/c", "http://h/b?ca-certs=/c&region=eu"),
            ("s3", "http://h/b?region=us", "http://h/b?region=us"),
            ("file", "/b/", "/b/"),
        ] {
            assert_eq!(with_region(storage, bucket, "eu"), want);
        }
        assert_eq!(with_region("s3", "http://h/b", ""), "http://h/b");
    }
}
