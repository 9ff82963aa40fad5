//! Labels of the metrics that whoever mounts has chosen (`--custom-labels`).

use std::collections::HashMap;

/// Labels that the series have already, or that tell the mount.
const TAKEN: [&str; 13] = [
    "vol_name",
    "mp",
    "instance",
    "juicefs_version",
    "method",
    "errno",
    "storage_class",
    "version",
    "subdir",
    "inode",
    "uid",
    "gid",
    "le",
];

/// Why labels cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not of the form `name:value`.
    #[error("{0:?} is no label: write NAME:VALUE, with `;` between labels")]
    NoValue(String),
    /// Not a name that Prometheus takes.
    #[error(
        "{0:?} is no name for a label: it has letters, digits and `_` only, and begins with no digit and not with `__`"
    )]
    Name(String),
    /// A name that series have already.
    #[error("the label {0:?} is there already: choose another name")]
    Taken(String),
    /// Given twice.
    #[error("the label {0:?} is given twice")]
    Twice(String),
}

/// Reads `name:value;name:value`. A value goes from the first `:` to the next `;`, and may be empty.
///
/// # Errors
/// A label that Prometheus would not take, or that would hide another one.
pub fn custom_labels(text: &str) -> Result<HashMap<String, String>, LabelError> {
    let mut labels = HashMap::new();
    if text.is_empty() {
        return Ok(labels);
    }
    for label in text.split(';') {
        let (name, value) = label.split_once(':').ok_or_else(|| LabelError::NoValue(label.to_owned()))?;
        if !is_name(name) {
            return Err(LabelError::Name(name.to_owned()));
        }
        if TAKEN.contains(&name) {
            return Err(LabelError::Taken(name.to_owned()));
        }
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(LabelError::Twice(name.to_owned()));
        }
    }
    Ok(labels)
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`; what begins with `__` is for Prometheus itself.
fn is_name(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|b| is_letter(b) || b.is_ascii_digit())
        && !name.starts_with("__")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Metrics;

    #[test]
    fn labels_are_read_or_refused() {
        let read = |text: &str| {
            let mut labels: Vec<_> = custom_labels(text).unwrap().into_iter().collect();
            labels.sort();
            labels
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(""), []);
        assert_eq!(read("team:storage"), [pair("team", "storage")]);
        assert_eq!(read("_a:;b2:http://h:1/x y"), [pair("_a", ""), pair("b2", "http://h:1/x y")]);
        let refused = |text: &str| custom_labels(text).unwrap_err();
        for text in ["team", "team=storage", ";", "a:1;", ";a:1", "a:1;;b:2"] {
            assert!(matches!(refused(text), LabelError::NoValue(_)), "{text}");
        }
        for text in [":x", "1a:x", "a-b:x", "a b:x", "a:1; b:2", "ä:x", "__name__:x", "a.b:x", "a\n:x"] {
            assert!(matches!(refused(text), LabelError::Name(_)), "{text}");
        }
        for name in TAKEN {
            assert_eq!(refused(&format!("a:1;{name}:x")), LabelError::Taken(name.to_owned()));
        }
        assert_eq!(refused("a:1;b:2;a:1"), LabelError::Twice("a".into()));
        assert_eq!(refused("a").to_string(), "\"a\" is no label: write NAME:VALUE, with `;` between labels");
    }

    /// Names and values of the labels of a line, as they are written.
    fn labels_of(line: &str) -> Vec<(&str, &str)> {
        let Some((_, labels)) = line.split_once('{') else { return Vec::new() };
        let labels = labels.rsplit_once('}').unwrap().0;
        labels
            .split("\",")
            .map(|l| l.split_once("=\"").unwrap())
            .map(|(n, v)| (n, v.trim_matches('"')))
            .collect()
    }

    #[test]
    fn every_series_has_them() {
        let mut labels = custom_labels("team:storage;note:a \"b\" \\c\nd").unwrap();
        labels.insert("vol_name".into(), "vol".into());
        labels.insert("mp".into(), "/m".into());
        let metrics = Metrics::new(labels).unwrap();
        metrics.request("read", Duration::from_millis(1), Some("EIO"));
        metrics.object("GET", Duration::from_millis(1), 1, true);
        metrics.object_throttled();
        let text = metrics.prometheus_text();
        let samples: Vec<_> = text.lines().filter(|l| !l.starts_with('#')).map(labels_of).collect();
        assert!(samples.len() > 60, "{text}");
        for labels in samples {
            for want in [("team", "storage"), ("vol_name", "vol"), ("mp", "/m")] {
                assert!(labels.contains(&want), "{labels:?}");
            }
            assert!(labels.contains(&("note", r#"a \"b\" \\c\nd"#)), "{labels:?}");
            // Whatever else is there cannot be chosen.
            for (name, _) in labels {
                assert!(["team", "note"].contains(&name) || TAKEN.contains(&name), "{name}");
            }
        }
    }
}
