//! Client versions: who may mount a volume (`docs/format/settings.md#versions`).

use std::cmp::Ordering;
use std::fmt;

/// The official release whose behaviour this client has; volumes and other clients see this number.
pub const COMPAT_VERSION: &str = "1.4.2";
/// `MinClientVersion` of a new volume.
pub const MIN_BASE: &str = "1.1.0-A";
/// `MinClientVersion` once ACLs are on.
pub const MIN_ACL: &str = "1.2.0-A";
/// `MinClientVersion` once Ranger is configured.
pub const MIN_RANGER: &str = "1.3.0-A";
/// `MinClientVersion` once tiers or Kerberos are configured.
pub const MIN_TIERS: &str = "1.4.0-A";

/// What this client writes into its session record: the compatible release, and who it really is.
pub fn presented_version(own: &str) -> String {
    format!("{COMPAT_VERSION}+ciderfs-{own}")
}

/// A volume that this client must not mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The volume wants newer clients.
    #[error(
        "the volume requires clients of version {min} or later, this one is compatible with {COMPAT_VERSION}: \
         upgrade this client, or lower the limit with `config META-URL --min-client-version`"
    )]
    TooOld {
        /// `MinClientVersion` of the volume.
        min: String,
    },
    /// The volume wants older clients.
    #[error(
        "the volume requires clients of version {max} or earlier, this one is compatible with {COMPAT_VERSION}: \
         use an older client, or raise the limit with `config META-URL --max-client-version`"
    )]
    TooNew {
        /// `MaxClientVersion` of the volume.
        max: String,
    },
    /// A limit of the volume is not a version.
    #[error("{field} of the volume is not a version: {value:?}; correct it with the `config` command")]
    Malformed {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

/// `major.minor.patch[-pre][+build]`; the build part is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
    /// Text after the first `-`; empty for a release.
    pub pre: String,
}

impl Version {
    /// Reads a version; `None` unless there are exactly three numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('+').map_or(text, |(front, _)| front);
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = numbers.split('.').map(|n| {
            // `parse` alone would take a sign.
            if n.bytes().all(|b| b.is_ascii_digit()) { n.parse().ok() } else { None }
        });
        let this =
            Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()??, pre: pre.to_owned() };
        parts.next().is_none().then_some(this)
    }
}

impl Ord for Version {
    /// Numbers first; then the pre-release text bytewise, where a release comes after all of them.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch, self.pre.is_empty(), &self.pre).cmp(&(
            other.major,
            other.minor,
            other.patch,
            other.pre.is_empty(),
            &other.pre,
        ))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre)?;
        }
        Ok(())
    }
}

/// May this client, as [`COMPAT_VERSION`], use a volume with these limits? Empty limits mean none.
pub fn check_client(min: &str, max: &str) -> Result<(), VersionError> {
    let own = Version::parse(COMPAT_VERSION);
    let limit = |field, value: &str| match Version::parse(value) {
        _ if value.is_empty() => Ok(None),
        Some(v) => Ok(Some(v)),
        None => Err(VersionError::Malformed { field, value: value.to_owned() }),
    };
    if let Some(limit) = limit("MinClientVersion", min)?
        && own.as_ref() < Some(&limit)
    {
        return Err(VersionError::TooOld { min: min.to_owned() });
    }
    if let Some(limit) = limit("MaxClientVersion", max)?
        && own.as_ref() > Some(&limit)
    {
        return Err(VersionError::TooNew { max: max.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order() {
        let sorted = [
            "0.9.9",
            "1.1.0-A",
            "1.1.0-beta1",
            "1.1.0",
            "1.2.0-A",
            "1.4.2-rc1",
            "1.4.2",
            "1.10.0",
            "2.0.0-0",
        ];
        for pair in sorted.windows(2) {
            assert!(Version::parse(pair[0]).unwrap() < Version::parse(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(Version::parse("1.4.2+2026-01-01.abc"), Version::parse("1.4.2"));
        assert_eq!(Version::parse("1.4.2-rc1+x-y").unwrap().to_string(), "1.4.2-rc1");
        for bad in ["", "1", "1.2", "1.2.3.4", "1..2", "a.b.c", "1.2.+3", "-1.2.3"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(check_client("", ""), Ok(()));
        assert_eq!(check_client("1.1.0-A", "1.4.2"), Ok(()));
        assert_eq!(check_client("1.4.2", "2.0.0"), Ok(()));
        assert!(matches!(check_client("1.5.0-A", ""), Err(VersionError::TooOld { .. })));
        assert!(matches!(check_client("", "1.4.2-rc9"), Err(VersionError::TooNew { .. })));
        assert!(matches!(check_client("x", ""), Err(VersionError::Malformed { .. })));
        assert!(Version::parse(&presented_version("0.1.0")) == Version::parse(COMPAT_VERSION));
    }
}
