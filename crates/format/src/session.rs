//! Session records and the owners of locks (`docs/format/sessions-and-locks.md#session-document`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::FormatError;

/// The number of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Of a client without a session.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionInfo {
    /// Version, see [`crate::version::presented_version`].
    pub version: String,
    /// Name of the machine.
    pub host_name: String,
    /// Its addresses; left out when empty.
    #[serde(rename = "IPAddrs", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub ip_addrs: Vec<String>,
    /// Where the volume is mounted; `s3gateway` or `webdav` for those services.
    pub mount_point: String,
    /// When, in RFC 3339 with nanoseconds.
    pub mount_time: String,
    /// Process of the client.
    #[serde(rename = "ProcessID")]
    pub process_id: i64,
    /// CiderFS only: seconds that the session lives without a refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<i64>,
    /// CiderFS only: is its expiry by the engine's clock?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_clock: Option<bool>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl SessionInfo {
    /// The stored bytes: compact JSON. They are sent unchanged for the whole life of a session.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let json = serde_json::to_string(self).map_err(|e| invalid(&e))?;
        Ok(crate::settings::escape_html(&json).into_bytes())
    }

    /// Reads a stored record; unknown fields are ignored.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        serde_json::from_slice(raw).map_err(|e| invalid(&e))
    }
}

fn invalid(e: &serde_json::Error) -> FormatError {
    FormatError::Invalid { what: "session record", detail: e.to_string() }
}

/// The field that names the owner of a lock: `<sid>_<16 upper-case hex digits>`.
pub fn lock_owner_field(sid: SessionId, owner: u64) -> String {
    format!("{sid}_{owner:016X}")
}

/// Reads the field that names the owner of a lock: session id and owner.
pub fn parse_lock_owner_field(field: &str) -> Option<(SessionId, u64)> {
    let (sid, owner) = field.split_once('_')?;
    // `from_str_radix` alone would take a sign.
    if sid.starts_with('+') || owner.starts_with('+') {
        return None;
    }
    Some((SessionId(sid.parse().ok()?), u64::from_str_radix(owner, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json() {
        let mut info = SessionInfo {
            version: "1.4.2+ciderfs-0.1.0".into(),
            host_name: "h".into(),
            ip_addrs: vec!["10.0.0.1".into()],
            mount_point: "/mnt/a&b".into(),
            mount_time: "2026-11-22T09:39:22.412395255Z".into(),
            process_id: 123,
            ..SessionInfo::default()
        };
        let raw = r#"{"Version":"1.4.2+ciderfs-0.1.0","HostName":"h","IPAddrs":["10.0.0.1"],"MountPoint":"/mnt/a\u0026b","MountTime":"2026-11-22T09:39:22.412395255Z","ProcessID":123}"#;
        assert_eq!(String::from_utf8(info.encode().unwrap()).unwrap(), raw);
        assert_eq!(SessionInfo::decode(raw.as_bytes()).unwrap(), info);
        let ours = SessionInfo { life: Some(60), engine_clock: Some(true), ..info.clone() };
        let more = raw.replace('}', r#","Life":60,"EngineClock":true}"#);
        assert_eq!(String::from_utf8(ours.encode().unwrap()).unwrap(), more);
        assert_eq!(SessionInfo::decode(more.as_bytes()).unwrap(), ours);
        info.ip_addrs.clear();
        assert!(!String::from_utf8(info.encode().unwrap()).unwrap().contains("IPAddrs"));
        assert_eq!(SessionInfo::decode(&info.encode().unwrap()).unwrap(), info);
        let sparse = SessionInfo::decode(br#"{"Version":"1.0.0","IPAddrs":null,"New":{"a":1}}"#).unwrap();
        assert_eq!((sparse.version.as_str(), sparse.process_id), ("1.0.0", 0));
        assert!(SessionInfo::decode(b"").is_err());
    }

    #[test]
    fn owners() {
        // The fields of lockf12 and lockp12 in `docs/format/sessions-and-locks.md#examples`.
        assert_eq!(lock_owner_field(SessionId(1), 0xD4AA_9D3E_F1D5_8DA5), "1_D4AA9D3EF1D58DA5");
        assert_eq!(parse_lock_owner_field("1_57D589CF3D5BF1F1"), Some((SessionId(1), 0x57D5_89CF_3D5B_F1F1)));
        assert_eq!(lock_owner_field(SessionId(7), 0x2a), "7_000000000000002A");
        for bad in ["", "1", "1_", "_2", "x_2", "1_g", "+1_2", "1_+2", "1_2_3", "1_123456789ABCDEF01"] {
            assert_eq!(parse_lock_owner_field(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn owner_round_trip(sid: u64, owner: u64) {
            let sid = SessionId(sid);
            prop_assert_eq!(parse_lock_owner_field(&lock_owner_field(sid, owner)), Some((sid, owner)));
        }

        #[test]
        fn never_panics(raw: Vec<u8>, text: String) {
            let _ = SessionInfo::decode(&raw);
            parse_lock_owner_field(&text);
        }
    }
}
