//! What the Secret of a volume says, with the keys of the official driver (`docs/reference/csi.md#the-secret`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ciderfs_format::{Secret, shown_address};
use tonic::Status;

/// Largest Secret of Kubernetes.
const FILE_MAX: u64 = 1 << 20;
/// Variables that hold the password of the engine.
const PASSWORDS: [&str; 2] = ["META_PASSWORD", "REDIS_PASSWORD"];

/// The values of a Secret. Nothing shows them.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// Those of a request.
    pub fn of(values: &BTreeMap<String, String>) -> Self {
        Self(values.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect())
    }

    /// Those of a Secret that is mounted as a directory: a file for each key.
    ///
    /// # Errors
    /// Of the system.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let mut values = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // Kubernetes keeps versions of the whole in directories with hidden names, and links to the files of one of them.
            let Some(key) =
                entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned)
            else {
                continue;
            };
            if entry.path().is_file() {
                let value = ciderfs_bounded::read_text(entry.path(), FILE_MAX)?;
                values.insert(key, value.trim_end_matches('\n').into());
            }
        }
        Ok(Self(values))
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A value that is not empty, under any of the names of its key.
    pub fn get(&self, key: &str) -> Option<&Secret> {
        let old = match key {
            "access-key" => "accesskey",
            "secret-key" => "secretkey",
            other => other,
        };
        [key, old].iter().find_map(|key| self.0.get(*key).filter(|value| !value.is_empty()))
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn require(&self, key: &str) -> Result<&str, Status> {
        self.get(key).map(Secret::expose).ok_or_else(|| {
            let hint = if self.is_empty() {
                ": the StorageClass names no Secret for this call (csi.storage.k8s.io/provisioner-secret-name and so on)"
            } else if key == "metaurl" {
                ": this is the Secret of another edition"
            } else {
                ""
            };
            Status::invalid_argument(format!("the Secret has no {key}{hint}"))
        })
    }

    /// The address of the metadata as everybody may see it.
    pub fn shown_place(&self) -> String {
        self.get("metaurl").map_or_else(|| "the metadata engine".into(), |url| shown_address(url.expose()))
    }

    /// Variables of the environment: a map in JSON, or lines of `NAME: VALUE`.
    pub fn envs(&self) -> BTreeMap<String, Secret> {
        let Some(text) = self.get("envs").map(Secret::expose) else { return BTreeMap::new() };
        if let Ok(map) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text) {
            let shown = |value: serde_json::Value| match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            return map.into_iter().map(|(name, value)| (name, shown(value).into())).collect();
        }
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
            let name = bare(name);
            (!name.is_empty() && !name.starts_with('#')).then(|| (name, Secret::from(bare(value))))
        };
        let text = text.trim();
        // Elsewhere a comma is part of a value.
        let ends = if text.starts_with('{') { &[',', '\n'][..] } else { &['\n'] };
        text.trim_matches(['{', '}']).split(ends).filter_map(pair).collect()
    }

    /// The password of the engine, for an address that has none.
    pub fn password(&self) -> Option<Secret> {
        let envs = self.envs();
        let of_envs = || PASSWORDS.iter().find_map(|name| envs.get(*name).filter(|p| !p.is_empty()).cloned());
        self.get("meta-password").cloned().or_else(of_envs)
    }

    /// What `format` is told besides: `NAME=VALUE` or `NAME`, separated by commas.
    pub fn format_options(&self) -> Vec<(String, Option<Secret>)> {
        let Some(text) = self.get("format-options").map(Secret::expose) else { return Vec::new() };
        let option = |word: &str| {
            let word = word.trim().trim_start_matches('-');
            match word.split_once('=') {
                Some((name, value)) => (name.trim().to_owned(), Some(value.trim().into())),
                None => (word.to_owned(), None),
            }
        };
        text.split(',').filter(|word| !word.trim().is_empty()).map(option).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        Secrets::of(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn keys_have_the_names_of_the_official_driver() {
        let s = secrets(&[
            ("accesskey", "a"),
            ("secret-key", "s"),
            ("metaurl", "redis://:hidden@h/1"),
            ("bucket", ""),
        ]);
        assert_eq!(s.get("access-key").unwrap().expose(), "a");
        assert_eq!(s.get("secret-key").unwrap().expose(), "s");
        assert!(s.get("bucket").is_none());
        assert!(!s.shown_place().contains("hidden") && s.shown_place().contains('h'));
        assert!(!format!("{s:?}").contains("hidden"));
        assert!(s.require("name").unwrap_err().message().contains("name"));
    }

    #[test]
    fn environments_in_both_forms() {
        for text in
            [r#"{"META_PASSWORD": "p", "N": 1}"#, "META_PASSWORD: p\nN: 1", "{META_PASSWORD: 'p', N: 1}"]
        {
            let s = secrets(&[("envs", text)]);
            assert_eq!(s.password().unwrap().expose(), "p", "{text}");
            assert_eq!(s.envs()["N"].expose(), "1", "{text}");
        }
        assert_eq!(secrets(&[("envs", "nonsense")]).password(), None);
    }

    #[test]
    fn options_of_format() {
        let s = secrets(&[("format-options", "trash-days=1, --hash-prefix,session-token=t=u")]);
        let options = s.format_options();
        let shown: Vec<_> =
            options.iter().map(|(n, v)| (n.as_str(), v.as_ref().map(Secret::expose))).collect();
        assert_eq!(shown, [("trash-days", Some("1")), ("hash-prefix", None), ("session-token", Some("t=u"))]);
    }
}
